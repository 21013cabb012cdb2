"""A build of a user's own annotations beside a published source: all readers know the names of its rows."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from talking_points.dataset_manifest import read_manifest
from talking_points.dataset_schema import features
from talking_points.examples.points import load_points
from talking_points.instructions.rows import read_instructions
from talking_points.publishing.quality import read_rows
from talking_points.records import LABELS
from talking_points.sources import own_images
from talking_points.sources.protocol import SourceError
from tests.blocks import OUTLINED, ROOT, printed_by
from tests.flows.building import build
from tests.sources.test_own_images import HEIGHT, WIDTH, Halves
from tests.sources.trees import annotation, coco, image_entry, write_json

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("orchestrator")]


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Eight images of a bird with a wing, textured differently."""
    root = tmp_path / "birds"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(8):
        small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(root / "images" / f"{number}.png")
        images.append(image_entry(number, f"{number}.png", 320, 240))
        annotations.append(annotation(2 * number, number, 1, (40, 30, 240, 180)))
        annotations.append(annotation(2 * number + 1, number, 2, (80 + 5 * number, 60, 120, 100)))
    write_json(
        root / "own.json", coco(images, annotations, [{"id": 1, "name": "bird"}, {"id": 2, "name": "bird's wing"}])
    )
    return root


def test_own_annotations_become_rows_with_a_label_of_their_own(
    birds: Path, drawn: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    roots = {"partimagenet": drawn["partimagenet"]}
    result = build(output, roots, f"sources.coco_parts.root={birds}", "sampling.near_duplicate_bits=0")
    assert result["rows"] > 0
    dataset = datasets.load_dataset(str(output))
    assert dataset["train"].features == features(LABELS)
    rows = [row for split in dataset.values() for row in split]
    own = [row for row in rows if LABELS[row["source"]] == "coco_parts"]
    assert {(row["object"], row["part"]) for row in own} == {("bird", "wing")}
    assert {LABELS[row["source"]] for row in rows} == {"partimagenet", "coco_parts"}
    manifest = read_manifest(output)
    assert manifest["sources"]["coco_parts"]["points"] == len(own)
    assert "Own annotations" in (output / "README.md").read_text()
    assert {row["source"] for row in read_rows(output)} == {"partimagenet", "coco_parts"}
    assert {example.source for example in load_points(output, "train").examples} == {"partimagenet", "coco_parts"}


def test_a_source_without_a_usable_image_is_named_with_the_reasons(birds: Path, tmp_path: Path) -> None:
    """No shard fails then, and no other run of the same build could do better."""
    for path in (birds / "images").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"coco_parts .*\(unreadable_image: 8\)") as unreadable:
        build(tmp_path / "unreadable", {}, f"sources.coco_parts.root={birds}")
    annotations = (birds / "own.json").read_text()
    (birds / "own.json").write_text(annotations.replace('"file_name": "', '"file_name": "../'))
    with pytest.raises(SourceError, match=rf"coco_parts at {birds}: path_outside_root: 8") as unlisted:
        build(tmp_path / "unlisted", {}, f"sources.coco_parts.root={birds}")
    for error in (unreadable.value, unlisted.value):
        assert "again" not in str(error)


def test_images_alone_become_questions_and_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of docs/own_data.md, on images of a street and a segmenter that is told what to say."""
    model = tmp_path / "build" / "train-segmenter" / "refined"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "street").mkdir()
    rng = np.random.default_rng(1)
    for number in range(6):
        small = Image.fromarray(rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8))
        small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(tmp_path / "street" / f"{number}.jpg")
    opened: list[str] = []

    def open_halves(name: str) -> Halves:
        opened.append(name)
        return Halves()

    monkeypatch.setattr(own_images, "open_point_segmenter", open_halves)
    monkeypatch.chdir(tmp_path)
    (block,) = printed_by(OUTLINED)
    for line in block.commands:
        _, command, *options = shlex.split(line)
        assert options[::2] == ["--set"] * 3
        kind, config = {"build": ("llamapointinpart", "rules"), "build-instructions": ("instructions", "instructions")}[
            command
        ]
        flow = getattr(importlib.import_module(f"flows.build_{kind}"), f"build_{kind}")
        assert flow(str(ROOT / "configs" / "build" / f"{config}.yaml"), options[1::2])["rows"] > 0
    assert set(opened) == {"build/train-segmenter/refined"}
    assert {row.expression for row in read_instructions("build/street")} == {"the cat", "the dog"}
    rows = list(read_rows(Path("build/street-points")))
    assert {(row["object"], row["part"]) for row in rows} == {("cat", "surface"), ("dog", "surface")}
