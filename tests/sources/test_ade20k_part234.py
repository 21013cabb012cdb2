from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from talking_points.records import ImageRecord
from talking_points.sources import Source, SourceError, open_source
from tests.sources.trees import (
    HEIGHT,
    WIDTH,
    ade_tree,
    annotation,
    blank,
    coco,
    image_entry,
    label_map,
    write_image,
    write_json,
)


def only(root: Path) -> tuple[ImageRecord, dict[str, int]]:
    source = open_source("ade20k_part234", root)
    (record,) = source
    return record, dict(source.skipped)


def skipped(root: Path) -> dict[str, int]:
    source = open_source("ade20k_part234", root)
    assert list(source) == []
    return dict(source.skipped)


def test_instances_share_the_part_map(tmp_path: Path) -> None:
    record, counts = only(ade_tree(tmp_path))
    assert counts == {}
    assert (record.image_id, record.split) == ("training/ADE_train_1", "training")
    assert [(item.name, item.id, item.bbox, item.instance_exact) for item in record.objects] == [
        ("chair", 8, (5, 10, 10, 20), True),
        ("chair", 8, (30, 10, 10, 20), True),
    ]
    assert [[(part.label, part.id, part.bbox) for part in item.parts] for item in record.objects] == [
        [("chair's back", 46, (5, 10, 10, 10))],
        [("chair's back", 46, (30, 10, 10, 10))],
    ]


def test_part_zero_is_the_arm_of_a_person(tmp_path: Path) -> None:
    parts = blank(65535, np.uint16)
    parts[10:14, 10:14] = 0
    record, _ = only(ade_tree(tmp_path, [annotation(1, 1, 27, (5, 5, 20, 20))], parts))
    assert [part.label for part in record.objects[0].parts] == ["person's arm"]


def test_parts_belong_to_objects_of_their_class_only(tmp_path: Path) -> None:
    parts = blank(65535, np.uint16)
    parts[10:14, 10:14] = 46  # chair's back
    parts[20:24, 10:14] = 0  # person's arm inside the chair: nobody's
    items = [annotation(1, 1, 8, (5, 5, 20, 20), part_category_id=[46, 50]), annotation(2, 1, 27, (40, 5, 10, 10))]
    record, counts = only(ade_tree(tmp_path, items, parts))
    assert [[part.name for part in item.parts] for item in record.objects] == [["back"], []]
    assert counts == {"part_without_pixels": 1, "part_outside_object": 1}


def test_contested_pixels_go_to_the_instance_with_most_of_the_piece(tmp_path: Path) -> None:
    parts = blank(65535, np.uint16)
    parts[10:14, 5:25] = 46  # one back that reaches from the left chair into the right one
    left, right = annotation(1, 1, 8, (5, 10, 16, 20)), annotation(2, 1, 8, (17, 10, 20, 20))
    for items in ([left, right], [{**left, "id": 3}, right]):
        record, _ = only(ade_tree(tmp_path, items, parts))
        by_x = sorted(record.objects, key=lambda item: item.bbox[0])
        boxes = [part.bbox for item in by_x for part in item.parts]
        assert boxes == [(5, 10, 16, 4), (21, 10, 4, 4)]  # left: all 16 columns; right: what is left over
        masks = [part.mask for item in by_x for part in item.parts]
        assert masks[0] is not None
        assert masks[1] is not None
        assert not (masks[0] & masks[1]).any()
        assert (masks[0] | masks[1]).sum() == 4 * 20


@pytest.mark.parametrize("kind", ["polygon", "compressed", "uncompressed"])
def test_every_segmentation_kind_is_read(tmp_path: Path, kind: str) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 5:15] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    segmentation: Any = {
        "polygon": [[5, 10, 15, 10, 15, 30, 5, 30]],
        "compressed": {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode()},
        "uncompressed": {"size": [HEIGHT, WIDTH], "counts": [5 * HEIGHT + 10, *[20, 20] * 9, 20, 45 * HEIGHT + 10]},
    }[kind]
    record, counts = only(ade_tree(tmp_path, [annotation(1, 1, 8, (5, 10, 10, 20), segmentation=segmentation)]))
    assert record.objects[0].mask is not None
    assert np.array_equal(record.objects[0].mask, mask.astype(bool))
    assert [part.bbox for part in record.objects[0].parts] == [(5, 10, 10, 10)]
    assert counts == {}


@pytest.mark.parametrize("value", [234, 250, 254])
def test_an_eight_bit_map_with_impossible_values_is_refused(tmp_path: Path, value: int) -> None:
    parts = blank(255)
    parts[10:20, 5:15] = 46
    record, _ = only(ade_tree(tmp_path / "good", parts=parts))  # 8 bit: 255 is the ignore value
    assert [part.name for part in record.objects[0].parts] == ["back"]
    parts[0, 0] = value
    assert skipped(ade_tree(tmp_path / "bad", parts=parts)) == {"label_out_of_range": 1}


