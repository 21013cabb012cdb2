"""AP-10K and MP-100, which share the COCO keypoint format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.sources import SourceError, open_source
from talking_points.sources.keypoint_annotations import in_image
from talking_points.sources.layout import find_root
from talking_points.sources.mp100 import Mp100
from talking_points.sources.mp100_images import Mp100Finder
from tests.sources.trees import (
    HEIGHT,
    WIDTH,
    animal,
    ap10k_tree,
    coco,
    count_labelled,
    image_entry,
    write_image,
    write_json,
)


def test_animals_carry_seventeen_named_keypoints(tmp_path: Path) -> None:
    root = ap10k_tree(tmp_path, train=([image_entry(4, "000000000004.jpg")], [animal(1, 4, 8)]))
    (record,) = open_source("ap10k", root)
    (dog,) = record.objects
    assert (record.image_id, record.split) == ("train/000000000004", "train")
    assert (dog.name, dog.id, dog.bbox, dog.mask, dog.parts) == ("dog", 8, (5, 5, 40, 30), None, ())
    assert [point.name for point in dog.keypoints[:4]] == ["left_eye", "right_eye", "nose", "neck"]
    assert [point.visible for point in dog.keypoints[:3]] == [True, False, True]
    assert (dog.keypoints[2].x, dog.keypoints[2].y) == (12, 7)
    assert len(dog.keypoints) == 17


@pytest.mark.parametrize("visibility", [1, 2])
def test_every_positive_visibility_is_labelled(tmp_path: Path, visibility: int) -> None:
    keypoints = [*animal(1, 1, 8)["keypoints"][:48], 20, 20, visibility]
    root = ap10k_tree(tmp_path, train=([image_entry(1, "1.jpg")], [animal(1, 1, 8, keypoints=keypoints)]))
    (record,) = open_source("ap10k", root)
    assert record.objects[0].keypoints[16].visible


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [10, 10, 0, 5]}, "degenerate_box"),
        ({"bbox": [WIDTH, 10, 9, 5]}, "degenerate_box"),
        ({"bbox": None}, "malformed_annotation"),
        ({"num_keypoints": 0}, "no_keypoints"),
        ({"keypoints": [0] * 51}, "no_keypoints"),
        ({"keypoints": [1, 2, 2] * 16}, "malformed_annotation"),
        ({"keypoints": [1, 2] * 17}, "malformed_annotation"),
        ({"keypoints": None}, "malformed_annotation"),
        ({"category_id": 55}, "unknown_category"),
        ({"iscrowd": 1}, "crowd"),
    ],
)
def test_unusable_animals_are_left_out(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    animals = [animal(1, 1, 8), animal(2, 1, 8, **changes)]
    source = open_source("ap10k", ap10k_tree(tmp_path, train=([image_entry(1, "1.jpg")], animals)))
    (record,) = source
    assert len(record.objects) == 1
    assert source.skipped == {reason: 1}


def test_boxes_are_clipped_and_keypoints_outside_dropped_not_moved(tmp_path: Path) -> None:
    keypoints = animal(1, 1, 8)["keypoints"]
    keypoints[0:3], keypoints[6:9] = [WIDTH - 0.4, 5, 2], [-1, 5, 2]
    items = [animal(1, 1, 8, keypoints=keypoints, bbox=[-5, 5, 100, 30])]
    source = open_source("ap10k", ap10k_tree(tmp_path, train=([image_entry(1, "1.jpg")], items)))
    (record,) = source
    (dog,) = record.objects
    assert dog.bbox == (0, 5, WIDTH, 30)
    assert [(point.x, point.y, point.visible) for point in dog.keypoints[:3]] == [(0, 0, False)] * 3
    assert source.skipped == {"keypoint_outside_image": 2}


@given(st.floats(-3, WIDTH + 3), st.floats(-3, HEIGHT + 3))
def test_a_point_in_the_image_has_a_pixel_and_normalises_below_one(x: float, y: float) -> None:
    if in_image(x, y, WIDTH, HEIGHT):
        assert 0 <= round(x) <= WIDTH - 1
        assert 0 <= round(y) <= HEIGHT - 1
        assert 0 <= x / WIDTH < 1
        assert 0 <= y / HEIGHT < 1
    else:
        assert x < 0 or y < 0 or round(x) >= WIDTH or round(y) >= HEIGHT


def test_union_takes_each_annotation_once(tmp_path: Path) -> None:
    one, two = image_entry(1, "1.jpg"), image_entry(2, "2.jpg")
    root = ap10k_tree(
        tmp_path,
        train=([one], [animal(1, 1, 8)]),
        val=([one, two], [animal(1, 1, 8), animal(2, 1, 9), animal(3, 2, 1)]),
    )
    source = open_source("ap10k", root)
    assert [(record.image_id, [item.name for item in record.objects]) for record in source] == [
        ("train/1", ["dog", "fox"]),
        ("val/2", ["antelope"]),
    ]
    assert source.skipped == {"duplicate_annotation": 1}
    assert count_labelled(source) == {"Canidae": 32, "Bovidae": 16}


def test_families_filter_animals_and_images(tmp_path: Path) -> None:
    images = [image_entry(number, f"{number}.jpg") for number in (1, 2)]
    root = ap10k_tree(tmp_path, train=(images, [animal(1, 1, 8), animal(2, 1, 1), animal(3, 2, 23)]))
    source = open_source("ap10k", root, families=["Bovidae"])
    assert [(record.image_id, [item.name for item in record.objects]) for record in source] == [
        ("train/1", ["antelope"])
    ]
    assert source.skipped == {}
    with pytest.raises(SourceError, match="Dogs"):
        open_source("ap10k", root, families=["Dogs"])


def test_partitions_are_not_mixed(tmp_path: Path) -> None:
    root = ap10k_tree(tmp_path, train=([image_entry(1, "1.jpg")], [animal(1, 1, 8)]))
    file = root / "annotations" / "ap10k-train-split1.json"
    file.rename(file.with_name("ap10k-test-split2.json"))
    with pytest.raises(SourceError, match="at least one complete split"):
        open_source("ap10k", root)
    assert [record.image_id for record in open_source("ap10k", root, partition=2)] == ["test/1"]
    with pytest.raises(SourceError, match="partition"):
        open_source("ap10k", root, partition=4)


def mp100_tree(root: Path, place: str = "images") -> Path:
    """A camel's face (category 37, 9 keypoints), two kinds of "face" (18, 40), a hand (80), missing images."""
    names = ["camel_face/camel_1.jpg", "human_face/a/1.jpg", "human_face/b/1.jpg", "human_hand/Train/1.jpg"]
    images = [image_entry(number, name) for number, name in enumerate(names, start=1)]
    images += [image_entry(8, "human_hand/gone.jpg"), image_entry(9, "human_hand/gone_too.jpg")]
    kinds = [(1, 37, 9), (2, 18, 19), (3, 40, 68), (4, 80, 21), (8, 80, 21), (9, 80, 21)]
    items = [
        animal(number, number, category, keypoints=[5, 6, 1] * count, num_keypoints=count)
        for number, category, count in kinds
    ]
    categories = [{"id": 40, "name": "face", "keypoints": [f"landmark {number}" for number in range(68)]}]
    write_json(root / "annotations" / "mp100_split1_train.json", coco(images, items, categories))
    for name in names:
        write_image(root / place / name)
    return root


