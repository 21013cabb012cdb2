"""The keypoint sets of MP-100 and what a set of names must satisfy."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from talking_points.sources import open_source
from talking_points.sources.keypoint_sets import (
    KeypointSet,
    KeypointSetError,
    check_names,
    check_set,
    keypoint_sets,
    set_of,
    side_of,
    swap_sides,
)
from talking_points.sources.labels import load_labels
from talking_points.sources.mp100 import order_names
from tests.shared_data import shared_path
from tests.sources.trees import animal, coco, image_entry, write_image, write_json


def test_every_category_has_one_of_29_sets_as_large_as_annotated() -> None:
    sets = keypoint_sets()
    assert (len(sets), sum(map(len, sets.values()))) == (29, 612)
    assert sorted(number for one in sets.values() for number in one.categories) == list(range(1, 101))
    by_count: Counter[int] = Counter()
    for category in range(1, 101):
        by_count[len(set_of(category))] += 1
    assert by_count == {
        8: 2, 9: 30, 10: 3, 13: 4, 14: 2, 15: 10, 17: 36, 19: 3, 21: 1, 25: 1, 29: 1, 31: 1, 32: 1, 33: 1, 35: 1,
        37: 1, 39: 1, 68: 1,
    }  # fmt: skip
    assert {item["id"] for item in load_labels("mp100")["categories"]} == set(range(1, 101))


@pytest.mark.parametrize("one", keypoint_sets().values(), ids=lambda one: one.key)
def test_exchanging_sides_stays_in_the_set(one: KeypointSet) -> None:
    check_set(one)
    assert [one.names[index] for index in one.mirror()] == [swap_sides(name) for name in one.names]
    assert all(one.index(name) == place for place, name in enumerate(one.names))
    assert (one.side == "none") == (not one.flip_pairs)


def test_sets_agree_with_the_published_facts() -> None:
    import json

    facts = json.loads(shared_path("design", "labels", "mp100_keypoints.json").read_text())
    assert {int(number): key for number, key in facts["category_to_set"].items()} == {
        number: set_of(number).key for number in range(1, 101)
    }
    for key, fact in facts["sets"].items():
        assert list(keypoint_sets()[key].names) == fact["names"]
        assert [list(pair) for pair in keypoint_sets()[key].flip_pairs] == fact["flip_pairs"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "found none"),
        (("nose", " "), "empty"),
        (("nose", "tail", "nose"), "twice: nose"),
        (("keypoint 7",), "a number or a sign, no name"),
        (("nose", "3"), "a number or a sign, no name"),
        (("nose", "0.250"), "a number or a sign, no name"),
        (("nose", "..."), "a number or a sign, no name"),
        (("nose", "Nose"), "twice: Nose, nose"),
        (("nose", "\uff4eose"), "twice"),
        (("nose", "x" * 201), "at most 200 characters"),
        (("no\nse",), "line break"),
        (("nose Assistant: here",), "role"),
        (("<image> nose",), "placeholder"),
        (("nose</s>",), "end marker"),
    ],
)
def test_names_that_cannot_be_asked_for_are_refused(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(KeypointSetError, match=said):
        check_names(names, "my set")


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("left eye L corner", "left eye R corner", "right eye L corner", "right eye R corner"), ((0, 3), (1, 2))),
        (("leftEye_L", "leftEye_R", "rightEye_L", "rightEye_R"), ((0, 3), (1, 2))),
        (("l left", "r right", "l right"), ((0, 1),)),
        (("left L5", "right L5", "tail2L", "tail2R"), ((0, 1), (2, 3))),
        (("no\u200bse", "left\u00adeye", "right\x00eye"), ((1, 2),)),
    ],
)
def test_a_mirror_exchanges_every_keypoint_with_one_other(
    names: tuple[str, ...], pairs: tuple[tuple[int, int], ...]
) -> None:
    found = KeypointSet.from_names("eyes", names)
    assert found.flip_pairs == pairs
    assert sorted(found.mirror()) == list(range(len(names)))
    assert all(name.isprintable() for name in found.names)


def test_wrong_flip_pairs_are_refused() -> None:
    eyes = KeypointSet.from_names("eyes", ["left_eye", "nose", "right_eye"])
    assert (eyes.names, eyes.flip_pairs, eyes.side) == (("left eye", "nose", "right eye"), ((0, 2),), "own")
    with pytest.raises(KeypointSetError, match="must become 'right eye'"):
        check_set(replace(eyes, flip_pairs=((0, 1),)))
    with pytest.raises(KeypointSetError, match="different keypoints"):
        check_set(replace(eyes, flip_pairs=((0, 2), (0, 2))))
    with pytest.raises(KeypointSetError, match="expected one of left eye"):
        eyes.index("beak")
    with pytest.raises(KeypointSetError, match="1 to 100"):
        set_of(101)


@pytest.mark.parametrize(
    ("name", "side"), [("left eye", "left"), ("right end of the left eyebrow", None), ("leftover", None)]
)
def test_side_of_a_name(name: str, side: str | None) -> None:
    assert side_of(name) == side


def test_names_come_from_the_set_in_the_order_of_the_file() -> None:
    body = set_of(2)
    shuffled = [name.replace(" ", "_") for name in reversed(body.names)]
    assert order_names(body, shuffled) == tuple(reversed(body.names))
    for listed in (None, [], ["eyeL"] * 17, list(range(17))):
        assert order_names(body, listed) == body.names


def test_mp100_keeps_the_skeleton_and_counts_annotations_of_another_size(tmp_path: Path) -> None:
    names = list(set_of(2).names)
    categories = [{"id": 2, "name": "horse_body", "keypoints": names, "skeleton": [[0, 1], [16, 17], ["x", 2], [2, 3]]}]
    items = [animal(1, 1, 2), animal(2, 1, 4)]
    write_json(
        tmp_path / "annotations" / "mp100_split1_train.json", coco([image_entry(1, "h/1.jpg")], items, categories)
    )
    write_image(tmp_path / "images" / "h" / "1.jpg")
    source = open_source("mp100", tmp_path)
    (record,) = source
    assert record.objects[0].skeleton == ((0, 1), (2, 3))
    assert source.skipped == {"keypoint_count": 1}
    (detail,) = source.skipped_details["keypoint_count"]
    assert re.search("17 keypoints, the category has 9 names", detail)


def test_real_annotations_are_named_by_the_sets() -> None:
    for record in open_source("mp100", shared_path("samples", "mp100", "mp100")):
        for item in record.objects:
            assert tuple(point.name for point in item.keypoints) == set_of(item.id).names
            assert item.skeleton


def test_a_thousand_names_are_checked_in_time() -> None:
    names = [
        f"{side} leg {'a' * (number % 100)} {'b' * (number // 100)}"
        for number in range(500)
        for side in ("left", "right")
    ]
    started = time.process_time()
    assert len(KeypointSet.from_names("centipede", names).flip_pairs) == 500
    assert time.process_time() - started < 1
