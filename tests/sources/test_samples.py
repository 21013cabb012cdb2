"""The reference photographs come out exactly as expected."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talking_points.records import AnnotatedObject, Mask
from talking_points.sources import open_source
from tests.shared_data import shared_path
from tests.sources.trees import count_labelled

ROOTS = {
    "pascal_part116": "pascal_part116/PascalPart116",
    "ade20k_part234": "ade20k_part234/ADE20KPart234",
    "partimagenet": "partimagenet/PartImageNet_OOD",
    "partimagenet_seg": "partimagenet/PartImageNet_Seg/PartImageNet",
    "ap10k": "ap10k/ap-10k",
    "mp100": "mp100/mp100",
}


def expected(key: str) -> Any:
    return json.loads(shared_path("samples", "EXPECTED.json").read_text())[key]


def sample_root(name: str) -> Path:
    return shared_path("samples", ROOTS[name])


def box_of(mask: Mask) -> list[int]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


@pytest.mark.parametrize("name", ROOTS)
@pytest.mark.parametrize("above", [0, 1])
def test_every_sample_is_read_with_consistent_boxes_and_masks(name: str, above: int) -> None:
    root = sample_root(name)
    if name.startswith("partimagenet") and above:
        root = root if name == "partimagenet" else root.parent  # the next parent holds both layouts
    elif above:
        root = root.parent
    source = open_source(name.removesuffix("_seg"), root)
    records = list(source)
    assert records
    assert [record.image_id for record in records] == sorted(record.image_id for record in records)
    assert source.skipped == ({"zero_area": 1} if name == "partimagenet" else {})
    for record in records:
        assert record.image_path.is_file()
        assert record.image_path == source.root / record.relative_path
        assert record.pixels.shape == (record.height, record.width, 3)
        assert (source.root / record.annotation_path).is_file()
        for item in record.objects:
            for region in (item, *item.parts):
                if name in ("ap10k", "mp100"):
                    assert region.mask is None
                    continue
                assert region.mask is not None
                assert region.mask.shape == (record.height, record.width)
                assert region.mask.dtype == np.bool_
                assert list(region.bbox) == box_of(region.mask)
                assert item.mask is not None
                assert not (region.mask & ~item.mask).any()


def test_pascal_class_and_part_pixels() -> None:
    facts = expected("pascal_part116")
    for record in open_source("pascal_part116", sample_root("pascal_part116")):
        fact = facts.pop(f"{record.image_id}.png")
        assert [record.width, record.height] == fact["size_wh"]
        pixels: Counter[str] = Counter()
        masks: dict[str, Mask] = {}
        ids = {}
        for item in record.objects:
            assert item.mask is not None
            pixels[item.name] += int(item.mask.sum())
            for part in item.parts:
                assert part.mask is not None
                masks[part.label] = masks.get(part.label, False) | part.mask
                pixels[part.label] += int(part.mask.sum())
                ids[part.label] = part.id
        parts = {
            label: {"id": ids[label], "pixels": pixels[label], "box_xywh": box_of(mask)}
            for label, mask in masks.items()
        }
        assert parts == fact["parts"]
        assert {name: pixels[name] for name in fact["object_pixels"]} == fact["object_pixels"]
    assert not facts


def test_pascal_instances_are_exact_only_where_a_class_is_in_one_piece() -> None:
    records = {record.image_id: record for record in open_source("pascal_part116", sample_root("pascal_part116"))}
    dogs = [item for item in records["train/2008_900001"].objects if item.name == "dog"]
    assert len(dogs) == 2
    assert not any(dog.instance_exact for dog in dogs)
    assert all(item.instance_exact for item in records["train/2008_900002"].objects)


def test_ade_instances_and_their_parts() -> None:
    facts = expected("ade20k_part234")
    for record in open_source("ade20k_part234", sample_root("ade20k_part234")):
        found = [
            {
                "object": item.name,
                "pixels": pixels(item),
                "box_xywh": list(item.bbox),
                "parts": {part.name: pixels(part) for part in item.parts},
            }
            for item in record.objects
        ]
        assert all(item.instance_exact for item in record.objects)
        assert found == facts.pop(f"{record.image_id}.jpg")
    assert not facts


def pixels(region: Any) -> int:
    return int(region.mask.sum())


def test_partimagenet_parts_and_defects() -> None:
    facts = expected("partimagenet_ood")
    for split in ("train", "val"):
        source = open_source("partimagenet", sample_root("partimagenet"), split)
        records = list(source)
        fact = facts[f"{split}.json"]
        found = Counter(part.label for record in records for item in record.objects for part in item.parts)
        dropped = Counter({"Car Side Mirror": 1}) if split == "train" else Counter()  # area 0, one-point polygon
        assert len(records) == fact["images"]
        assert found + dropped == fact["annotations_by_part"]
        assert sum(source.skipped.values()) == sum(dropped.values())
        boxes = [part for record in records for item in record.objects for part in item.parts if not part.mask_exact]
        assert [part.label for part in boxes] == (["Car Tier"] if split == "train" else [])  # the two-point polygon
        assert {part.name for part in boxes} <= {"tire"}


def test_partimagenet_seg_agrees_with_the_polygons() -> None:
    def union(item: AnnotatedObject, label: str) -> Mask:
        return np.logical_or.reduce([part.mask for part in item.parts if part.label == label and part.mask is not None])

    joint = {record.image_id: record for record in open_source("partimagenet", sample_root("partimagenet"))}
    for record in open_source("partimagenet", sample_root("partimagenet_seg")):
        (item,), (other,) = record.objects, joint[record.image_id].objects
        assert item.name == other.name
        for part in item.parts:
            overlap = union(item, part.label) & union(other, part.label)
            total = union(item, part.label) | union(other, part.label)
            assert overlap.sum() > 0.7 * total.sum(), (record.image_id, part.label)


@pytest.mark.parametrize("partition", [1, 2, 3])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_ap10k_labelled_pairs(split: str, partition: int) -> None:
    fact = expected("ap10k")[f"ap10k-{split}-split{partition}.json"]
    source = open_source("ap10k", sample_root("ap10k"), split, partition=partition)
    records = list(source)
    assert count_labelled(records) == fact["labelled_keypoint_pairs_by_family"]
    assert len(records) == fact["images"]
    assert sum(len(record.objects) for record in records) == fact["annotations"]


@pytest.mark.parametrize("partition", [1, 2, 3])
def test_ap10k_union_is_the_same_for_every_partition(partition: int) -> None:
    source = open_source("ap10k", sample_root("ap10k"), partition=partition)
    assert count_labelled(source) == {"Canidae": 54, "Bovidae": 16}
    assert source.skipped == {}


def test_mp100_keypoint_counts_differ() -> None:
    records = list(open_source("mp100", sample_root("mp100")))
    assert sorted(len(item.keypoints) for record in records for item in record.objects) == [17, 17, 32, 35]
    assert {item.name for record in records for item in record.objects} == {"person", "antelope body", "fly", "locust"}
