"""A user's own COCO keypoint file as a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talking_points.errors import InputError
from talking_points.examples.config import KeypointFiles
from talking_points.examples.keypoints import PoseExample, mirror_example
from talking_points.examples.pose_files import annotations_digest, check_keypoints, open_poses
from talking_points.sources import SourceError, open_source
from talking_points.sources.coco_keypoints import CocoKeypoints
from talking_points.sources.keypoint_sets import KeypointSet
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
        (["nose", "\u200b", "tail"], "empty name"),
        (["nose", "no\u200bse", "tail"], "found twice: nose"),
        (["keypoint 1", "keypoint 2", "keypoint 3"], "a number or a sign, no name"),
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


@pytest.mark.parametrize("number", ["kite", 5.5, None, True, [5]])
def test_a_category_without_a_number_is_named(tmp_path: Path, number: object) -> None:
    with pytest.raises(SourceError, match=r'kites\.json: expected a whole number as "id" .*\(Kite\)'):
        list(open_source("coco_keypoints", tree(tmp_path, [KITE | {"id": number}])))


@pytest.mark.parametrize(("name", "told"), [(None, "5"), ("", "5"), ("\u200b", "5"), ("Box\x1b\n Kite", "box kite")])
def test_a_category_without_a_name_is_called_by_its_number(tmp_path: Path, name: object, told: str) -> None:
    (record,) = open_source("coco_keypoints", tree(tmp_path, [KITE | {"name": name}]))
    assert record.objects[0].name == told


def test_bad_annotations_are_counted_and_good_ones_kept(tmp_path: Path) -> None:
    items = [kite(1), kite(2, keypoints=[1, 2, 2] * 4), kite(3, bbox=[5, 5, 0, 9]), kite(4) | {"category_id": 6}]
    source = open_source("coco_keypoints", tree(tmp_path, items=items))
    (record,) = source
    assert len(record.objects) == 1
    assert source.skipped == {"keypoint_count": 1, "degenerate_box": 1, "unknown_category": 1}


@pytest.mark.parametrize("folder", ["images", "data", ".", "all"])
@pytest.mark.parametrize("whole", [False, True])
def test_images_are_found_in_the_folders_of_tools_by_name_and_by_whole_path(
    tmp_path: Path, folder: str, whole: bool
) -> None:
    """AP-10K keeps its images in data; DeepLabCut writes whole paths."""
    write_image(tmp_path / folder / "1.jpg")
    name = str(tmp_path / folder / "1.jpg") if whole else "1.jpg"
    write_json(tmp_path / "annotations" / "kites.json", coco([image_entry(1, name)], [kite(1)], (KITE,)))
    (record,) = open_source("coco_keypoints", tmp_path)
    assert record.image_path == tmp_path / folder / "1.jpg"
    assert str(tmp_path) not in record.image_id


@pytest.mark.parametrize("name", ["{root}/../1.jpg", "{root}2/1.jpg", "{root}/link/1.jpg"])
def test_whole_paths_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    root = tmp_path / "kites"
    for folder in (tmp_path, tmp_path / "kites2"):
        write_image(folder / "1.jpg")
    listed = [image_entry(1, name.format(root=root))]
    write_json(root / "kites.json", coco(listed, [kite(1)], (KITE,)))
    (root / "link").symlink_to(tmp_path / "kites2")
    with pytest.raises(InputError, match=r"path_outside_root.*under names that count from there"):
        open_poses(KeypointFiles(own=root), None)


@pytest.mark.parametrize("keypoints", [[[5, 6, 2], [9, 9, 1], [0, 0, 0]], {"nose": [5, 6]}, "5 6 2", [5, 6]])
def test_keypoints_in_another_form_are_named(tmp_path: Path, keypoints: object) -> None:
    with pytest.raises(InputError, match=r"expected keypoints as one list x, y, visibility, x, .*found"):
        open_poses(KeypointFiles(own=tree(tmp_path, items=[kite(1, keypoints=keypoints)])), None)


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


EXPORTS: dict[str, dict[str, Any]] = {
    "no num_keypoints": {"num_keypoints": None},
    "num_keypoints not counted": {"num_keypoints": 0},
    "no outline, area 0": {"area": 0, "segmentation": []},
    "no area": {"area": None, "segmentation": None},
    "ids as floats": {"category_id": 5.0, "image_id": 1.0},
    "ids as text": {"category_id": "5", "image_id": "1"},
    "numbers as floats": {"keypoints": [5.0, 6.0, 2.0, 9.0, 9.0, 1.0, 0.0, 0.0, 0.0]},
    "an unlabelled place that is not 0": {"keypoints": [5, 6, 2, 9, 9, 1, 7, 7, 0]},
    "no place as null": {"keypoints": [5, 6, 2, 9, 9, 1, None, None, 0]},
    "no visibility as null": {"keypoints": [5, 6, 2, 9, 9, 1, 7, 7, None]},
    "no place as NaN": {"keypoints": [5, 6, 2, 9, 9, 1, float("nan"), float("nan"), 2]},
}


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize(
    "category", [KITE, KITE | {"id": 5.0}, KITE | {"id": "5"}, {k: v for k, v in KITE.items() if k != "skeleton"}]
)
def test_what_annotation_tools_write(tmp_path: Path, export: str, category: dict[str, Any]) -> None:
    source = open_source("coco_keypoints", tree(tmp_path, [category], [kite(1) | EXPORTS[export]]))
    (record,) = source
    assert [point.visible for point in record.objects[0].keypoints] == [True, True, False]
    assert not source.skipped


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": None}, "malformed_annotation"),
        ({"bbox": [0, 0, 0, 0]}, "degenerate_box"),
        ({"keypoints": [5, 6, 9, 9, 0, 0]}, "keypoint_count"),
        ({"keypoints": [5, 6, 0, 9, 9, 0, 7, 7, 0]}, "no_keypoints"),
        ({"keypoints": ["5", 6, 2] * 3}, "malformed_annotation"),
        ({"keypoints": None}, "malformed_annotation"),
        ({"keypoints": [5, 6, 0.91, 9, 9, 0.02, 7, 7, 0.3]}, "malformed_annotation"),
    ],
)
def test_what_cannot_be_used_is_counted(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    source = open_source("coco_keypoints", tree(tmp_path, items=[kite(1, **changes), kite(2)]))
    (record,) = source
    assert len(record.objects) == 1
    assert source.skipped == {reason: 1}


ORIGIN = {"keypoint_at_origin": 1}
CORNERS = {"box_like_corners": 1}


@pytest.mark.parametrize(
    ("changes", "visible", "counted"),
    [
        ({"keypoints": [5, 6, 2, 9, 9, 1, 0, 0, 2]}, [True, True, False], ORIGIN),
        ({"keypoints": [5, 6, 2, 9, 9, 1, 0, 0, 2], "bbox": [0, 0, 20, 20]}, [True, True, True], {}),
        ({"keypoints": [5, 6, 2, 9, 9, 1, 0, 9, 2]}, [True, True, True], {}),
        ({"keypoints": [40, 30, 2, 48, 33, 1, 0, 0, 0], "bbox": [35, 25, 55, 38]}, [True, True, False], CORNERS),
        ({"keypoints": [5, 6, 2, 48, 33, 1, 0, 0, 0], "bbox": [35, 25, 55, 38]}, [True, True, False], {}),
        ({"keypoints": [40, 30, 2, 48, 33, 1, 0, 0, 0], "bbox": [35, 25, 25.5, 15.5]}, [True, True, False], {}),
    ],
)
def test_what_reads_like_another_convention_is_counted(
    tmp_path: Path, changes: dict[str, Any], visible: list[bool], counted: dict[str, int]
) -> None:
    source = open_source("coco_keypoints", tree(tmp_path, items=[kite(1, **changes)]))
    (record,) = source
    assert [point.visible for point in record.objects[0].keypoints] == visible
    assert source.skipped == counted


def test_files_about_the_same_images_are_read_together(tmp_path: Path) -> None:
    bird = {"id": 6, "name": "bird", "keypoints": ["beak", "crown"]}
    root = tree(tmp_path, file="annotations/kites.json")
    other = [kite(1, image=9, keypoints=[5, 6, 2, 9, 9, 1], bbox=[1, 1, 30, 30]) | {"category_id": 6}]
    write_json(root / "annotations" / "birds.json", coco([image_entry(9, "a/1.jpg")], other, [bird]))
    (record,) = open_source("coco_keypoints", root)
    assert sorted(item.name for item in record.objects) == ["bird", "kite"]


def test_categories_of_one_name_have_the_same_keypoints(tmp_path: Path) -> None:
    same = open_source("coco_keypoints", tree(tmp_path / "same", [KITE, KITE | {"id": 6}]))
    assert len(list(same)) == 1
    other = KITE | {"id": 6, "keypoints": ["a spot", "b spot", "c spot"]}
    with pytest.raises(SourceError, match="found kite as that of 5 and of 6"):
        list(open_source("coco_keypoints", tree(tmp_path / "other", [KITE, other])))


@pytest.mark.parametrize(
    ("file", "image", "listed"),
    [
        ("person_keypoints_default.json", "images/default/1.jpg", "1.jpg"),
        ("person_keypoints_Train.json", "images/Train/1.jpg", "1.jpg"),
        ("kites_train.json", "images/train2017/1.jpg", "1.jpg"),
        ("kites_val.json", "images/valid/1.jpg", "1.jpg"),
        ("kites.json", "images/my kite.jpg", "my%20kite.jpg"),
        ("valley.json", "images/1.jpg", "1.jpg"),
    ],
)
def test_images_lie_where_tools_export_them(tmp_path: Path, file: str, image: str, listed: str) -> None:
    write_json(tmp_path / "annotations" / file, coco([image_entry(1, listed)], [kite(1)], [KITE]))
    write_image(tmp_path / image)
    split = "val" if "kites_val" in file else "train"
    assert [one.image_path.name for one in CocoKeypoints(tmp_path, split)] == [Path(image).name]


def test_nothing_to_train_on_says_what_was_wrong_with_the_first(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 malformed_annotation: images/a/1\.jpg: bbox None"):
        open_poses(KeypointFiles(own=tree(tmp_path / "boxes", items=[kite(1, bbox=None)])), "train")
    root = tree(tmp_path / "away")
    (root / "images" / "a" / "1.jpg").unlink()
    with pytest.raises(InputError, match=r"missing_image: .*a/1\.jpg.*images are looked for in"):
        open_poses(KeypointFiles(own=root), "train")


@pytest.mark.parametrize("skeleton", [None, 3, "1-2", {"1": 2}, [[1, "2"], [1]], [[99, 1]]])
def test_a_skeleton_of_another_form_is_left_out(tmp_path: Path, skeleton: object) -> None:
    (record,) = open_source("coco_keypoints", tree(tmp_path, [KITE | {"skeleton": skeleton}]))
    assert record.objects[0].skeleton == ()


def test_a_file_beside_the_images_of_every_split(tmp_path: Path) -> None:
    for folder in ("train", "valid", "test"):
        write_json(tmp_path / folder / "_annotations.coco.json", coco([image_entry(1, "1.jpg")], [kite(1)], [KITE]))
        write_image(tmp_path / folder / "1.jpg")
    source = CocoKeypoints(tmp_path)
    assert [(one.image_id, one.image_path.parent.name) for one in source] == [
        ("test/1", "test"), ("train/1", "train"), ("val/1", "valid"),
    ]  # fmt: skip
    assert [record.split for record in CocoKeypoints(tmp_path, "val")] == ["val"]
    own = KeypointFiles(own=tmp_path)
    before = annotations_digest(own)
    assert sorted(before) == [f"{folder}/_annotations.coco.json" for folder in ("test", "train", "valid")]
    write_json(tmp_path / "train" / "_annotations.coco.json", coco([image_entry(1, "1.jpg")], [kite(2)], [KITE]))
    assert annotations_digest(own) != before, "a model of other annotations is another one"


@pytest.mark.parametrize(
    ("files", "split", "read"),
    [
        (["kites"], "train", ["kites"]),
        (["kites", "kites_val"], "train", ["kites"]),
        (["kites", "kites_train"], "train", ["kites_train"]),
        (["kites", "kites_val"], "val", ["kites_val"]),
        (["kites"], "test", None),
        (["kites_val"], "train", None),
    ],
)
def test_a_file_of_no_split_is_what_is_trained_on(
    tmp_path: Path, files: list[str], split: str, read: list[str] | None
) -> None:
    for name in files:
        tree(tmp_path, file=f"annotations/{name}.json")
    own = KeypointFiles(own=tmp_path)
    if read is None:
        for refused in (lambda: check_keypoints(own, split=split), lambda: open_poses(own, split)):
            with pytest.raises(InputError, match=f"expected split '{split}'"):
                refused()
        return
    check_keypoints(own, split=split)
    assert [path.stem for path in CocoKeypoints(tmp_path, split).annotation_files] == read
    assert len(open_poses(own, split)) == 1


@pytest.mark.parametrize(
    "names",
    [
        ("left_eye", "right_eye", "nose"), ("Left Eye", "Right Eye", "nose"), ("LEFT_EYE", "RIGHT_EYE", "nose"),
        ("leftEye", "rightEye", "nose"), ("LEye", "REye", "Nose"), ("eyeL", "eyeR", "nose"),
        ("L_eye", "R_eye", "nose"), ("eye l", "eye r", "nose"),
    ],
)  # fmt: skip
def test_sides_are_known_however_they_are_written(tmp_path: Path, names: tuple[str, ...]) -> None:
    source = open_source("coco_keypoints", tree(tmp_path, [KITE | {"keypoints": list(names)}]))
    assert isinstance(source, CocoKeypoints)
    assert source.keypoint_sets()[5].flip_pairs == ((0, 1),)


def test_what_a_mirrored_image_has_no_name_for_is_not_labelled_there() -> None:
    keypoints = KeypointSet.from_names("wing", ("left wing", "bright spot", "tail"))
    assert (keypoints.flip_pairs, keypoints.lopsided()) == ((), (0,))
    points = np.array([[1.0, 2], [3, 4], [5, 6]])
    one = PoseExample("a", "a", 1, "wing", keypoints, (20, 20), (0, 0, 9, 9), points, np.ones(3, bool))
    mirrored = mirror_example(one)
    assert mirrored.visible.tolist() == [False, True, True]
    assert mirrored.points[1].tolist() == [16, 4]


@pytest.mark.parametrize("name", ["ap10k-{}-split{}", "kites_{}_fold_{}"])
def test_partitions_are_never_read_together(tmp_path: Path, name: str) -> None:
    for split in ("train", "val"):
        root = tree(tmp_path, file=f"annotations/{name.format(split, 1)}.json")
    assert len(CocoKeypoints(root).annotation_files) == 2
    tree(tmp_path, file=f"annotations/{name.format('train', 2)}.json")
    with pytest.raises(
        SourceError, match=rf"one partition .*{name.format('train', 1)}.json, {name.format('train', 2)}"
    ):
        CocoKeypoints(root, "train")
    assert len(CocoKeypoints(root, "val").annotation_files) == 1
