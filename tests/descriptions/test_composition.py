from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talking_points.build_config import VerificationConfig
from talking_points.descriptions.composition import (
    compose_description,
    compose_draft,
    compose_local_caption,
    compose_object_caption,
    look_clause,
)
from talking_points.descriptions.local_appearance import LocalAppearance
from talking_points.descriptions.nouns import say_object, say_part
from talking_points.descriptions.verification import verify
from tests.descriptions.candidates import candidates, make_candidate

CAPTION = "a small, round, black spot set off against a light brown surface"
SEEDS = st.integers(0, 2**32 - 1)
COLOURS = st.sampled_from(["black", "orange", "light gray", "dark brown", "olive green"])

appearances = st.builds(
    LocalAppearance,
    colour=COLOURS,
    surround=COLOURS,
    difference=st.floats(0, 80),
    lighter=st.booleans(),
    shape=st.sampled_from(["plain", "round spot", "oval spot", "line", "edge", "corner"]),
    size=st.floats(1, 14),
    direction=st.sampled_from(["horizontal", "vertical", "diagonal"]),
    sides=st.none() | st.tuples(COLOURS, COLOURS),
    texture=st.sampled_from(["smooth", "fine", "coarse", "striped"]),
    texture_energy=st.floats(0, 20),
)


@settings(max_examples=400, deadline=None)
@given(candidates(), appearances, SEEDS)
def test_every_composed_description_passes_the_verifier_without_a_flag(candidate, appearance, seed):
    caption = compose_local_caption(appearance, seed)
    for text in (compose_description(candidate, caption, seed), compose_draft(candidate, caption, seed)):
        assert verify(text, candidate, VerificationConfig()).findings == (), text


@settings(deadline=None)
@given(candidates(), SEEDS)
def test_descriptions_are_one_well_formed_sentence(candidate, seed):
    text = compose_description(candidate, CAPTION, seed)
    assert text[0].isupper()
    assert text.endswith(".")
    assert text.count(".") == 1
    assert not re.search(r"  | ,|,,|\.\.|\b(\w+) \1\b|\b[Aa] [aeio]|\ban [^aeiouh]", text), text


@settings(deadline=None)
@given(candidates(), SEEDS)
def test_the_object_caption_names_object_part_and_place(candidate, seed):
    text = compose_object_caption(candidate, seed)
    assert candidate.object_location in text
    assert say_part(candidate.object, candidate.part) in text
    assert text[0].isupper()
    assert text.endswith(".")


@given(appearances, SEEDS)
def test_a_local_caption_is_a_noun_phrase_with_its_colour(appearance, seed):
    phrase = compose_local_caption(appearance, seed)
    assert re.match(r"an? \w", phrase)
    assert not phrase.endswith(".")
    named = appearance.sides if appearance.shape == "edge" and appearance.sides else (appearance.colour,)
    assert all(colour in phrase for colour in named)


def test_wording_varies_with_the_seed_and_only_with_it():
    candidate = make_candidate()
    texts = [compose_description(candidate, CAPTION, seed) for seed in range(60)]
    assert len(set(texts)) > 40
    assert texts == [compose_description(candidate, CAPTION, seed) for seed in range(60)]


def test_instances_are_ranked_only_where_they_are_exact():
    ranked = make_candidate(instance_index=1, instance_count=4)
    assert "the second cat from the left" in compose_description(ranked, CAPTION, 1)
    unranked = make_candidate(instance_index=1, instance_count=4, instance_exact=False)
    assert "second" not in compose_description(unranked, CAPTION, 1)


@pytest.mark.parametrize(
    ("object_name", "part", "must"),
    [
        ("person", "upper arm", r"the person, who .* (?:their|the person's) upper arm"),
        ("television receiver", "buttons", r"the television, which .* (?:its|the television's) buttons"),
        ("chest of drawers", "apron", r"the chest of drawers, which .* its apron"),
        ("tvmonitor", "screen", r"of the TV monitor"),
    ],
)
def test_odd_names_read_as_english(object_name, part, must):
    # The part lies in the middle of the object, so its place is "in the center of the ...".
    candidate = make_candidate(object_name, part, (50, 20, 400, 300), (200, 120, 100, 100), (250, 170))
    for seed in range(20):
        assert re.search(must, compose_description(candidate, CAPTION, seed))


def test_a_plural_part_takes_a_plural_verb():
    candidate = make_candidate("television receiver", "buttons", (50, 20, 400, 300), (60, 30, 380, 20), (250, 40))
    assert "buttons, which span most of the television horizontally" in compose_draft(candidate, CAPTION, 0)


@pytest.mark.parametrize(
    ("caption", "clause"),
    [
        ("a dark spot on a light surface", "a dark spot on a light surface"),
        ("A dark spot on a light surface.", "a dark spot on a light surface"),
        ("The image shows a dark spot. It is near a dog.", "a dark spot"),
        ("At the center of the image there is a shiny metal rim", "a shiny metal rim"),
        ("The close-up image of the paw features soft, brown fur.", "soft, brown fur"),
        ("The fur is brown and soft.", "where the fur is brown and soft"),
        ("a dark ring, about 12 pixels wide", "a dark ring"),
        ("TV static in gray", "TV static in gray"),
    ],
)
def test_captions_of_any_backend_are_set_into_the_sentence(caption, clause):
    found = look_clause(caption, "paw", random.Random(0))
    assert found.endswith(clause)


@pytest.mark.parametrize("caption", ["", "   ", "12 px", "I cannot see the image", "**", "```"])
def test_an_unusable_caption_claims_nothing_and_is_rejected(caption):
    text = compose_description(make_candidate(), caption, 0)
    assert {finding.code for finding in verify(text, make_candidate(), VerificationConfig()).findings} == {
        "look_missing"
    }


@settings(deadline=None)
@given(candidates(), SEEDS)
def test_without_a_local_caption_a_description_ends_with_the_place_of_the_point(candidate, seed):
    for compose in (compose_draft, compose_description):
        text = compose(candidate, "", seed)
        assert [finding.code for finding in verify(text, candidate, VerificationConfig()).fatal] == ["look_missing"]
        assert verify(text, candidate, VerificationConfig(require_look=False)).accepted


def test_the_spoken_name_replaces_the_annotated_one_in_places():
    candidate = make_candidate("aeroplane", "wing")
    assert "aeroplane" not in compose_description(candidate, CAPTION, 5)
    assert say_object("aeroplane") in compose_description(candidate, CAPTION, 5)
