from __future__ import annotations

import pytest

from talking_points.descriptions.nouns import (
    familiar_objects,
    head_noun,
    indefinite,
    is_plural,
    object_names,
    part_names,
    possessive,
    pronoun,
    say_object,
    say_part,
)
from tests.descriptions.candidates import annotated_pairs


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("eye", "an eye"),
        ("paw", "a paw"),
        ("oval, black spot", "an oval, black spot"),
        ("unicycle", "a unicycle"),
        ("used tire", "a used tire"),
        ("umbrella", "an umbrella"),
        ("upper arm", "an upper arm"),
        ("hourglass", "an hourglass"),
        ("horizontal edge", "a horizontal edge"),
        ("European bird", "a European bird"),
        ("orange area", "an orange area"),
    ],
)
def test_indefinite_article_follows_the_sound(phrase, expected):
    assert indefinite(phrase) == expected


@pytest.mark.parametrize("name", ["buttons", "keys", "scissors", "feet", "people", "chests of drawers", "glasses"])
def test_plural_names(name):
    assert is_plural(name)


@pytest.mark.parametrize("name", ["bus", "glass", "chest of drawers", "canvas", "sheep", "torso", "minibus", "pelvis"])
def test_singular_names(name):
    assert not is_plural(name)


@pytest.mark.parametrize(
    ("name", "owner", "own"),
    [
        ("dog", "the dog's", "its"),
        ("bus", "the bus's", "its"),
        ("glass", "the glass's", "its"),
        ("person", "the person's", "their"),
        ("scissors", "the scissors'", "their"),
        ("chest of drawers", "the chest of drawers'", "its"),
    ],
)
def test_possessives(name, owner, own):
    assert (possessive(name), pronoun(name)) == (owner, own)


@pytest.mark.parametrize(
    ("object_name", "part", "spoken"),
    [
        ("tvmonitor", "screen", ("TV monitor", "screen")),
        ("aeroplane", "tier", ("airplane", "tire")),
        ("shelf", "shelf", ("shelf", "shelf board")),
        ("person", "gaze", ("person", "eye area")),
        ("television receiver", "keys", ("television", "keys")),
        ("dog", "paw", ("dog", "paw")),
    ],
)
def test_spoken_names(object_name, part, spoken):
    assert (say_object(object_name), say_part(object_name, part)) == spoken


def test_head_noun_carries_the_number():
    assert [head_noun(name) for name in ("chest of drawers", "side mirror", "dog")] == ["chest", "mirror", "dog"]


def test_every_annotated_name_may_be_called_by_itself_and_by_its_spoken_form():
    for object_name, part in annotated_pairs():
        assert {object_name.lower(), say_object(object_name).lower()} <= object_names(object_name)
        assert {part.lower(), say_part(object_name, part).lower()} <= part_names(object_name, part)


@pytest.mark.parametrize(
    ("name", "also"),
    [("aeroplane", "airplane"), ("tv monitor", "television"), ("timber wolf", "wolf"), ("person", "woman")],
)
def test_objects_have_synonyms(name, also):
    assert also in object_names(name)


def test_synonyms_do_not_leak_between_categories():
    assert "dog" not in object_names("cat")
    assert "horse" not in object_names("cow")
    assert "tail" not in part_names("dog", "paw")


def test_familiar_objects_are_found_in_singular():
    assert familiar_objects("Two dogs on the grass, beside a Car") == {"dog", "grass", "car"}