@pytest.mark.parametrize("value", [234, 255, 256, 302, 65534])
def test_a_sixteen_bit_map_ignores_only_65535(tmp_path: Path, value: int) -> None:
    parts = blank(65535, np.uint16)
    parts[0, 0] = value
    assert skipped(ade_tree(tmp_path, parts=parts)) == {"label_out_of_range": 1}


def test_a_32_bit_map_reads_like_a_16_bit_one(tmp_path: Path) -> None:
    parts = blank(65535, np.int32)
    parts[10:20, 5:15] = 46
    root = ade_tree(tmp_path)
    file = root / "annotations_detectron2_part" / "training" / "ADE_train_1.png"
    label_map(file.with_suffix(".tiff"), parts)  # PNG has no 32 bit; older Pillow hands 16 bit out as 32
    file.with_suffix(".tiff").rename(file)
    record, _ = only(root)
    assert [len(item.parts) for item in record.objects] == [1, 0]


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"iscrowd": 1}, {"crowd": 1}),
        ({"area": 0}, {"zero_area": 1}),
        ({"category_id": 44}, {"unknown_category": 1}),
        ({"category_id": "chair"}, {"malformed_annotation": 1}),
        ({"bbox": [0, 0, 0, 10]}, {"degenerate_box": 1}),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": ""}}, {"outline_size_mismatch": 1}),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}}, {"empty_object": 1}),
    ],
)
def test_an_unusable_annotation_leaves_the_others(
    tmp_path: Path, changes: dict[str, Any], counts: dict[str, int]
) -> None:
    items = [annotation(1, 1, 8, (5, 10, 10, 20)), {**annotation(2, 1, 8, (30, 10, 10, 20)), **changes}]
    record, found = only(ade_tree(tmp_path, items))
    assert [item.bbox for item in record.objects] == [(5, 10, 10, 20)]
    assert found == counts


def test_an_image_of_unusable_annotations_is_skipped(tmp_path: Path) -> None:
    items = [annotation(1, 1, 8, (5, 10, 10, 20), iscrowd=1)]
    assert skipped(ade_tree(tmp_path, items)) == {"crowd": 1, "no_usable_annotation": 1}


@pytest.mark.parametrize(
    ("width", "height", "reason"), [(HEIGHT, WIDTH, "size_transposed"), (WIDTH + 1, HEIGHT, "size_mismatch")]
)
def test_listed_sizes_are_compared(tmp_path: Path, width: int, height: int, reason: str) -> None:
    root = ade_tree(tmp_path)
    content = coco([image_entry(1, "ADE_train_1.jpg", width, height)], [annotation(1, 1, 8, (1, 1, 9, 9))])
    write_json(root / "ade20k_instance_train.json", content)
    assert skipped(root) == {reason: 1}


def test_images_and_labels_without_each_other_are_counted(tmp_path: Path) -> None:
    root = ade_tree(tmp_path)
    names = ["ADE_train_1.jpg", "ADE_train_2.jpg", "ADE_train_3.jpg", "ADE_train_4.jpg"]
    images = [image_entry(number, name) for number, name in enumerate(names, start=1)]
    items = [annotation(number, number, 8, (5, 10, 10, 20)) for number in (1, 2, 3)]
    write_json(root / "ade20k_instance_train.json", coco(images, items))
    folder = root / "images" / "training"
    for number in (3, 4, 5):  # 2 is listed and not on disk; 3 has no part map; 4 no annotation; 5 is not listed
        write_image(folder / f"ADE_train_{number}.jpg")
    for number in (2, 4, 6):  # 6 has neither
        label_map(
            root / "annotations_detectron2_part" / "training" / f"ADE_train_{number}.png", blank(65535, np.uint16)
        )
    _, counts = only(root)
    assert counts == {"missing_image": 2, "missing_label": 2, "image_without_annotation": 1}


def test_both_splits_and_their_names(tmp_path: Path) -> None:
    root = ade_tree(tmp_path)
    write_image(root / "images" / "validation" / "ADE_val_1.jpg")
    label_map(root / "annotations_detectron2_part" / "validation" / "ADE_val_1.png", blank(65535, np.uint16))
    items = [annotation(1, 1, 8, (5, 10, 10, 20))]
    write_json(root / "ade20k_instance_val.json", coco([image_entry(1, "ADE_val_1.jpg")], items))

    def ids(source: Source) -> list[str]:
        return [record.image_id for record in source]

    assert ids(open_source("ade20k_part234", root)) == ["training/ADE_train_1", "validation/ADE_val_1"]
    assert ids(open_source("ade20k_part234", root, "val")) == ["validation/ADE_val_1"]
    assert ids(open_source("ade20k_part234", root, "training")) == ["training/ADE_train_1"]


def test_missing_part_maps_are_a_wrong_layout(tmp_path: Path) -> None:
    root = ade_tree(tmp_path)
    (root / "annotations_detectron2_part").rename(root / "parts")
    with pytest.raises(SourceError, match="annotations_detectron2_part"):
        open_source("ade20k_part234", root)
