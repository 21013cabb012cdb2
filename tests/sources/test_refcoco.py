"""refCOCO, refCOCO+ and refCOCOg in their true layouts, whole and broken in the ways that real copies are."""

from __future__ import annotations

import json
import os
import pickle
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask

from talking_points.sources import Source, SourceError, open_source
from talking_points.sources.refcoco import SETS, SPLITS, RefCoco, find_evaluated_images, list_unseen_sets
from talking_points.sources.refs import read_pickled_refs
from tests.sources.trees import (
    HEIGHT,
    WIDTH,
    annotation,
    coco_name,
    image_entry,
    rectangle_polygon,
    ref,
    refcoco_tree,
    refs_file,
)


def read(root: Path, name: str = "refcoco", split: str | None = None, **options: Any) -> tuple[dict, Source]:
    """(image id, annotation's place in the image) -> expressions, and the source for what it counted."""
    source = open_source(name, root, split, **options)
    return {r.image_id: [list(o.expressions) for o in r.objects] for r in source}, source


TRAIN, VAL, TEST_A = (f"{split}/{Path(coco_name(n)).stem}" for n, split in enumerate(("train", "val", "testA"), 1))


def test_objects_carry_what_people_call_them(tmp_path: Path) -> None:
    source = open_source("refcoco", refcoco_tree(tmp_path))
    records = {record.image_id: record for record in source}
    assert list(records) == [TEST_A, TRAIN, VAL]
    assert source.skipped == {}
    left, right = records[TRAIN].objects
    assert (left.name, left.label, left.id, left.bbox) == ("dog", "dog", 18, (5, 10, 10, 20))
    assert (left.expressions, right.expressions) == (("left dog",), ("right dog", "the dog on the right"))
    assert left.instance_exact
    assert left.mask is not None
    assert left.mask.sum() == 200
    assert left.mask[10:30, 5:15].all()
    assert records[TRAIN].image_path.name == coco_name(1)  # not what the refs file says
    assert records[TRAIN].annotation_path == "refcoco/instances.json"


@pytest.mark.parametrize("folder", ["images/train2014", "images/mscoco/images/train2014", "train2014"])
@pytest.mark.parametrize("above", [0, 1])
def test_layouts(tmp_path: Path, folder: str, above: int) -> None:
    refcoco_tree(tmp_path / "refer", image_folder=folder)
    assert len(read(tmp_path if above else tmp_path / "refer")[0]) == 3


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_found_below_the_same_root(tmp_path: Path, name: str) -> None:
    for other, folders in SETS.items():
        split_by = next(iter(SPLITS[other]))
        refs = [ref(1, 11, 1, "train", other), ref(2, 21, 2, "val", "x")]
        refcoco_tree(tmp_path, refs, folder=folders[0], split_by=split_by)
    assert read(tmp_path, name)[0] == {TRAIN: [[name]], VAL: [["x"]]}


def test_splits_by_their_own_and_generic_names(tmp_path: Path) -> None:
    refcoco_tree(tmp_path)
    for split, expected in {"testA": TEST_A, "testa": TEST_A, "val": VAL, "validation": VAL, "train": TRAIN}.items():
        assert list(read(tmp_path, split=split)[0]) == [expected]
    for wrong in ("test", "all", ""):
        with pytest.raises(SourceError, match=r"expected a split of refcoco \(unc\) of train, val, testA, testB"):
            open_source("refcoco", tmp_path, wrong)
    with pytest.raises(SourceError, match="expected split_by of unc, google"):
        open_source("refcoco", tmp_path, split_by="umd")


def test_the_google_division_is_for_training_only(tmp_path: Path) -> None:
    refs = [ref(1, 11, 1, "train", "left dog"), ref(2, 12, 1, "val", "right dog")]
    refcoco_tree(tmp_path, refs, folder="refcocog", split_by="google")
    assert read(tmp_path, "refcocog", "train", split_by="google")[0] == {TRAIN: [["left dog"]]}
    for split in (None, "val", "test"):
        with pytest.raises(SourceError, match="train"):
            open_source("refcocog", tmp_path, split, split_by="google")


