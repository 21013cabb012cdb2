"""A user's own COCO files: which categories are parts, whose they are, and what other tools write."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from talking_points.build_config import BuildConfig, KeypointConfig
from talking_points.candidates.build import build_candidates
from talking_points.config import ConfigError, load_config
from talking_points.dataset_schema import declare_labels
from talking_points.records import LABELS, SOURCES, ImageRecord, source_label
from talking_points.sources import SourceError, open_source
from tests.sources.trees import annotation, coco, image_entry, write_image, write_json

DOG, OTHER, HEAD, TAIL = (2, 2, 26, 30), (30, 2, 26, 30), (4, 4, 10, 10), (34, 20, 10, 10)
DOCS = Path(__file__).resolve().parents[2] / "docs" / "own_data.md"


def category(id: int, name: str, above: str | None = None) -> dict[str, Any]:
    return {"id": id, "name": name, **({} if above is None else {"supercategory": above})}


def tree(root: Path, files: dict[str, Any]) -> Path:
    write_image(root / "images" / "a.jpg")
    for name, content in files.items():
        write_json(root / name, content)
    return root


def found(root: Path, **options: Any) -> tuple[list[tuple[str, list[str]]], dict[str, int]]:
    """Names of the objects and of their parts in the only image, and what was skipped."""
    source = open_source("coco_parts", root, **options)
    (record,) = source
    return [(item.name, [part.name for part in item.parts]) for item in record.objects], dict(source.skipped)


def listed(categories: Sequence[Any], *annotations: Any) -> Any:
    return coco([image_entry(1, "a.jpg")], annotations, categories)


@pytest.mark.parametrize(
    "head",
    [
        category(2, "dog's head"),
        category(2, "Dog's Head", "animal"),
        category(2, "dog:head", "PART"),
        category(2, "dog/head"),
        category(2, "head", "dog"),
        category(2, "dog_head", "dog"),
    ],
    ids=lambda item: item["name"],
)
def test_a_part_category_names_its_object(tmp_path: Path, head: dict[str, Any]) -> None:
    categories = [category(1, "dog", "animal"), head, category(3, "animal shelter", "building")]
    root = tree(tmp_path, {"own.json": listed(categories, annotation(1, 1, 1, DOG), annotation(2, 1, 2, HEAD))})
    assert found(root) == ([("dog", ["head"])], {})


def test_a_part_belongs_to_the_object_that_holds_it_or_that_it_names(tmp_path: Path) -> None:
    categories = [category(1, "dog"), category(2, "dog's head"), category(3, "dog's tail"), category(4, "cat")]
    objects = [annotation(1, 1, 1, DOG), annotation(2, 1, 1, OTHER), annotation(3, 1, 4, OTHER)]
    parts = [annotation(4, 1, 2, HEAD), annotation(5, 1, 3, TAIL), annotation(6, 1, 2, (50, 34, 5, 5))]
    root = tree(tmp_path, {"own.json": listed(categories, *objects, *parts)})
    expected = [("dog", ["head"]), ("dog", ["tail"]), ("cat", [])]
    assert found(root) == (expected, {"part_outside_object": 1})
    across = annotation(4, 1, 2, (20, 4, 24, 10), object_id=1)  # most of it is on the other dog
    root = tree(tmp_path, {"own.json": listed(categories, *objects, across)})
    assert found(root)[0] == [("dog", ["head"]), ("dog", []), ("cat", [])]
    (record,) = open_source("coco_parts", root)
    mask, whole = record.objects[0].parts[0].mask, record.objects[0].mask
    assert mask is not None
    assert whole is not None
    assert not (mask & ~whole).any()


@pytest.mark.parametrize("same_ids", [True, False])
def test_parts_may_have_a_file_of_their_own(tmp_path: Path, same_ids: bool) -> None:
    image = 1 if same_ids else 77
    objects = listed([category(1, "dog")], annotation(1, 1, 1, DOG))
    parts = coco(
        [image_entry(image, "a.jpg")],
        [annotation(1, image, 1, HEAD)],
        [category(1 if same_ids else 5, "head", "dog")],
    )
    parts["annotations"][0]["category_id"] = parts["categories"][0]["id"]
    root = tree(tmp_path, {"annotations/dogs_train.json": objects, "annotations/dog_parts_train.json": parts})
    assert found(root) == ([("dog", ["head"])], {})
    assert found(root, split="train") == ([("dog", ["head"])], {})
    parts["categories"][0].pop("supercategory")  # there is one class that they can be parts of
    renamed = tree(tmp_path / "named", {"o.json": objects, "p.json": parts})
    assert found(renamed, objects="o.json", parts="p.json") == ([("dog", ["head"])], {})


def test_points_come_out_with_the_names_of_the_file(tmp_path: Path) -> None:
    categories = [category(1, "tool_box"), category(2, "handle", "tool_box")]
    root = tree(
        tmp_path, {"own.json": listed(categories, annotation(1, 1, 1, DOG), annotation(2, 1, 2, (4, 4, 22, 24)))}
    )
    (record,) = open_source("coco_parts", root)
    (candidate,), _ = build_candidates(record, "0" * 64, KeypointConfig())
    assert (candidate.source, candidate.object, candidate.part) == ("coco_parts", "tool box", "handle")


@pytest.mark.parametrize(
    ("files", "options", "told"),
    [
        ({"a.json": listed([category(1, "dog"), category(2, "cat")])}, {}, "found cat, dog: rename them"),
        ({"a.json": listed([{"id": 1}])}, {}, "categories with an id and a name"),
        (
            {"train.json": listed([category(1, "dog")]), "val.json": listed([category(1, "cat")])},
            {},
            "category 1 is 'cat' here and 'dog' in a file before it",
        ),
        ({"a.json": listed([])}, {"objects": "../a.json"}, "path below"),
        ({"a.json": listed([])}, {"objects": "b.json"}, "found nothing there"),
        ({"a.json": listed([])}, {"images": "nowhere"}, "found nothing there"),
        ({"a.json": listed([])}, {"split": "test"}, "choose one"),
        ({}, {}, "expected COCO files"),
    ],
)
def test_folders_that_cannot_be_read_are_told(tmp_path: Path, files: Any, options: Any, told: str) -> None:
    root = tree(tmp_path, files)
    with pytest.raises(SourceError, match=told):
        list(open_source("coco_parts", root, **options))


@pytest.mark.parametrize("as_written", [float, str])
def test_category_ids_are_read_as_annotations_have_them(tmp_path: Path, as_written: type) -> None:
    one = {**annotation(1, 1, 7, DOG), "category_id": as_written(7)}
    tree(tmp_path, {"a.json": listed([{"id": as_written(7), "name": "dog"}], one)})
    (record,) = open_source("images", tmp_path)
    assert [(item.name, item.id) for item in record.objects] == [("dog", 7)]


def test_files_that_supervision_writes(tmp_path: Path) -> None:
    """Written by ``DetectionDataset.as_coco`` of supervision 0.31.2: two dogs, two heads, one tail, no scores."""
    written = Path(__file__).parent / "written" / "supervision_0.31.2.json"
    write_image(tmp_path / "images" / "a.png", (160, 120), format="PNG")
    shutil.copy(written, tmp_path / "train.json")
    assert found(tmp_path) == ([("dog", ["head", "tail"]), ("dog", ["head"])], {})
    (record,) = open_source("images", tmp_path)
    assert len(record.objects) == 5


def test_files_that_fiftyone_writes(tmp_path: Path) -> None:
    """Written by ``COCODetectionDatasetExporter`` of FiftyOne 1.22.1, beside its folder ``data``: two images of a dog,
    its head from a mask, its tail from a box alone, ``supercategory`` null.
    """
    shutil.copy(Path(__file__).parent / "written" / "fiftyone_1.22.1.json", tmp_path / "labels.json")
    for name in ("pic 0.jpg", "pic 1.jpg"):
        write_image(tmp_path / "data" / name, (160, 120))
    source = open_source("coco_parts", tmp_path)
    parts = [[(item.name, [part.name for part in item.parts]) for item in record.objects] for record in source]
    assert parts == [[("dog", ["head", "tail"])]] * 2
    assert source.skipped == {}
    records = list(open_source("images", tmp_path))
    assert [item.name for item in records[0].objects] == ["dog", "dog's head", "dog's tail"]


def test_files_that_pycocotools_writes(tmp_path: Path) -> None:
    """Detections as its evaluation takes them, loaded and saved: run lengths, boxes, areas are its own."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = listed([category(1, "dog"), category(2, "dog's head")])
        truth.createIndex()
        results = []
        for number, box, score in ((1, DOG, 0.9), (2, HEAD, 0.8), (1, OTHER, 0.2)):
            mask = np.zeros((40, 60), np.uint8, order="F")
            mask[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 1
            rle = coco_mask.encode(mask)
            rle["counts"] = rle["counts"].decode()
            results.append({"image_id": 1, "category_id": number, "segmentation": rle, "score": score})
        written = truth.loadRes(results).dataset
    for item in written["annotations"]:
        item["area"], item["bbox"] = int(item["area"]), [float(value) for value in item["bbox"]]
    root = tree(tmp_path, {"detections.json": written})
    assert found(root) == ([("dog", ["head"]), ("dog", [])], {})
    source = open_source("images", root, min_score=0.5)
    (record,) = source
    assert [item.bbox for item in record.objects] == [DOG, HEAD]
    assert source.skipped == {"low_score": 1}


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Every Python block in one session, its output beside that of the page; then the source of the page."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(\w*)\n(.*?)```", DOCS.read_text(), re.DOTALL)
    session: dict[str, Any] = {}
    shown = [text for language, text in blocks if not language and "/\n" not in text]
    for code in [text for language, text in blocks if language == "python" and not text.startswith("#")]:
        exec(code, session)  # the code of our own page
        assert capsys.readouterr().out == shown.pop(0)
    assert not shown
    (own,) = [text for language, text in blocks if language == "python" and text.startswith("#")]
    (named,) = [text for language, text in blocks if language == "toml"]
    group = re.findall(r'"(.+)"\]', named)[0]
    name, value = re.findall(r'(\w+) = "(.+)"', named)[0]
    add_package(tmp_path, monkeypatch, own, f"[{group}]\n{name} = {value}\n")
    write_image(tmp_path / "own" / "a.png", format="PNG")
    (record,) = open_source("birds", tmp_path / "own")
    assert isinstance(record, ImageRecord)
    config = load_config(BuildConfig, None, ["output=x", f"sources.birds.root={tmp_path}"])
    assert list(config.open_sources) == ["birds"]


