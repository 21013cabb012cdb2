"""What holds for every source: entries stand alone, order is fixed, reasons are documented."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import talking_points.sources
from talking_points.sources import READERS, SkippedImage, SourceEntry, SourceError, open_source, refcoco
from talking_points.sources.reasons import SKIP_REASONS
from tests.sources.trees import (
    ade_tree,
    animal,
    annotation,
    ap10k_tree,
    coco,
    image_entry,
    pascal_tree,
    pin_tree,
    ref,
    refcoco_tree,
    write_image,
    write_json,
)


def tree(name: str, root: Path) -> Path:
    if name == "pascal_part116":
        return pascal_tree(root)
    if name == "ade20k_part234":
        return ade_tree(root)
    if name == "partimagenet":
        return pin_tree(root)
    if name == "ap10k":
        return ap10k_tree(root, train=([image_entry(1, "1.jpg")], [animal(1, 1, 8)]))
    if name == "coco_keypoints":
        write_image(root / "images" / "1.jpg")
        categories = [{"id": 8, "name": "dog", "keypoints": [f"spot {word}" for word in "abcdefghijklmnopq"]}]
        write_json(root / "annotations" / "dogs.json", coco([image_entry(1, "1.jpg")], [animal(1, 1, 8)], categories))
        return root
    if name in ("coco_parts", "images"):
        write_image(root / "images" / "1.jpg")
        annotations = [annotation(1, 1, 8, (2, 2, 40, 30)), annotation(2, 1, 9, (5, 5, 10, 10))]
        categories = [{"id": 8, "name": "dog"}, {"id": 9, "name": "dog's head"}]
        write_json(root / "annotations" / "own.json", coco([image_entry(1, "1.jpg")], annotations, categories))
        return root
    if name in refcoco.SETS:
        only = [ref(1, 11, 1, "train", "a dog")]
        division = next(iter(refcoco.SPLITS[name]))
        return refcoco_tree(root, only, images=[1], folder=refcoco.SETS[name][0], split_by=division)
    write_image(root / "images" / "camel_face" / "1.jpg")
    write_json(
        root / "annotations" / "mp100_split1_train.json",
        coco([image_entry(1, "camel_face/1.jpg")], [animal(1, 1, 2)]),
    )
    return root


READ_ELSEWHERE = """
import json, sys
from talking_points.sources import SourceEntry, open_source
name, root, entry = sys.argv[1:]
entry = json.loads(entry)
record = open_source(name, root).read(SourceEntry(**{**entry, "files": tuple(entry["files"])}))
print(json.dumps([record.image_id, [[o.label, o.bbox, [[p.label, p.bbox, int(p.mask.sum())] for p in o.parts]]
                                    for o in record.objects]]))
"""


@pytest.mark.parametrize("name", READERS)
def test_an_entry_is_read_alone_in_another_process(tmp_path: Path, name: str) -> None:
    source = open_source(name, tree(name, tmp_path))
    (entry,) = source.entries()
    (record,) = source
    assert entry.files[0] == entry.image_path
    assert all((source.root / file).is_file() for file in entry.files)
    done = subprocess.run(
        [sys.executable, "-c", READ_ELSEWHERE, name, str(tmp_path), json.dumps(asdict(entry))],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(talking_points.sources.__file__).parents[2],
    )
    regions = [
        [
            item.label,
            list(item.bbox),
            [[p.label, list(p.bbox), int(p.mask.sum())] for p in item.parts if p.mask is not None],
        ]
        for item in record.objects
    ]
    assert json.loads(done.stdout) == [record.image_id, regions]


@pytest.mark.parametrize("name", READERS)
def test_opening_decodes_nothing_and_iterating_twice_gives_the_same(tmp_path: Path, name: str) -> None:
    root = tree(name, tmp_path)
    for broken in (*root.rglob("*.jpg"), *root.rglob("*.JPEG")):
        broken.with_name(f"x_{broken.name}").write_bytes(b"not an image")
    source = open_source(name, root)
    assert source.skipped == {}
    first = list(source)
    counts = dict(source.skipped)
    assert [record.image_id for record in source] == [record.image_id for record in first]
    assert dict(source.skipped) == counts


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("path", ["../outside.jpg", "/etc/passwd", "gone.jpg"])
def test_a_changed_entry_cannot_leave_the_root(tmp_path: Path, name: str, path: str) -> None:
    write_image(tmp_path / "outside.jpg")
    source = open_source(name, tree(name, tmp_path / "root"))
    (entry,) = source.entries()
    changed = SourceEntry(entry.image_id, path, entry.split, (path, *entry.files[1:]), entry.annotation)
    with pytest.raises(SkippedImage) as skipped:
        source.read(changed)
    assert skipped.value.reason == ("missing_image" if path == "gone.jpg" else "path_outside_root")


@pytest.mark.parametrize("name", READERS)
def test_an_unknown_option_is_named_with_the_known_ones(tmp_path: Path, name: str) -> None:
    known = {"pascal_part116": "part_annotations", "ap10k": "partition, families", "mp100": "partition"}
    known["coco_keypoints"] = "annotations"
    known["coco_parts"], known["images"] = "objects, parts, images", "annotations, images, min_score"
    known |= dict.fromkeys(refcoco.SETS, "split_by, exclude_evaluation_images")
    with pytest.raises(SourceError, match=f"options of {name} of {known.get(name, 'none at all')}.*found mask"):
        open_source(name, tree(name, tmp_path), mask=True)


def reasons_in_code() -> dict[str, str]:
    """Every literal first argument of ``skip``, ``SkippedImage`` and the error classes with a reason."""
    found = {}
    for file in Path(talking_points.sources.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            function: Any = node.func
            name = getattr(function, "attr", None) or getattr(function, "id", "")
            if name in ("skip", "SkippedImage", "BadAnnotationError", "UnusableInstancesError"):
                for literal in ast.walk(node.args[0]):
                    if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                        found[literal.value] = file.name
    return found


def test_every_reason_is_documented_and_none_is_stale() -> None:
    found = reasons_in_code()
    assert len(found) > 20
    assert found.keys() <= SKIP_REASONS.keys(), found.keys() - SKIP_REASONS.keys()
    text = "".join(
        file.read_text() for file in Path(talking_points.sources.__file__).parent.glob("*.py") if file.stem != "reasons"
    )
    prefixed = {"label_size_mismatch", "label_size_transposed"}  # put together from "label_" and the rest
    assert {reason for reason in SKIP_REASONS if f'"{reason}"' not in text} <= prefixed
    assert all(reason == reason.lower() and " " not in reason for reason in SKIP_REASONS)
