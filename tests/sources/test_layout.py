from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from talking_points.sources import READERS, open_source
from talking_points.sources.layout import ImageFinder, child, choose_splits, find_root, inside, stems
from talking_points.sources.protocol import SkippedImage, SourceError
from tests.sources.trees import ade_tree, ap10k_tree, image_entry, pascal_tree, pin_tree, write_image


def is_dataset(folder: Path) -> bool:
    return (folder / "marker").exists()


@pytest.mark.parametrize(
    ("place", "root"),
    [
        ("", ""),
        ("PascalPart116", ""),
        ("pascal_part_116", ""),
        ("Pascal-Part-116/PascalPart116", ""),
        ("PascalPart116/PascalPart116", "PascalPart116"),
        ("my-copy", ""),
        ("my-copy/unpacked", ""),
    ],
)
@pytest.mark.parametrize("distraction", [False, True])
def test_root_is_found_under_other_names(tmp_path: Path, place: str, root: str, distraction: bool) -> None:
    (tmp_path / place / "marker").mkdir(parents=True)
    if distraction and not place.startswith("my-copy"):
        (tmp_path / "another dataset").mkdir()
    (tmp_path / ".hidden").mkdir()
    found = find_root(tmp_path / root, ("PascalPart116", "Pascal-Part-116"), is_dataset, "a marker")
    assert found == tmp_path / place


def test_root_errors_say_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"expected the dataset folder at .*nowhere, found nothing"):
        find_root(tmp_path / "nowhere", ("x",), is_dataset, "a marker")
    file = tmp_path / "archive.tar.gz"
    file.touch()
    with pytest.raises(SourceError, match="found a file"):
        find_root(file, ("x",), is_dataset, "a marker")
    with pytest.raises(SourceError, match=r"expected a marker in .*found: archive\.tar\.gz"):
        find_root(tmp_path, ("x",), is_dataset, "a marker")
    for name in ("x1", "x2"):
        (tmp_path / name / "marker").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"found 2: .*x1, .*x2; name one"):
        find_root(tmp_path, ("x",), is_dataset, "a marker")


def test_unknown_source_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"{', '.join(READERS)}; found 'coco'"):
        open_source("coco", tmp_path)


@pytest.mark.parametrize(
    "name", ["pascal_part116", "ade20k_part234", "partimagenet", "ap10k", "mp100", "coco_keypoints"]
)
def test_a_folder_with_something_else_is_refused_on_opening(tmp_path: Path, name: str) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(SourceError, match="found: holiday; point the root"):
        open_source(name, tmp_path)


@pytest.mark.parametrize(
    ("available", "split", "chosen"),
    [
        (("training", "validation"), None, ("training", "validation")),
        (("training", "validation"), "train", ("training",)),
        (("training", "validation"), "VAL", ("validation",)),
        (("training", "validation"), "validation", ("validation",)),
        (("train", "val"), "training", ("train",)),
        (("train", "val", "test"), "test", ("test",)),
    ],
)
def test_splits_by_own_and_generic_name(available: tuple[str, ...], split: str | None, chosen: tuple[str, ...]) -> None:
    assert choose_splits(available, split, Path("x")) == chosen


def test_missing_splits_are_errors() -> None:
    with pytest.raises(SourceError, match="expected split 'test' in x, found train, val"):
        choose_splits(("train", "val"), "test", Path("x"))
    with pytest.raises(SourceError, match="found none"):
        choose_splits((), None, Path("x"))