def add_package(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, entry_points: str) -> None:
    """An installed package ``my_package`` with one module and its entry points."""
    place = folder / "site"
    for name, text in {
        "my_package/__init__.py": "",
        "my_package/birds.py": code,
        "my_package-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: my-package\nVersion: 1\n",
        "my_package-1.dist-info/entry_points.txt": entry_points,
    }.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    monkeypatch.syspath_prepend(str(place))
    for name in ("my_package", "my_package.birds"):  # of an earlier test
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import nothing_like_this", "cannot load the source birds"),
        ("Birds = 3", "expected a subclass of"),
        ("from talking_points.sources import Source\nclass Birds(Source): name = 'other'", "whose name is 'birds'"),
    ],
)
def test_a_package_that_gives_no_source_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    add_package(tmp_path, monkeypatch, code, "[talking_points.sources]\nbirds = my_package.birds:Birds\n")
    with pytest.raises(SourceError, match=told):
        open_source("birds", tmp_path)
    with pytest.raises(SourceError, match="birds; found 'bird'"):
        open_source("bird", tmp_path)


@pytest.mark.parametrize("name", ["refcoco", "ap10k", "birds"])
def test_a_build_takes_sources_with_parts_only(name: str) -> None:
    with pytest.raises(ConfigError, match=f"no part-annotated source '{name}': expected one of .*coco_parts"):
        load_config(BuildConfig, None, ["output=x", f"sources.{name}.root=/data"])


def test_published_names_keep_their_numbers() -> None:
    assert declare_labels(SOURCES[:2]) == LABELS[:3] == ("pascal_part116", "ade20k_part234", "partimagenet")
    assert declare_labels(["coco_parts", "partimagenet"]) == LABELS
    assert [source_label(name) for name in ("partimagenet", "coco_parts", "birds")] == [*LABELS[2:4], "added"]