def test_no_image_of_any_evaluation_split_is_trained_on(tmp_path: Path) -> None:
    train = [ref(n, 10 * n + 1, n, "train", f"dog {n}") for n in (1, 2, 3)]
    refcoco_tree(tmp_path, train)
    refcoco_tree(tmp_path, [ref(1, 21, 2, "testB", "dog")], folder="refcoco+")
    refcoco_tree(tmp_path, [ref(1, 31, 3, "test", "man")], folder="refcocog", split_by="umd")
    found, source = read(tmp_path)
    assert list(found) == [TRAIN]
    assert source.skipped == {"evaluation_image": 2}
    assert len(read(tmp_path, exclude_evaluation_images=False)[0]) == 3
    (tmp_path / "refcocog" / "refs(umd).p").unlink()
    source = read(tmp_path)[1]
    assert source.skipped == {"evaluation_image": 1}
    assert "not considered: refcocog" in source.skipped_details["evaluation_image"][0]


@pytest.mark.parametrize("kept", [{}, {"refs(google).p"}, {"data/train-00000-of-00001.parquet"}])
def test_a_folder_alone_says_nothing_of_what_a_set_evaluates_on(tmp_path: Path, kept: set[str]) -> None:
    refcoco_tree(tmp_path)
    (tmp_path / "refcocog/data").mkdir(parents=True)
    for name in kept:
        rows = [ref(1, 11, 1, "train", "left dog")]
        if name.endswith(".p"):
            refs_file(tmp_path / "refcocog" / name, rows)
        else:
            mirror(tmp_path / "refcocog" / name, rows, [annotation(11, 1, 18, (5, 10, 10, 20))])
    assert find_evaluated_images(tmp_path, "refcocog") is None
    assert list_unseen_sets(tmp_path) == ["refcoco_plus", "refcocog"]


@pytest.mark.parametrize("as_written", [int, float])
def test_a_mirrors_image_ids_may_have_gone_through_floating_point(tmp_path: Path, as_written: type) -> None:
    rows = [{**ref(1, 21, 2, "validation", "dog")}]
    mirror(tmp_path / "refcocog/validation-0.parquet", rows, [annotation(21, 2, 18, (5, 10, 10, 20))])
    path = tmp_path / "refcocog/validation-0.parquet"
    table = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([{**row, "image_id": as_written(row["image_id"])} for row in table]), path)
    assert find_evaluated_images(tmp_path, "refcocog") == {2}


@pytest.mark.parametrize("as_written", [float, str])
def test_category_ids_are_read_as_annotations_have_them(tmp_path: Path, as_written: type) -> None:
    refcoco_tree(tmp_path)
    instances = tmp_path / "refcoco/instances.json"
    content = json.loads(instances.read_text())
    for item in content["categories"]:
        item["id"] = as_written(item["id"])
    for item in content["annotations"]:
        item["category_id"] = as_written(item["category_id"])
    instances.write_text(json.dumps(content))
    found, source = read(tmp_path)
    assert (len(found), source.skipped) == (3, {})


def test_an_image_in_two_splits_of_one_set_is_evaluated_on_only(tmp_path: Path) -> None:
    refs = [ref(1, 11, 1, "train", "left dog"), ref(2, 12, 1, "val", "right dog")]
    found, source = read(refcoco_tree(tmp_path, refs))
    assert found == {TRAIN.replace("train/", "val/"): [["right dog"]]}
    assert source.skipped == {"evaluation_image": 1}


def test_a_mask_is_the_union_of_its_pieces(tmp_path: Path) -> None:
    parts = [rectangle_polygon(5, 10, 10, 20), rectangle_polygon(10, 10, 10, 20), [1.0, 2.0]]
    whole = np.zeros((HEIGHT, WIDTH), np.bool_)
    whole[10:30, 5:20] = True
    runs = coco_mask.encode(np.asfortranarray(whole.view(np.uint8)))
    runs = {"size": runs["size"], "counts": runs["counts"].decode()}
    half = coco_mask.encode(np.asfortranarray((whole & (np.arange(WIDTH) < 12)).view(np.uint8)))
    half = {"size": half["size"], "counts": half["counts"].decode()}
    for segmentation in (parts, runs, [runs], [half, rectangle_polygon(10, 10, 10, 20)]):
        annotations = [annotation(11, 1, 18, (5, 10, 15, 20), segmentation=segmentation, iscrowd=1)]
        refcoco_tree(tmp_path, [ref(1, 11, 1, "train", "dog")], annotations, images=[1])
        (record,) = open_source("refcoco", tmp_path)
        assert record.objects[0].mask is not None
        assert (record.objects[0].mask == whole).all()


