"""Images without annotations: a model finds their objects, or outlines what only a box is known of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from talking_points.build_config import KeypointConfig
from talking_points.candidates.build import build_candidates
from talking_points.grounding.grammar import read_point
from talking_points.grounding.outlines import Point
from talking_points.sources import SourceError, open_source
from talking_points.sources.segmented import clean_answer, identify_weights
from tests.instructions.rows_of_images import make_rows

WIDTH, HEIGHT = 200, 100


class Halves:
    """Finds a cat on the left half of every image, a dog on the right, and writes what it is told to."""

    def __init__(self, says: str | None = None) -> None:
        self.says = says
        self.asked: list[str] = []

    def question(self, kind: str, **elements: str) -> str:
        return f"{kind} {elements['point']}"

    def scale(self, width: int, height: int) -> Point:
        return 1.0, 1.0

    def answer(self, images: Sequence[Any], questions: Sequence[str]) -> list[str]:
        assert all(image.size == (WIDTH, HEIGHT) for image in images)
        self.asked += questions
        return [self._answer(*question.split(" ", 1)) for question in questions]

    def _answer(self, kind: str, point: str) -> str:
        left = read_point(point)[0] < 0.5
        if kind == "point_to_text":
            return "It is the cat." if left else "a dog"
        if self.says is not None:
            return self.says
        low, high = (0.1, 0.45) if left else (0.55, 0.9)
        return f"[[[{low}, 0.1], [{high}, 0.1], [{high}, 0.9], [{low}, 0.9]]]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "below").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for name in ("b.png", "a.jpg", "below/c.PNG", "a.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.jpg").write_bytes(b"no image either")
    return tmp_path


def test_a_plain_folder_gets_its_objects_from_the_model(folder: Path) -> None:
    model = Halves()
    source = open_source("images", folder, segmenter=model, grid=4)
    records = list(source)
    assert [record.image_id for record in records] == ["all/a", "all/a.png", "all/b", "all/below/c"]
    assert source.skipped == {"unreadable_image": 1}
    for record in records:
        assert [(thing.name, thing.bbox) for thing in record.objects] == [
            ("cat", (20.0, 10.0, 70.0, 80.0)),
            ("dog", (110.0, 10.0, 70.0, 80.0)),
        ]
        assert record.objects[0].mask is not None
        assert record.objects[0].mask.sum() == 70 * 80
    assert len(model.asked) == 4 * (16 + 2)


def test_what_a_build_writes_into_the_folder_is_no_image_of_the_next(folder: Path) -> None:
    before = [entry.image_path for entry in open_source("images", folder, segmenter=Halves()).entries()]
    for place in ("built/.work", "built/figures", "dataset/data", "dataset/figures"):
        (folder / place).mkdir(parents=True)
    for name in ("manifest.json", "data/train-00000-of-00001.parquet"):
        (folder / "dataset" / name).write_text("{}")
    for place in ("built", "dataset"):
        shutil.copy(folder / before[0], folder / place / "figures" / "examples.png")
    assert [entry.image_path for entry in open_source("images", folder, segmenter=Halves()).entries()] == before


def test_its_objects_become_points_to_describe_and_instructions(folder: Path) -> None:
    record = next(iter(open_source("images", folder, segmenter=Halves(), parts="surface")))
    found, _ = build_candidates(record, "0" * 64, KeypointConfig(per="part"))
    assert {(row.object, row.part) for row in found} == {("cat", "surface"), ("dog", "surface")}
    plain = next(iter(open_source("images", folder, segmenter=Halves())))
    rows, dropped = make_rows(plain, seed=1)
    assert {row.expression for row in rows} == {"the cat", "the dog"}
    assert not dropped


def test_boxes_get_outlines_where_the_model_draws_about_the_box(folder: Path) -> None:
    boxes = {"cat": [18, 8, 74, 84], "tiny": [30, 30, 20, 20]}
    detections = {
        "images": [{"id": 1, "file_name": "b.png"}, {"id": 2, "file_name": "a.jpg"}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(boxes)],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": number, "bbox": box}
            for number, box in enumerate(boxes.values())
        ],
    }
    (folder / "found.json").write_text(json.dumps(detections))
    bare, boxed = open_source("images", folder, segmenter=Halves())
    assert [thing.name for thing in bare.objects] == ["dog", "cat"], "nothing is annotated there; most points are right"
    cat, tiny = boxed.objects
    assert cat.mask_exact
    assert cat.bbox == (20.0, 10.0, 70.0, 80.0)
    assert not tiny.mask_exact
    assert tiny.bbox == (30.0, 30.0, 20.0, 20.0)
    (alone,) = open_source("images", folder)
    assert [thing.mask_exact for thing in alone.objects] == [False, False]


@pytest.mark.parametrize(
    "says",
    ["", "no idea", "[[[0.1, 0.1], [0.1", "[[[5, 5], [6, 5], [6, 6]]]", "[[[0.5, 0.5], [0.501, 0.5], [0.5, 0.501]]]"],
)
def test_an_image_in_which_nothing_is_found_is_counted(folder: Path, says: str) -> None:
    source = open_source("images", folder, segmenter=Halves(says))
    assert list(source) == []
    assert source.skipped == {"nothing_found": 4, "unreadable_image": 1}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "expected COCO files"),
        ({"segmenter": Halves(), "grid": 0}, "grid as a whole number from 1 to 32"),
        ({"segmenter": Halves(), "grid": True}, "grid as a whole number"),
        ({"segmenter": Halves(), "parts": "all"}, "parts of none, surface"),
        ({"segmenter": Halves(), "split": "train"}, "the split 'all' alone"),
    ],
)
def test_what_is_missing_is_said(folder: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(SourceError, match=told):
        open_source("images", folder, **options)


def test_another_model_makes_the_listing_another(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = tmp_path_factory.mktemp("model")
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"one")
    before = [entry.annotation for entry in open_source("images", folder, segmenter=str(model)).entries()]
    (model / "model.safetensors").write_bytes(b"two")
    after = [entry.annotation for entry in open_source("images", folder, segmenter=str(model)).entries()]
    assert before != after
    assert identify_weights("org/name") == "org/name"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("It is the dog.", "dog"),
        ("That is the dog's head.", "dog's head"),
        ("The point is on the leftmost of two dogs.", "leftmost of two dogs"),
        ("", "object"),
        ("[0.1, 0.2]", "object"),
        ("x" * 61, "object"),
        ("\x1b[31mred", "object"),
        ("...", "object"),
    ],
)
def test_names_come_out_of_answers(text: str, name: str) -> None:
    assert clean_answer(text) == name
