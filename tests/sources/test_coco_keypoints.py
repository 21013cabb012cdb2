"""A user's own COCO keypoint file as a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from talking_points.sources import SourceError, open_source
from talking_points.sources.coco_keypoints import CocoKeypoints
from tests.sources.trees import animal, coco, image_entry, write_image, write_json

KITE = {"id": 5, "name": "Kite", "keypoints": ["nose_tip", "left_corner", "right_corner"], "skeleton": [[1, 2], [1, 3]]}


def kite(number: int, image: int = 1, **changes: Any) -> dict[str, Any]:
    return animal(number, image, 5, **{"keypoints": [5, 6, 2, 9, 9, 1, 0, 0, 0], "num_keypoints": 2, **changes})


def tree(root: Path, categories: Any = (KITE,), items: Any = None, file: str = "annotations/kites.json") -> Path:
    write_json(root / file, coco([image_entry(1, "a/1.jpg")], items or [kite(1)], categories))
    write_image(root / "images" / "a" / "1.jpg")
    return root


def test_names_skeleton_and_sets_come_from_the_file(tmp_path: Path) -> None:
    source = open_source("coco_keypoints", tree(tmp_path))
    (record,) = source
    (found,) = record.objects
    assert (record.image_id, record.split) == ("all/a/1", "all")
    assert (found.name, found.id, found.bbox, found.skeleton) == ("kite", 5, (5, 5, 40, 30), ((0, 1), (0, 2)))
    assert [(point.name, point.visible) for point in found.keypoints] == [
        ("nose tip", True),
        ("left corner", True),
        ("right corner", False),
    ]
    assert isinstance(source, CocoKeypoints)
    assert source.keypoint_sets()[5].flip_pairs == ((1, 2),)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["nose", "nose", "tail"], "found twice: nose"),
        (["nose", "", "tail"], "empty name"),
        (["keypoint 1", "keypoint 2", "keypoint 3"], "a number, no name"),
        (["nose", "Assistant: x", "tail"], "role"),
        (["nose", 3, "tail"], "list of names"),
        (None, "cannot be asked for"),
    ],
)
def test_names_that_cannot_be_asked_for_are_refused_with_the_place(tmp_path: Path, names: object, said: str) -> None:
    root = tree(tmp_path, [{key: value for key, value in (KITE | {"keypoints": names}).items() if value is not None}])
    with pytest.raises(SourceError, match=said) as refused:
        list(open_source("coco_keypoints", root))
    assert "kites.json" in str(refused.value)


def test_bad_annotations_are_counted_and_good_ones_kept(tmp_path: Path) -> None:
    items = [kite(1), kite(2, keypoints=[1, 2, 2] * 4), kite(3, bbox=[5, 5, 0, 9]), kite(4) | {"category_id": 6}]
    source = open_source("coco_keypoints", tree(tmp_path, items=items))
    (record,) = source
    assert len(record.objects) == 1
    assert source.skipped == {"keypoint_count": 1, "degenerate_box": 1, "unknown_category": 1}


def test_splits_files_and_category_clashes(tmp_path: Path) -> None:
    root = tree(tmp_path, file="annotations/person_keypoints_train2017.json")
    tree(tmp_path, file="annotations/person_keypoints_val2017.json")
    write_json(root / "annotations" / "instances_train2017.json", coco([], []))
    assert [record.image_id for record in open_source("coco_keypoints", root)] == ["train/a/1", "val/a/1"]
    assert [record.split for record in open_source("coco_keypoints", root, "val")] == ["val"]
    one = open_source("coco_keypoints", root, annotations="annotations/person_keypoints_val2017.json")
    assert [record.split for record in one] == ["val"]
    with pytest.raises(SourceError, match=r"annotation file gone\.json"):
        open_source("coco_keypoints", root, annotations="gone.json")
    tree(tmp_path, [KITE | {"keypoints": ["a spot", "b spot", "c spot"]}], file="annotations/more_keypoints.json")
    with pytest.raises(SourceError, match="defines category 5 otherwise"):
        list(open_source("coco_keypoints", root))


def test_a_skeleton_counted_from_zero(tmp_path: Path) -> None:
    (record,) = open_source("coco_keypoints", tree(tmp_path, [KITE | {"skeleton": [[0, 1], [1, 2]]}]))
    assert record.objects[0].skeleton == ((0, 1), (1, 2))