def test_what_cannot_be_used_is_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    refs: list[Any] = [
        ref(1, 11, 1, "train", "left dog"),
        ref(2, 99, 1, "train", "no such annotation"),
        ref(3, 41, 4, "train", "no such image"),
        ref(4, 12, 1, "train"),
        ref(5, 12, 1, "train", "", "  ", "..."),
        ref(6, 12, 1, "train", "x", sentences="dog"),
        ref(7, 12, 1, "restval", "dog"),
        {**ref(8, 12, 1, "train", "dog"), "ann_id": "12"},
        ref(9, 12, 2**70, "train", "dog"),
        {**ref(10, 12, 1, "train", "dog"), "split": None},
        "nonsense",
        ref(11, 51, 1, "train", "nothing is drawn"),
        ref(12, 52, 1, "train", "two points"),
        ref(13, 53, 1, "train", "what is it"),
        ref(14, 54, 1, "train", "a flat box"),
        ref(15, 21, 2, "train", "the file is gone"),
        {**ref(16, 31, 3, "train"), "ann_id": 31.0, "sentences": [{"raw": "Upright MAN"}, 7, {"sent": None}]},
    ]
    annotations = [
        *(annotation(10 * image + 1, image, 18, (5, 5, 10, 10)) for image in (1, 2, 3, 4)),
        annotation(12, 1, 18, (5, 5, 10, 10)),
        annotation(51, 1, 18, (5, 5, 10, 10), segmentation=[[0.1, 0.1, 0.2, 0.1, 0.2, 0.2]]),
        annotation(52, 1, 18, (5, 5, 10, 10), segmentation=[[1, 1, 9, 9]]),
        annotation(53, 1, 77, (5, 5, 10, 10)),
        annotation(54, 1, 18, (5, 5, 10, 10), bbox=[5, 5, 0, 10]),
    ]
    root = refcoco_tree(tmp_path, refs, annotations)
    (root / "images" / "train2014" / coco_name(2)).unlink()
    found, source = read(root)
    assert found == {TRAIN: [["left dog"]], f"train/{Path(coco_name(3)).stem}": [["upright man"]]}
    assert source.skipped == {
        "ref_without_annotation": 1,
        "ref_without_image": 1,
        "ref_without_sentence": 2,
        "malformed_ref": 5,
        "unknown_split": 1,
        "empty_object": 1,
        "degenerate_outline": 1,
        "unknown_category": 1,
        "degenerate_box": 1,
        "missing_image": 1,
    }


@pytest.mark.parametrize(("width", "height"), [(0, 40), (60, 0), (40, 60), (61, 40)])
def test_an_image_of_another_size_is_left_out(tmp_path: Path, width: int, height: int) -> None:
    root = refcoco_tree(tmp_path)
    listed = json.loads((root / "refcoco" / "instances.json").read_text())
    listed["images"][0] = image_entry(1, coco_name(1), width, height)
    (root / "refcoco" / "instances.json").write_text(json.dumps(listed))
    found, source = read(root)
    assert list(found) == [TEST_A, VAL]
    assert sum(source.skipped.values()) == 1
    assert next(iter(source.skipped)).startswith("size_")


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_hostile_refs_file_runs_nothing(tmp_path: Path) -> None:
    root = refcoco_tree(tmp_path / "data", [ref(1, 11, 1, "train", "dog"), Harm(tmp_path / "harm")])
    with pytest.raises(SourceError, match=r"GLOBAL.*refused as unsafe"):
        list(open_source("refcoco", root))
    assert not (tmp_path / "harm").exists()


