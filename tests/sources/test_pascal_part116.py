from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talking_points.records import ImageRecord
from talking_points.sources import SourceError, open_source
from tests.sources.test_pascal_instances import half, write_mat
from tests.sources.trees import (
    HEIGHT,
    WIDTH,
    annotation,
    blank,
    coco,
    image_entry,
    label_map,
    pascal_image,
    pascal_tree,
    write_image,
    write_json,
)

STEM = "2008_000002"


def only(root: Path, **options: Any) -> tuple[ImageRecord, dict[str, int]]:
    source = open_source("pascal_part116", root, **options)
    (record,) = source
    return record, dict(source.skipped)


def test_record_fields(tmp_path: Path) -> None:
    record, skipped = only(pascal_tree(tmp_path))
    assert skipped == {}
    assert (record.source, record.image_id, record.split) == ("pascal_part116", f"train/{STEM}", "train")
    assert record.relative_path == f"images/train/{STEM}.jpg"
    assert record.image_path == tmp_path / record.relative_path
    assert (record.width, record.height) == (WIDTH, HEIGHT)
    (dog,) = record.objects
    assert (dog.name, dog.label, dog.id, dog.bbox, dog.instance_exact) == ("dog", "dog", 11, (5, 5, 30, 20), True)
    (head,) = dog.parts
    assert (head.name, head.label, head.id, head.bbox) == ("head", "dog's head", 61, (5, 5, 10, 10))
    assert head.mask is not None
    assert head.mask.sum() == 100


def test_zero_is_a_class_and_255_is_not(tmp_path: Path) -> None:
    objects, parts = blank(255), blank(255)
    objects[5:25, 5:35] = 0
    parts[5:15, 5:15] = 0
    pascal_image(tmp_path, STEM, "train", objects, parts)
    record, _ = only(tmp_path)
    (plane,) = record.objects
    assert (plane.name, [part.label for part in plane.parts]) == ("aeroplane", ["aeroplane's body"])


def test_run_together_names_are_read_apart(tmp_path: Path) -> None:
    objects, parts = blank(255), blank(255)
    objects[:20], objects[20:] = 15, 19
    parts[:20], parts[20:] = 97, 115
    pascal_image(tmp_path, STEM, "train", objects, parts)
    record, _ = only(tmp_path)
    assert [(item.name, item.label, item.parts[0].name) for item in record.objects] == [
        ("potted plant", "pottedplant", "pot"),
        ("tv monitor", "tvmonitor", "screen"),
    ]


def test_parts_are_cut_to_their_object_and_lost_ones_counted(tmp_path: Path) -> None:
    root = pascal_tree(tmp_path)
    parts = blank(255)
    parts[0:15, 0:15] = 61  # head sticks out of the dog
    parts[30:35, 50:55] = 60  # tail on the background
    parts[16:20, 16:20] = 43  # a cat's head on the dog
    label_map(root / "annotations_detectron2_part" / "train" / f"{STEM}.png", parts)
    record, skipped = only(root)
    assert [(part.name, part.bbox) for part in record.objects[0].parts] == [("head", (5, 5, 10, 10))]
    assert skipped == {"part_outside_object": 2}


