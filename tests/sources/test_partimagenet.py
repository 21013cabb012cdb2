from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talking_points.records import ImageRecord
from talking_points.sources import SourceError, open_source
from tests.sources.trees import (
    PIN_NAME,
    annotation,
    blank,
    coco,
    image_entry,
    label_map,
    part_categories,
    pin_annotations,
    pin_seg_tree,
    pin_tree,
    write_image,
    write_json,
)

PARTS = [
    ("head", "Quadruped Head", (5, 5, 10, 10)),
    ("body", "Quadruped Body", (15, 5, 30, 15)),
    ("foot", "Quadruped Foot", (16, 20, 4, 10)),
    ("foot", "Quadruped Foot", (40, 20, 4, 10)),
]


def only(root: Path, split: str | None = None) -> tuple[ImageRecord, dict[str, int]]:
    source = open_source("partimagenet", root, split)
    (record,) = source
    return record, dict(source.skipped)


@pytest.mark.parametrize(
    ("image", "json_file", "file_name"),
    [
        (f"images/train/n02423022/{PIN_NAME}", "train.json", PIN_NAME),
        (f"images/train/{PIN_NAME}", "train.json", PIN_NAME),
        (f"images/{PIN_NAME}", "train.json", PIN_NAME),
        (f"train/n02423022/{PIN_NAME}", "train.json", PIN_NAME),
        (f"images/train/n02423022/{PIN_NAME}", "annotations/train/train.json", PIN_NAME),
        (f"images/train/{PIN_NAME}", "annotations/train/train.json", PIN_NAME),
        (f"images/train/n02423022/{PIN_NAME}", "annotations/train.json", PIN_NAME),
        (f"images/train/n02423022/{PIN_NAME}", "train_format.json", f"n02423022/{PIN_NAME}"),
        (f"images/train/{PIN_NAME}", "train.json", f"n02423022/{PIN_NAME}"),
        ("images/train/n02423022/n02423022_1.jpg", "train.json", PIN_NAME),
    ],
)
def test_every_layout_seen_is_read(tmp_path: Path, image: str, json_file: str, file_name: str) -> None:
    record, counts = only(pin_tree(tmp_path, image=image, json_file=json_file, file_name=file_name))
    assert counts == {}
    assert (record.image_id, record.relative_path) == ("train/n02423022_1", image)
    assert record.annotation_path == json_file
    (item,) = record.objects
    assert (item.name, item.label, item.id, item.instance_exact) == ("quadruped", "Quadruped", 0, True)
    assert item.bbox == (5, 5, 40, 25)
    assert item.mask is not None
    assert item.mask.sum() == 100 + 450 + 40 + 40
    assert [(part.name, part.label, part.bbox) for part in item.parts] == PARTS


def test_two_heads_apart_are_two_animals(tmp_path: Path) -> None:
    apart = [*pin_annotations(), annotation(5, 1, 0, (50, 30, 5, 5))]
    record, _ = only(pin_tree(tmp_path / "apart", apart))
    assert [item.instance_exact for item in record.objects] == [False]
    joined = [*apart, annotation(6, 1, 1, (44, 15, 8, 16))]  # a body between them: one animal, its head in two pieces
    record, _ = only(pin_tree(tmp_path / "joined", joined))
    assert [item.instance_exact for item in record.objects] == [True]
    feet = [*pin_annotations(), annotation(5, 1, 2, (50, 30, 5, 5))]  # a foot apart is no second animal
    record, _ = only(pin_tree(tmp_path / "feet", feet))
    assert [item.instance_exact for item in record.objects] == [True]