def test_stems_leave_out_hidden_and_other_files(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "c.Png", "._a.jpg", ".DS_Store", "notes.txt", "d", "2008.01.jpg", "e.png", "e.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert stems(tmp_path) == {"a": "a.jpg", "b": "b.JPEG", "c": "c.Png", "2008.01": "2008.01.jpg", "e": "e.jpg"}


def test_child_prefers_the_exact_spelling(tmp_path: Path) -> None:
    assert child(tmp_path, "images") is None
    (tmp_path / "Images").mkdir()
    assert child(tmp_path, "images") == tmp_path / "Images"
    (tmp_path / "images").mkdir()
    assert child(tmp_path, "images") == tmp_path / "images"


ESCAPES = [
    "/etc/passwd",
    "../secret.jpg",
    "a/../inside.jpg",
    "a/../../secret.jpg",
    "link.jpg",
    "linked/secret.jpg",
    "",
    "nul\0.jpg",
]


@pytest.fixture
def guarded(tmp_path: Path) -> Path:
    """A dataset folder with a file and a folder linked from outside."""
    root = tmp_path / "root"
    root.mkdir()
    write_image(tmp_path / "secret.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "linked").symlink_to(tmp_path)
    return root


@pytest.mark.parametrize("relative", ESCAPES)
def test_paths_that_leave_the_root_are_refused(guarded: Path, relative: str) -> None:
    with pytest.raises(SkippedImage) as refused:
        inside(guarded, relative)
    assert refused.value.reason == "path_outside_root"


def test_links_inside_the_root_are_followed(tmp_path: Path) -> None:
    write_image(tmp_path / "real.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "real.jpg")
    assert inside(tmp_path, "link.jpg") == tmp_path / "link.jpg"


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "C:/data/secret.jpg", "../secret.jpg", "link.jpg", "linked/secret.jpg"]
)
def test_annotation_files_cannot_name_images_outside(guarded: Path, name: str) -> None:
    with pytest.raises(SkippedImage, match="path_outside_root"):
        ImageFinder(guarded, [guarded]).find(name)


@pytest.mark.parametrize(
    ("on_disk", "listed"),
    [
        ("a.JPG", "a.jpg"),
        ("n01440764/n01440764_1.JPEG", "n01440764_1.JPEG"),
        ("n01440764/n01440764_1.JPEG", "n01440764/n01440764_1.jpeg"),
        ("n01440764_1.JPEG", "n01440764/n01440764_1.JPEG"),
    ],
)
def test_images_are_found_by_stem_nested_or_flat(tmp_path: Path, on_disk: str, listed: str) -> None:
    write_image(tmp_path / on_disk)
    assert ImageFinder(tmp_path, [tmp_path]).find(listed) == on_disk
    assert ImageFinder(tmp_path, [tmp_path]).find("other.jpg") is None
    assert ImageFinder(tmp_path, [tmp_path]).find("x" * 400 + ".jpg") is None
    assert ImageFinder(tmp_path, [tmp_path]).find("é" * 200 + "/x.jpg") is None
    assert ImageFinder(tmp_path, [tmp_path]).find("x/" * 3000 + "x.jpg") is None


@pytest.mark.parametrize(
    "name",
    ["a.webp", "a.GIF", "a.bmp", "a.tiff", "a.jfif", "abc", ".trick.png", "2008.01", "a.photo", "deep/a b&+.webp"],
)
def test_own_images_are_found_whatever_their_names_end_with(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "other.png")
    (tmp_path / "images" / name).parent.mkdir(parents=True)
    shutil.copy(tmp_path / "other.png", tmp_path / "images" / name)
    finder = ImageFinder(tmp_path, [tmp_path / "images", tmp_path])
    assert finder.find(name) == f"images/{name}"
    assert finder.find("images") is None, "a folder is no image"
    shutil.copy(tmp_path / "other.png", (tmp_path / "images" / name).with_suffix(".png"))
    assert ImageFinder(tmp_path, [tmp_path / "images"]).find(name) == f"images/{name}", "the exact name goes first"


def test_an_image_that_was_converted_is_found_by_its_stem(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.webp")
    assert ImageFinder(tmp_path, [tmp_path]).find("a.jpg") == "a.webp"


@pytest.mark.parametrize("escape", ["/etc/passwd", "../../../secret.jpg"])
@pytest.mark.parametrize("name", ["ade20k_part234", "partimagenet", "ap10k"])
def test_sources_count_escaping_file_names(tmp_path: Path, name: str, escape: str) -> None:
    root = tmp_path / "root"
    if name == "ade20k_part234":
        ade_tree(root)
        file = root / "ade20k_instance_train.json"
        file.write_text(file.read_text().replace("ADE_train_1.jpg", escape))
    elif name == "partimagenet":
        pin_tree(root, file_name=escape)
    else:
        ap10k_tree(root, train=([image_entry(1, "1.jpg")], []))
        file = root / "annotations" / "ap10k-train-split1.json"
        file.write_text(file.read_text().replace("1.jpg", escape))
    source = open_source(name, root)
    assert list(source) == []
    assert source.skipped["path_outside_root"] == 1


@pytest.mark.parametrize("kind", ["images", "annotations_detectron2_obj", "annotations_detectron2_part"])
def test_a_label_map_or_image_linked_from_outside_is_refused(tmp_path: Path, kind: str) -> None:
    root = pascal_tree(tmp_path / "root")
    (file,) = (root / kind / "train").iterdir()
    moved = tmp_path / file.name
    file.rename(moved)
    file.symlink_to(moved)
    source = open_source("pascal_part116", root)
    assert list(source) == []
    assert source.skipped == {"path_outside_root": 1}


def test_links_to_themselves_and_names_that_are_no_text_are_counted(tmp_path: Path) -> None:
    root = pascal_tree(tmp_path / "PascalPart116")
    pascal_tree(root, "2008_000003")
    loop = root / "images" / "train" / "2008_000002.jpg"
    loop.unlink()
    loop.symlink_to(loop.name)
    for file in list(root.rglob("2008_000003.*")):
        os.rename(file, os.fsencode(file.parent) + b"/\xe9t\xe9" + os.fsencode(file.suffix))  # noqa: PTH104
    source = open_source("pascal_part116", root)
    assert list(source) == []
    assert source.skipped == {"missing_image": 1, "undecodable_name": 1}
    (root / "images" / "train").joinpath(os.fsdecode(b"\xe9.jpg")).touch()
    assert list(source) == []
    assert r"\udce9.jpg" in source.skipped_details["missing_label"][0]


def test_root_spelled_with_part_and_images_in_its_path(tmp_path: Path) -> None:
    root = pascal_tree(tmp_path / "images" / "part" / "jpg" / "PascalPart116")
    assert [record.image_id for record in open_source("pascal_part116", root)] == ["train/2008_000002"]