@pytest.mark.parametrize("place", ["images", ""])
def test_categories_are_told_apart_by_id(tmp_path: Path, place: str) -> None:
    source = open_source("mp100", mp100_tree(tmp_path, place))
    assert isinstance(source, Mp100)
    records = list(source)
    assert [record.image_id for record in records] == [
        "train/camel_face/camel_1",
        "train/human_face/a/1",
        "train/human_face/b/1",
        "train/human_hand/Train/1",
    ]
    objects = [record.objects[0] for record in records]
    assert [(item.id, item.name, len(item.keypoints)) for item in objects] == [
        (37, "camel face", 9),
        (18, "face", 19),
        (40, "face", 68),
        (80, "hand", 21),
    ]
    assert [item.keypoints[0].name for item in objects] == [
        "outer corner of the right eye",
        "left end of the left eyebrow",
        "first right jaw point below the ear",
        "wrist",
    ]
    assert source.skipped == {"missing_image": 2}
    assert source.missing_by_category == {80: 2}


def test_categories_can_be_excluded(tmp_path: Path) -> None:
    source = open_source("mp100", mp100_tree(tmp_path), exclude_categories={80, 18})
    assert [record.objects[0].id for record in source] == [37, 40]


@pytest.mark.parametrize("number", [[1], {"a": 1}, None, "x", 1e308, True])
def test_categories_with_odd_numbers_cost_no_image(tmp_path: Path, number: Any) -> None:
    path = mp100_tree(tmp_path) / "annotations" / "mp100_split1_train.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"categories": [{"id": number, "keypoints": ["a"]}, *content["categories"]]}))
    assert len(list(open_source("mp100", tmp_path))) == 4


@pytest.mark.parametrize(
    ("name", "file", "sizes"),
    [
        ("mp100", "annotations/mp100_split1_train.json", {"keypoints": ["a"] * 9999, "skeleton": [[0, 1]] * 9999}),
        ("coco_keypoints", "own_train.json", {"keypoints": ["nose", "tail"], "skeleton": [[1, 2]] * 9999}),
    ],
)
def test_an_image_carries_no_more_of_its_category_than_it_needs(
    tmp_path: Path, name: str, file: str, sizes: dict[str, Any]
) -> None:
    """One category's lists, copied for each of a million images, would be what no disk holds."""
    category = {"id": 40, "name": "x", **sizes}
    item = animal(1, 1, 40, keypoints=[5, 6, 1] * len(sizes["keypoints"]), num_keypoints=2)
    write_json(tmp_path / file, coco([image_entry(1, "a/1.jpg")], [item | {"keypoints": [5, 6, 1] * 2}], [category]))
    write_image(tmp_path / "images" / "a" / "1.jpg")
    (entry,) = open_source(name, tmp_path).entries()
    assert len(json.dumps(entry.annotation)) < 1000


def test_keypoints_that_no_image_can_carry_are_refused(tmp_path: Path) -> None:
    category = {"id": 1, "name": "x", "keypoints": [f"place {number} here" for number in range(100_000)]}
    write_json(tmp_path / "own_train.json", coco([image_entry(1, "1.jpg")], [], [category]))
    with pytest.raises(SourceError, match="expected at most 1,000 keypoints, found 100,000 names"):
        list(open_source("coco_keypoints", tmp_path))


def test_links_to_folders_above_are_not_followed_round_and_round(tmp_path: Path) -> None:
    root = mp100_tree(tmp_path)
    for number in range(30):
        (root / f"again_{number}").symlink_to(".")
    seen = list(Mp100Finder(root)._image_folders())
    assert len(seen) == len({folder.resolve() for folder in seen}) < 15
    looked: list[Path] = []
    for number in range(30):
        (root / f"mp100_{number}").symlink_to(".")
    with pytest.raises(SourceError, match="expected nothing"):
        find_root(root, ("mp100",), lambda folder: bool(looked.append(folder)), "nothing")  # type: ignore[func-returns-value]
    assert len(looked) < 10