def test_a_refs_file_that_is_endless_to_print_is_refused_at_once(tmp_path: Path) -> None:
    tree: Any = ["x"]
    for _ in range(200):
        tree = [tree, tree]
    good = ref(1, 11, 1, "train", "dog")
    refs = [good, tree, {**good, "ann_id": tree}, {**good, "split": tree}, {**good, "sentences": [tree]}]
    found, source = read(refcoco_tree(tmp_path, refs))
    assert found == {TRAIN: [["dog"]]}
    assert source.skipped == {"malformed_ref": 3, "ref_without_sentence": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged at byte"),
        (pickle.dumps({"refs": []}), "expected a list of references.*found dict"),
        (pickle.dumps([{"ref_id": 1, "ann_id": 2}]), "missing: image_id, sentences, split"),
        (pickle.dumps([1, 2]), "missing: ann_id"),
        (b'[{"ref_id": 1}]', "refused as unsafe"),
    ],
)
def test_what_is_no_refs_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    root = refcoco_tree(tmp_path)
    (root / "refcoco" / "refs(unc).p").write_bytes(content)
    with pytest.raises(SourceError, match=f"(?s){message}"):
        list(open_source("refcoco", root))


def test_references_are_counted_beside_the_published_numbers(tmp_path: Path) -> None:
    refcoco_tree(tmp_path)
    refcoco_tree(tmp_path, [ref(1, 11, 1, "train", "dog")] * 2, folder="refcocog", split_by="google")
    source = read(tmp_path)[1]
    assert isinstance(source, RefCoco)
    assert source.counts() == {"train": (2, 42_404), "val": (1, 3_811), "testA": (1, 1_975), "testB": (0, 1_810)}
    source = read(tmp_path, "refcocog", "train", split_by="google")[1]
    assert isinstance(source, RefCoco)
    assert source.counts() == {"train": (2, None), "val": (0, None)}


def test_an_empty_refs_file_has_no_images(tmp_path: Path) -> None:
    assert read(refcoco_tree(tmp_path, []))[0] == {}


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r'"refcoco/refs\(unc\).p" with "instances.json"'):
        open_source("refcoco", tmp_path)
    root = refcoco_tree(tmp_path / "a")
    (root / "refcoco" / "instances.json").unlink()
    with pytest.raises(SourceError, match=r'expected "instances.json" beside'):
        list(open_source("refcoco", root))
    refs_file(tmp_path / "b" / "refcoco" / "refs(unc).p", [])
    with pytest.raises(SourceError, match="images of COCO's train2014"):
        open_source("refcoco", tmp_path / "b")


def mirror(path: Path, refs: Sequence[Mapping[str, Any]], annotations: list[Any], names: tuple[str, ...] = ()) -> None:
    """A Parquet file with whole annotations in each row, as mirrors give them; boxes are in another form there."""
    by_id = {item["id"]: item for item in annotations}
    rows = [
        {
            **{key: value for key, value in entry.items() if key != "tokens"},
            "raw_anns": json.dumps(by_id[entry["ann_id"]]),
            "raw_image_info": json.dumps(image_entry(entry["image_id"], coco_name(entry["image_id"]))),
            "bbox": [0.0, 0.0, 1.0, 1.0],
        }
        for entry in refs
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.drop_columns(list(names)), path)