def test_parts_of_two_kinds_are_two_objects(tmp_path: Path) -> None:
    items = [*pin_annotations(), annotation(5, 1, 25, (48, 30, 8, 8))]
    record, _ = only(pin_tree(tmp_path, items))
    assert [(item.name, [part.name for part in item.parts]) for item in record.objects] == [
        ("quadruped", ["head", "body", "foot", "foot"]),
        ("car", ["tire"]),
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"area": 0, "segmentation": [[3.0, 4.0]]}, "zero_area"),
        ({"iscrowd": 1}, "crowd"),
        ({"category_id": 40}, "unknown_category"),
        ({"bbox": [5, 5, 0, 0], "segmentation": [[1.0, 2.0, 3.0, 4.0]]}, "degenerate_box"),
        ({"segmentation": [[-9.0, -9.0, -5.0, -9.0, -5.0, -5.0]]}, "empty_part"),
        ({"image_id": 7}, "annotation_without_image"),
    ],
)
def test_unusable_parts_are_left_out(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    items = [*pin_annotations(), {**annotation(5, 1, 3, (45, 6, 6, 3)), **changes}]
    record, counts = only(pin_tree(tmp_path, items))
    assert [part.name for part in record.objects[0].parts] == ["head", "body", "foot", "foot"]
    assert counts == {reason: 1}


def test_a_two_point_polygon_becomes_its_box(tmp_path: Path) -> None:
    items = [*pin_annotations(), annotation(5, 1, 3, (45, 6, 6, 3), segmentation=[[45.0, 6.0, 51.0, 9.0]])]
    record, counts = only(pin_tree(tmp_path, items))
    tail = record.objects[0].parts[-1]
    assert (tail.name, tail.bbox, tail.mask_exact) == ("tail", (45, 6, 6, 3), False)
    assert not record.objects[0].mask_exact
    assert counts == {}


def test_images_without_annotations_are_skipped(tmp_path: Path) -> None:
    root = pin_tree(tmp_path)
    write_image(root / "images/train/n02423022/n02423022_2.JPEG")
    write_image(root / "images/train/n02423022/n02423022_3.JPEG")
    images = [image_entry(1, PIN_NAME), image_entry(2, "n02423022_2.JPEG"), image_entry(4, "n02423022_4.JPEG")]
    items = [*pin_annotations(), annotation(9, 4, 0, (1, 1, 9, 9))]
    write_json(root / "train.json", coco(images, items, part_categories()))
    _, counts = only(root)
    assert counts == {"image_without_annotation": 1, "missing_image": 1, "missing_label": 1}


@pytest.mark.parametrize("kind", ["147 names", "possessive", "shifted"])
def test_derived_files_are_refused(tmp_path: Path, kind: str) -> None:
    categories = part_categories()
    if kind == "147 names":
        categories = [{"id": number, "name": f"thing {number}"} for number in range(147)]
    elif kind == "possessive":
        categories[0] = {"id": 0, "name": "tiger's head"}
    else:
        categories = [{**item, "id": (item["id"] + 1) % 40} for item in categories]
    source = open_source("partimagenet", pin_tree(tmp_path, categories=categories))
    with pytest.raises(SourceError, match="unpack the original archive again") as error:
        list(source)
    assert "train.json" in str(error.value)


def test_a_file_without_a_category_list_or_with_tires_is_accepted(tmp_path: Path) -> None:
    only(pin_tree(tmp_path / "none", categories=[]))
    tires = [{**item, "name": item["name"].replace("Tier", "Tire")} for item in part_categories()]
    only(pin_tree(tmp_path / "tires", categories=tires))


def test_seg_maps_are_read(tmp_path: Path) -> None:
    record, counts = only(pin_seg_tree(tmp_path))
    assert counts == {}
    assert record.relative_path == f"images/train/{PIN_NAME}"
    assert record.annotation_path == "annotations/train/n02423022_1.png"
    (item,) = record.objects
    assert (item.name, item.bbox, item.instance_exact) == ("quadruped", (5, 5, 40, 25), True)
    assert [(part.name, part.bbox) for part in item.parts] == [
        ("head", (5, 5, 10, 10)),
        ("body", (15, 5, 30, 15)),
        ("foot", (16, 20, 28, 10)),
    ]


def test_the_whole_map_is_the_object(tmp_path: Path) -> None:
    whole = blank(158)
    whole[0:18, 0:50] = 3
    record, counts = only(pin_seg_tree(tmp_path, whole=whole))
    (item,) = record.objects
    assert item.bbox == (0, 0, 50, 18)
    assert [(part.name, part.bbox) for part in item.parts] == [("head", (5, 5, 10, 10)), ("body", (15, 5, 30, 13))]
    assert counts == {"part_outside_object": 1}


def test_parts_outline_the_object_without_a_usable_whole_map(tmp_path: Path) -> None:
    record, _ = only(pin_seg_tree(tmp_path / "blank", whole=blank(158)))
    assert record.objects[0].bbox == (5, 5, 40, 25)
    root = pin_seg_tree(tmp_path / "none")
    (root / "annotations/train_whole/n02423022_1.png").unlink()
    record, _ = only(root)
    assert record.objects[0].bbox == (5, 5, 40, 25)


@pytest.mark.parametrize("background", [40, 255])
def test_both_background_values_are_tolerated(tmp_path: Path, background: int) -> None:
    parts = blank(background)
    parts[5:15, 5:15] = 39
    record, _ = only(pin_seg_tree(tmp_path, parts, np.where(parts == 39, 7, 255).astype(np.uint8)))
    assert [(item.name, [part.name for part in item.parts]) for item in record.objects] == [("bottle", ["body"])]


@pytest.mark.parametrize(
    ("part_value", "whole_value", "reason"),
    [(41, None, "label_out_of_range"), (None, 159, "label_out_of_range"), (None, 67, "several_whole_classes")],
)
def test_impossible_map_values_skip_the_image(
    tmp_path: Path, part_value: int | None, whole_value: int | None, reason: str
) -> None:
    parts, whole = blank(40), blank(158)
    parts[5:15, 5:15], whole[5:15, 5:15] = 0, 66
    if part_value is not None:
        parts[0, 0] = part_value
    if whole_value is not None:
        whole[0, 0] = whole_value
    source = open_source("partimagenet", pin_seg_tree(tmp_path, parts, whole))
    assert list(source) == []
    assert source.skipped == {reason: 1}


def test_seg_images_and_maps_without_each_other_are_counted(tmp_path: Path) -> None:
    root = pin_seg_tree(tmp_path)
    write_image(root / "images/train/n02423022_2.JPEG")
    label_map(root / "annotations/train/n02423022_3.png", blank(40))
    write_image(root / "images/train/n02423022_4.JPEG")
    label_map(root / "annotations/train/n02423022_4.png", blank(40))
    _, counts = only(root)
    assert counts == {"missing_label": 1, "missing_image": 1, "no_usable_annotation": 1}


def test_two_heads_apart_in_a_map(tmp_path: Path) -> None:
    parts = blank(40)
    parts[5:15, 5:15], parts[5:15, 40:50] = 0, 0
    record, _ = only(pin_seg_tree(tmp_path, parts))
    assert [item.instance_exact for item in record.objects] == [False]


def test_splits_are_separate_files(tmp_path: Path) -> None:
    root = pin_tree(tmp_path)
    write_image(root / "images/val/n02128925/n02128925_7.JPEG")
    write_json(root / "val.json", coco([image_entry(1, "n02128925_7.JPEG")], pin_annotations(), part_categories()))
    assert [record.image_id for record in open_source("partimagenet", root)] == ["train/n02423022_1", "val/n02128925_7"]
    record, counts = only(root, "validation")
    assert record.image_id == "val/n02128925_7"
    assert counts == {}
    with pytest.raises(SourceError, match="found train, val"):
        open_source("partimagenet", root, "test")
