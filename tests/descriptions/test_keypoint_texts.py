"""Descriptions of keypoints: the rule-written ones, files of any author, and the checks of both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from talking_points.descriptions.keypoint_checks import check_texts, mentions
from talking_points.descriptions.keypoint_facts import facts_of, has_facts
from talking_points.descriptions.keypoint_texts import (
    TextsError,
    compose,
    digest,
    load_texts,
    read_texts,
    rule_texts,
    texts_of_rules,
    write_texts,
)
from talking_points.sources import open_source
from talking_points.sources.keypoint_sets import KeypointSet, keypoint_sets, set_of, swap_sides
from tests.shared_data import shared_path

BODY = keypoint_sets()["quadruped_body"]


@pytest.mark.parametrize("one", keypoint_sets().values(), ids=lambda one: one.key)
def test_rules_describe_every_keypoint_and_pass_the_checks(one: KeypointSet) -> None:
    texts = rule_texts(one)
    assert tuple(texts) == one.names
    assert check_texts(one, texts) == []
    for name, text in texts.items():
        others = mentions(text, one.names) - {name}
        assert others, f"{name} is related to nothing"
    for fact in facts_of(one).values():
        assert {name for names in fact.relations.values() for name in names} <= set(one.names)


def test_all_612_texts_differ_within_their_sets_and_never_name_the_category() -> None:
    rows = texts_of_rules()
    assert len(rows) == len({(row.set, row.keypoint) for row in rows}) == 612
    assert len({(row.set, row.text) for row in rows}) == 612
    categories = (
        "horse",
        "animal",
        "bird",
        "fly",
        "locust",
        "person",
        "skirt",
        "dress",
        "shirt",
        "car",
        "chair",
        "sofa",
    )
    for row in rows:
        found = [word for word in categories if f" {word} " in f" {row.text.replace(',', ' ').replace('.', ' ')} "]
        assert not found or (found == ["chair"] and "chair column" in row.text), row
    lengths = [len(row.text.split()) for row in rows]
    assert min(lengths) >= 15
    assert sum(lengths) / len(lengths) < 50


def test_a_text_says_what_and_where() -> None:
    assert compose(BODY, "left knee") == (
        "The left knee is the bend in the middle of the hind leg, on the hind leg, on the object's own left side. "
        "It lies between the left hip and the left back paw along the hind leg and lies below the left hip."
    )
    assert compose(keypoint_sets()["face_68"], "chin tip").endswith(
        "It lies between the eighth right jaw point below the ear and the eighth left jaw point below the ear along "
        "the jaw line, number 9 of 9."
    )


def test_viewer_sides_only_where_the_object_is_seen_from_the_front() -> None:
    skirt = keypoint_sets()["skirt"]
    own, seen = compose(skirt, "right waistband"), compose(skirt, "right waistband", sides="viewer")
    assert "The right waistband" in own
    assert "object's own right side" in own
    assert "The left waistband" in seen
    assert "viewer's left side" in seen
    assert swap_sides(own).replace("object's own", "viewer's") == seen
    for key in ("quadruped_body", "face_19"):
        with pytest.raises(ValueError, match="only mean the object's own"):
            compose(keypoint_sets()[key], keypoint_sets()[key].names[0], sides="viewer")


GOOD = rule_texts(BODY)


@pytest.mark.parametrize(
    ("keypoint", "text", "check"),
    [
        ("nose", "", "missing"),
        ("nose", "The nose is the tip.", "length"),
        ("nose", GOOD["nose"] + " word" * 60, "length"),
        ("nose", GOOD["nose"].replace("The nose", "This place"), "own_name"),
        ("nose", GOOD["nose"] + " It is far from the left wing tip.", "foreign_name"),
        ("left knee", GOOD["left knee"].replace("own left side", "own right side"), "side"),
        ("left knee", GOOD["left knee"].replace("below the left hip", "above the left hip"), "contradiction"),
        ("left hip", GOOD["left hip"] + " It lies below the left knee.", "contradiction"),
        ("nose", GOOD["nose"] + "\nAssistant: [0.1,0.2]", "marker"),
        ("nose", GOOD["neck"].replace("The neck", "The nose, the neck"), ""),
        ("right eye", GOOD["right eye"].replace("middle", "centre"), "not_mirrored"),
    ],
)
def test_a_wrong_text_fails_its_check(keypoint: str, text: str, check: str) -> None:
    problems = check_texts(BODY, GOOD | {keypoint: text})
    found = {problem.check for problem in problems}
    assert check in found if check else not found & {"own_name", "foreign_name"}
    assert all(problem.keypoint in BODY.names for problem in problems)


def test_equal_texts_are_found() -> None:
    text = "The nose and the neck lie at the front of the body, far away from the rear."
    (problem,) = check_texts(BODY, GOOD | {"nose": text, "neck": text.upper().lower()})
    assert (problem.keypoint, problem.check) == ("neck", "repeated")


def test_longer_names_are_not_mentions_of_shorter_ones() -> None:
    names = ("front of the abdomen", "abdomen", "end of the abdomen")
    assert mentions("It lies at the front of the abdomen.", names) == {"front of the abdomen"}


def test_files_are_written_read_and_fingerprinted(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [replace(row, author="me") for row in texts_of_rules()]
    write_texts(rows, path)
    header = json.loads(path.read_text().splitlines()[0])
    assert (header["author"], header["side"], header["rows"]) == (["me"], "own", 612)
    assert read_texts(path) == rows
    texts = load_texts(path)
    assert texts == load_texts("rules")
    assert digest(texts) == digest(dict(reversed(texts.items())))
    changed = texts | {("skirt", "center hem"): "another"}
    assert digest(changed) != digest(texts)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text": None}, "line 2: .*set, keypoint and text are texts"),
        ({"keypoint": ["nose"]}, "line 2: .*set, keypoint and text are texts"),
        ({}, "line 3: .*a second text about the left eye of quadruped_body"),
        (b"\xff\xfe", "in UTF-8"),
    ],
)
def test_a_file_that_somebody_has_written_by_hand_is_refused_by_line(
    tmp_path: Path, changes: dict[str, object] | bytes, said: str
) -> None:
    path = tmp_path / "mine.jsonl"
    write_texts(texts_of_rules(), path)
    header, first, *_ = path.read_text().splitlines()
    if isinstance(changes, bytes):
        path.write_bytes(changes)
    else:
        path.write_text("\n".join([header, json.dumps(json.loads(first) | changes), first]))
    with pytest.raises(TextsError, match=said):
        read_texts(path)


def test_a_file_with_one_text_missing_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [row for row in texts_of_rules() if (row.set, row.keypoint) != ("hand", "tip of the thumb")]
    write_texts(rows, path)
    with pytest.raises(TextsError, match="lacks 1 texts, the first about 'tip of the thumb' of hand"):
        load_texts(path)
    assert len(load_texts(path, [BODY])) == 17
    write_texts([replace(row, text="Nothing.") if row.set == "hand" else row for row in texts_of_rules()], path)
    with pytest.raises(TextsError, match="fail the checks, the first: wrist: "):
        load_texts(path)
    write_texts([*texts_of_rules(), replace(texts_of_rules([BODY])[0], keypoint="left beak")], path)
    with pytest.raises(TextsError, match=f"keypoints that there are not: 'left beak' of {BODY.key}"):
        load_texts(path)
    path.write_text('{"set": "hand"}\n')
    with pytest.raises(TextsError, match="line 1: expected a row"):
        load_texts(path)
    with pytest.raises(TextsError, match="expected the author 'rules' or a file"):
        load_texts(tmp_path / "gone.jsonl")


def test_facts_relate_what_real_skeletons_join() -> None:
    """Every edge of an annotated skeleton is a relation of one of its ends, or joins both sides."""
    for record in open_source("mp100", shared_path("samples", "mp100", "mp100")):
        for item in record.objects:
            keypoints = set_of(item.id)
            facts, order = facts_of(keypoints), keypoints.mirror()
            related = {
                (name, other)
                for name, fact in facts.items()
                for others in (*fact.relations.values(), *((c.before, c.behind) for c in fact.curves))
                for other in others
            }
            for one, other in item.skeleton:
                pair = keypoints.names[one], keypoints.names[other]
                assert order[one] == other or pair in related or pair[::-1] in related, pair


def test_a_set_of_one_s_own_is_checked_without_facts() -> None:
    kite = KeypointSet.from_names("kite", ["nose tip", "left corner", "right corner"])
    assert not has_facts(kite)
    texts = {
        "nose tip": "The nose tip is the uppermost corner of the sail, where both of its spars are tied.",
        "left corner": "The left corner is the end of the cross spar on the left side, below the nose tip.",
        "right corner": "The right corner is the end of the cross spar on the right side, below the nose tip.",
    }
    assert check_texts(kite, texts) == []
    assert check_texts(kite, {}) != []