def test_parquet_mirrors(tmp_path: Path) -> None:
    annotations = [annotation(n, n // 10, 18, (5, 10, 10, 20)) for n in (11, 12, 21, 31)]
    train = [ref(1, 12, 1, "train", "Right"), ref(2, 11, 1, "train", "left"), ref(3, 12, 1, "train", "b")]
    files = {
        "train-00000-of-00001": train,
        "validation-00000-of-00001": [ref(4, 21, 2, "validation", "dog")],
        "test-00000-of-00001": [ref(5, 31, 3, "test", "man")],
    }
    refcoco_tree(tmp_path)
    for folder in ("refcocoplus/data", "refcocog"):
        for name, refs in files.items():
            mirror(tmp_path / folder / f"{name}.parquet", refs, annotations)
    found, source = read(tmp_path, "refcoco_plus")
    assert found == {TEST_A: [["man"]], TRAIN: [["left"], ["right", "b"]], VAL: [["dog"]]}
    assert source.skipped == {}
    (record,) = open_source("refcoco_plus", tmp_path, "testA")
    assert record.objects[0].name == "dog"
    assert record.objects[0].bbox == (5, 10, 10, 20)
    assert list(read(tmp_path, "refcocog")[0]) == [TEST_A.replace("testA", "test"), TRAIN, VAL]


def test_rows_of_a_mirror_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    refs = [ref(n, n, 1, "val", f"dog {n}") for n in range(11, 18)]
    broken = {
        12: '{"id": 12, "image_id": 1, "category_id": 18, "segmentation": [[1, 2',
        13: "[]",
        14: '{"id": 14, "image_id": 1, "category_id": 18, "note": "\\ud800"}',
        15: '{"id": 15, "image_id": 1, "category_id": 18, "segmentation": [[' + ",".join(["1" + "0" * 400] * 6) + "]]}",
        16: "[" * 100_000,
        17: json.dumps(annotation(99, 1, 18, (5, 5, 9, 9))),
    }
    refcoco_tree(tmp_path)
    path = tmp_path / "refcocog" / "val.parquet"
    mirror(path, refs, [annotation(n, 1, 18, (5, 5, 9, 9)) for n in range(11, 18)])
    rows = pq.read_table(path).to_pylist()
    pq.write_table(
        pa.Table.from_pylist([{**r, "raw_anns": broken.get(r["ann_id"], r["raw_anns"])} for r in rows]), path
    )
    found, source = read(tmp_path, "refcocog", "val")
    assert list(found.values()) == [[["dog 11"]]]
    assert source.skipped == {"malformed_ref": 4, "malformed_outline": 1, "ref_without_annotation": 1}


def test_damaged_and_poorer_mirrors(tmp_path: Path) -> None:
    refcoco_tree(tmp_path)
    (tmp_path / "refcoco" / "refs(unc).p").unlink()
    path = tmp_path / "refcoco" / "val-00000-of-00001.parquet"
    mirror(path, [ref(1, 11, 1, "val", "dog")], [annotation(11, 1, 18, (5, 5, 9, 9))], ("raw_anns",))
    with pytest.raises(SourceError, match="missing: raw_anns"):
        list(open_source("refcoco", tmp_path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match="cannot read"):
        list(open_source("refcoco", tmp_path))


def peak(root: Path) -> int:
    tracemalloc.start()
    assert len(list(open_source("refcoco", root))) == 1
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return used


def test_memory_does_not_grow_with_the_annotations(tmp_path: Path) -> None:
    outline = [5.0, 5.0] * 120 + rectangle_polygon(5, 5, 20, 20)
    peaks, sizes = [], []
    for count in (300, 6000):
        annotations = [
            annotation(n, n // 10 + 1, 18, (5, 5, 20, 20), segmentation=[outline]) for n in range(1, count + 1)
        ]
        root = refcoco_tree(tmp_path / str(count), [ref(1, 1, 1, "val", "dog")], annotations, images=[1])
        listed = json.loads((root / "refcoco" / "instances.json").read_text())
        listed["images"] = [image_entry(n, coco_name(n)) for n in range(1, 602)]
        (root / "refcoco" / "instances.json").write_text(json.dumps(listed))
        del listed, annotations
        sizes.append((root / "refcoco" / "instances.json").stat().st_size)
        peaks.append(min(peak(root) for _ in range(3)))
    # Other threads of the process take some meanwhile: little beside what the file has grown by.
    assert peaks[1] - peaks[0] < 0.1 * (sizes[1] - sizes[0])


def test_one_long_text_said_thousands_of_times_costs_nothing(tmp_path: Path) -> None:
    sentence = {"sent": "x" * 1_000_000, "raw": "", "sent_id": 1, "tokens": []}
    ref = {"ann_id": 1, "image_id": 1, "ref_id": 1, "split": "train", "category_id": 1, "file_name": ""}
    entries = [{**ref, "sentences": [sentence] * 4000}, {**ref, "sentences": [sentence, {"sent": "the dog"}]}]
    (tmp_path / "refs.p").write_bytes(pickle.dumps(entries, 4))
    skipped: list[str] = []
    refs = read_pickled_refs(tmp_path / "refs.p", lambda reason, detail: skipped.append(reason))
    assert [found.expressions for found in refs] == [("the dog",)]
    assert skipped == ["malformed_ref"]