def test_images_without_parts_or_objects_are_records(tmp_path: Path) -> None:
    objects = blank(255)
    objects[5:25, 5:35] = 3  # boat: a class without parts
    pascal_image(tmp_path, "2008_000003", "val", objects, blank(255))
    pascal_image(tmp_path, "2008_000004", "val", blank(255), blank(255))
    boat, nothing = open_source("pascal_part116", tmp_path, "val")
    assert [(item.name, item.parts) for item in boat.objects] == [("boat", ())]
    assert nothing.objects == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("object 20", "label_out_of_range"),
        ("part 116", "label_out_of_range"),
        ("16 bit", "label_out_of_range"),
        ("transposed part map", "label_size_transposed"),
        ("small object map", "label_size_mismatch"),
        ("colour part map", "unreadable_label_map"),
        ("cut image", "truncated_image"),
        ("text image", "unreadable_image"),
        ("no image", "missing_image"),
        ("no part map", "missing_label"),
        ("no object map", "missing_label"),
    ],
)
def test_broken_images_are_skipped_by_reason(tmp_path: Path, change: str, reason: str) -> None:
    root = pascal_tree(tmp_path)
    pascal_tree(tmp_path, "2009_000001")
    image = root / "images" / "train" / f"{STEM}.jpg"
    objects = root / "annotations_detectron2_obj" / "train" / f"{STEM}.png"
    parts = root / "annotations_detectron2_part" / "train" / f"{STEM}.png"
    if change == "object 20":
        label_map(objects, blank(20))
    elif change == "part 116":
        label_map(parts, blank(116))
    elif change == "16 bit":
        label_map(parts, blank(300, np.uint16))
    elif change == "transposed part map":
        label_map(parts, blank(255, shape=(WIDTH, HEIGHT)))
    elif change == "small object map":
        label_map(objects, blank(255, shape=(HEIGHT, WIDTH - 1)))
    elif change == "colour part map":
        label_map(parts, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    elif change == "cut image":
        image.write_bytes(image.read_bytes()[:-400])
    elif change == "text image":
        image.write_text("404 not found")
    else:
        {"no image": image, "no part map": parts, "no object map": objects}[change].unlink()
    source = open_source("pascal_part116", root)
    assert [record.image_id for record in source] == ["train/2009_000001"]
    assert source.skipped == {reason: 1}


def test_apple_double_files_are_no_images(tmp_path: Path) -> None:
    root = pascal_tree(tmp_path)
    for folder in ("images", "annotations_detectron2_obj", "annotations_detectron2_part"):
        for suffix in (".jpg", ".png"):
            (root / folder / "train" / f"._{STEM}{suffix}").write_bytes(b"\0\5\x16\7")
        (root / folder / ".DS_Store").write_bytes(b"x")
        (root / folder / "._train").mkdir()
    _, skipped = only(root)
    assert skipped == {}


def test_extension_case_and_palette_maps_do_not_matter(tmp_path: Path) -> None:
    root = pascal_tree(tmp_path)
    image = root / "images" / "train" / f"{STEM}.jpg"
    image.rename(image.with_suffix(".JPEG"))
    parts = root / "annotations_detectron2_part" / "train" / f"{STEM}.png"
    parts.rename(parts.with_suffix(".PNG"))
    record, _ = only(root)
    assert record.relative_path.endswith(".JPEG")
    assert [part.name for part in record.objects[0].parts] == ["head"]


def test_ids_are_sorted_over_splits(tmp_path: Path) -> None:
    for stem, split in (("2010_000001", "train"), ("2008_000009", "val"), ("2008_000010", "train"), ("2007_1", "val")):
        pascal_tree(tmp_path, stem, split)
    source = open_source("pascal_part116", tmp_path)
    ids = [entry.image_id for entry in source.entries()]
    assert ids == ["train/2008_000010", "train/2010_000001", "val/2007_1", "val/2008_000009"]


def test_an_old_archive_without_val_labels_is_explained(tmp_path: Path) -> None:
    root = pascal_tree(tmp_path)
    pascal_tree(root, "2008_000003", "val")
    shutil.rmtree(root / "annotations_detectron2_part" / "val")
    source = open_source("pascal_part116", root)
    assert len(list(source)) == 1
    assert source.skipped == {"missing_label": 1}
    with pytest.raises(SourceError, match=r"annotations_detectron2_part/val.*download it again"):
        open_source("pascal_part116", root, "val")
    shutil.rmtree(root / "annotations_detectron2_obj")
    with pytest.raises(SourceError, match="annotations_detectron2_obj"):
        open_source("pascal_part116", root)


def two_dogs(root: Path) -> Path:
    """Two dogs that touch, with one head each; the maps alone show a single component."""
    objects, parts = blank(255), blank(255)
    objects[5:25, 5:35] = 11
    parts[5:10, 5:10], parts[5:10, 30:35] = 61, 61
    pascal_image(root, STEM, "train", objects, parts)
    return root


def add_instances(root: Path, kind: str) -> None:
    if kind == "mat":
        write_mat(root / "Annotations_Part" / f"{STEM}.mat", [("dog", 12, half(True)), ("dog", 12, half(False))], 2)
    elif kind == "voc":
        numbers = blank(0)
        numbers[half(True)], numbers[half(False)] = 1, 2
        label_map(root / "SegmentationObject" / f"{STEM}.png", numbers)
    else:
        boxes = [annotation(1, 7, 11, (5, 5, 15, 20)), annotation(2, 7, 11, (20, 5, 15, 20))]
        heads = [annotation(3, 7, 81, (5, 5, 5, 5)), annotation(4, 7, 81, (30, 5, 5, 5))]
        content = coco([image_entry(7, f"{STEM}.jpg")], heads + boxes)
        write_json(root / "pascalvoc_joint_train.json", content)


@pytest.mark.parametrize("kind", ["mat", "voc", "joint"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_optional_files_tell_touching_instances_apart(tmp_path: Path, kind: str, elsewhere: bool) -> None:
    root = two_dogs(tmp_path / "root")
    record, _ = only(root)
    assert [item.bbox for item in record.objects] == [(5, 5, 30, 20)]
    options = {}
    if elsewhere:
        add_instances(tmp_path / "more", kind)
        folder, option = {
            "mat": ("Annotations_Part", "part_annotations"),
            "voc": ("SegmentationObject", "segmentation_objects"),
            "joint": ("", "joint_annotations"),
        }[kind]
        options = {option: tmp_path / "more" / folder}
    else:
        add_instances(root, kind)
    record, skipped = only(root, **options)
    assert skipped == {}
    assert [(item.bbox, item.instance_exact) for item in record.objects] == [
        ((5, 5, 15, 20), True),
        ((20, 5, 15, 20), True),
    ]
    assert [[part.bbox for part in item.parts] for item in record.objects] == [[(5, 5, 5, 5)], [(30, 5, 5, 5)]]


def test_an_option_without_its_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"instance annotations at .*nowhere"):
        open_source("pascal_part116", pascal_tree(tmp_path), part_annotations=tmp_path / "nowhere")


def test_a_linked_instance_folder_must_be_named(tmp_path: Path) -> None:
    root = two_dogs(tmp_path / "root")
    add_instances(tmp_path / "more", "mat")
    (root / "Annotations_Part").symlink_to(tmp_path / "more" / "Annotations_Part")
    with pytest.raises(SourceError, match="name that folder in the option part_annotations"):
        open_source("pascal_part116", root)


@pytest.mark.parametrize("kind", ["mat", "voc"])
@pytest.mark.parametrize("damage", ["cut", "size"])
def test_a_damaged_optional_file_falls_back_to_components(tmp_path: Path, kind: str, damage: str) -> None:
    root = two_dogs(tmp_path)
    add_instances(root, kind)
    (file,) = (root / {"mat": "Annotations_Part", "voc": "SegmentationObject"}[kind]).iterdir()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:60])
    elif kind == "mat":
        write_mat(file, [("dog", 12, half(True).T)])
    else:
        label_map(file, blank(1, shape=(7, 7)))
    record, skipped = only(root)
    assert [item.bbox for item in record.objects] == [(5, 5, 30, 20)]
    assert skipped == {"unreadable_instances" if damage == "cut" else "instance_size_mismatch": 1}


def test_the_joint_file_alone_is_a_dataset(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / f"{STEM}.jpg")
    add_instances(tmp_path, "joint")
    record, skipped = only(tmp_path)
    assert skipped == {}
    assert record.annotation_path == "pascalvoc_joint_train.json"
    assert [[part.bbox for part in item.parts] for item in record.objects] == [[(5, 5, 5, 5)], [(30, 5, 5, 5)]]
    assert all(item.instance_exact for item in record.objects)
    assert record.objects[0].parts[0].label == "dog's head"


def test_joint_parts_without_an_object_of_their_class_are_counted(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / f"{STEM}.jpg")
    items = [
        annotation(1, 1, 11, (5, 5, 15, 20)),
        annotation(2, 1, 20 + 43, (5, 5, 5, 5)),
        annotation(3, 1, 136, (1, 1, 9, 9)),
    ]
    write_json(tmp_path / "pascalvoc_joint_train.json", coco([image_entry(1, f"{STEM}.jpg")], items))
    record, skipped = only(tmp_path)
    assert record.objects[0].parts == ()
    assert skipped == {"part_outside_object": 1, "unknown_category": 1}


def test_the_joint_file_of_one_split_says_nothing_about_the_other(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / f"{STEM}.jpg")
    write_image(tmp_path / "images" / "val" / "2008_000003.jpg")
    add_instances(tmp_path, "joint")
    _, skipped = only(tmp_path)
    assert skipped == {}
    with pytest.raises(SourceError, match=r"label maps or pascalvoc_joint_val\.json"):
        open_source("pascal_part116", tmp_path, "val")
