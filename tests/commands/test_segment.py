"""``segment`` on a tiny segmenter that writes what it is told to, as people call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import commands.cli  # noqa: F401  (adds the commands to the application)
from commands.console import app
from talking_points.examples.points import PointSet
from talking_points.grounding.grammar import read_lenient
from talking_points.models.image_text import ImageTextSegmenter
from talking_points.models.localizer import PointLocalizer
from talking_points.models.presets import train_tokenizer
from talking_points.models.segmenter import Segmenter
from talking_points.models.segmenter_presets import add_lattice, segmenter_config
from tests.training.conftest import small, write_dataset

SQUARE = "[[[0.250, 0.250], [0.750, 0.250], [0.750, 0.750], [0.250, 0.750]]]"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An image that is 90 x 60 as it is displayed, and the option that names a model."""
    root = tmp_path_factory.mktemp("segment")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["the dog"], 400)
    add_lattice(tokenizer, 32)
    model = Segmenter(segmenter_config(tokenizer, 64, 2, 32))
    model.tokenizer = tokenizer
    model.save_pretrained(root / "model")
    turned = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 60, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(root / "image.jpg", exif=exif)
    return [str(root / "image.jpg"), "--model", str(root / "model")]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["segment", *arguments])
    return result.exit_code, result.stderr if result.exit_code else result.stdout


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the model answers, the first of the list; the questions are put behind it."""
    texts = [SQUARE]

    def answer(self: Segmenter, images: list[Image.Image], questions: list[str], **_: object) -> list[str]:
        assert [image.size for image in images] == [(90, 60)]
        texts.extend(questions)
        return [texts[0]]

    monkeypatch.setattr(Segmenter, "answer", answer)
    return texts


@pytest.mark.parametrize(
    ("asked", "question"),
    [
        (["the  do\u200bg's head"], "the dog's head"),
        (["--point", "44.5", "29.5"], "at [0.500, 0.500]"),
        (["--box", "9", "6", "45", "30"], "in [0.100, 0.100, 0.600, 0.600]"),
    ],
)
def test_words_a_point_or_a_box_are_asked_with(
    given: list[str], says: list[str], tmp_path: Path, asked: list[str], question: str
) -> None:
    figure, mask = tmp_path / "figure.png", tmp_path / "mask.png"
    code, output = run(*given, *asked, "--figure", str(figure), "--mask", str(mask))
    assert code == 0, output
    assert output.strip() == SQUARE
    assert says[1:] == [question]
    with Image.open(mask) as drawn:
        assert drawn.size == (90, 60)
        assert np.count_nonzero(np.asarray(drawn)) == pytest.approx(45 * 30, rel=0.05)
    with Image.open(figure) as drawn:
        assert drawn.width == 640


@pytest.mark.parametrize(
    ("text", "error", "truncated"),
    [
        (SQUARE, None, False),
        (f"It is here: {SQUARE}.", None, False),
        (SQUARE.replace(", [", ",\n["), None, False),
        (SQUARE.removesuffix("]]]"), "unclosed", True),
        (f"{SQUARE} and {SQUARE}", "several_lists", False),
    ],
)
def test_json_says_what_was_read(
    given: list[str], says: list[str], text: str, error: str | None, truncated: bool
) -> None:
    says[0] = text
    code, output = run(*given, "the dog", "--json")
    assert code == 0, output
    found = json.loads(output)
    assert (found["error"], found["truncated"]) == (error, truncated)
    assert found["outlines"][0][0][0] == [22.5, 15.0]
    assert found["box"][:2] == [22.5, 15.0]
    assert found["area"] > 600


@pytest.mark.parametrize(
    ("text", "coordinates"),
    [
        (SQUARE.replace(" ", "\n "), "unit"),
        ("[[[250, 250], [750, 250], [750, 750], [250, 750]]]", "thousand"),
        (f"{SQUARE} {SQUARE}", "unit"),
    ],
)
def test_what_is_printed_is_one_line_of_the_grammar(
    given: list[str], says: list[str], monkeypatch: pytest.MonkeyPatch, text: str, coordinates: str
) -> None:
    says[0] = text
    if coordinates == "thousand":  # as a foreign model would write
        monkeypatch.setattr(Segmenter, "scale", lambda *_: (1000.0, 1000.0))
    code, output = run(*given, "the dog", "--coordinates", coordinates)
    assert code == 0, output
    assert output.count("\n") == 1
    assert output.startswith(SQUARE[:-1])


@pytest.mark.parametrize(
    ("asked", "written"),
    [(["--point", "44.5", "14.5"], "[500, 250]"), (["--box", "9", "6", "45", "30"], "[100, 100, 600, 600]")],
)
def test_a_foreign_model_is_asked_in_the_coordinates_that_it_writes(
    given: list[str], says: list[str], monkeypatch: pytest.MonkeyPatch, asked: list[str], written: str
) -> None:
    says[0] = "[[[250, 250], [750, 250], [750, 750], [250, 750]]]"
    monkeypatch.setattr(Segmenter, "scale", lambda *_: (1000.0, 1000.0))
    code, output = run(*given, *asked, "--coordinates", "thousand")
    assert code == 0, output
    assert written in says[1]


@pytest.mark.parametrize("coordinates", ["thousand", "pixels"])
def test_coordinates_that_the_model_does_not_write_are_refused(
    given: list[str], says: list[str], coordinates: str
) -> None:
    code, message = run(*given, "the dog", "--coordinates", coordinates)
    assert code == 2
    assert f"writes shares of the image's size (unit), found {coordinates}" in " ".join(message.split())
    assert says == [SQUARE], "nothing is asked"


def test_what_cannot_be_read_is_shown_and_is_no_success(given: list[str], says: list[str]) -> None:
    says[0] = "I see \x1b nothing"
    code, message = run(*given, "the dog")
    assert code == 2
    assert "no_list" in message
    assert "\x1b" not in message
    assert "nothing" in message
    result = CliRunner().invoke(app, ["segment", *given, "the dog", "--json"])
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert (found["answer"], found["error"], found["outlines"], found["area"]) == (says[0], "no_list", [], 0)


def test_points_of_outlines_are_scored_beside_those_of_a_localizer(
    given: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dataset = write_dataset(tmp_path / "points", split="test", places=[(24.5, 19.5), (24.5, 16.0), (0.0, 39.0)])
    small(PointLocalizer).save_pretrained(tmp_path / "localizer")
    asked: list[str] = []

    def answer(self: Segmenter, images: list[Image.Image], questions: list[str], **_: object) -> list[str]:
        assert {image.size for image in images} == {(50, 40)}
        asked.extend(questions)
        return [SQUARE, SQUARE, "no"][: len(images)]

    monkeypatch.setattr(Segmenter, "answer", answer)
    images = PointSet.images
    shown: list[int] = []

    def decode(points: PointSet, wanted: set[str]) -> Any:
        shown.append(len(wanted))
        return images(points, wanted)

    monkeypatch.setattr(PointSet, "images", decode)
    command = ["outline-points", str(dataset), "--segmenter", given[2], "--localizer", str(tmp_path / "localizer")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert asked == ["text 0", "text 1", "text 2"], "the sentence about a point is the expression"
    assert (found["points"], found["without_outline"]) == (3, 1)
    assert set(found["scores"]) == {"centroid", "innermost", "localizer"}
    assert found["scores"]["centroid"]["PCK@0.1"] == pytest.approx(200 / 3)
    assert 0 <= found["scores"]["localizer"]["mPCK"] <= 100
    result = CliRunner().invoke(app, [*command, "--limit", "2", "--batch-size", "1"])
    assert result.exit_code == 0, result.stderr
    assert shown[1:] == [1, 1], "images of one batch are in memory at a time"


def test_outlines_of_a_foreign_model_are_scored_in_its_units(
    given: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    foreign = tmp_path / "qwen"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    dataset = write_dataset(tmp_path / "points", split="test", places=[(24.5, 19.5)])
    square = read_lenient(SQUARE).outlines

    class Foreign(ImageTextSegmenter):
        segment = lambda *_: [square]  # noqa: E731
        scale = lambda self, *_: (1000.0, 1000.0) if self.coordinates == "thousand" else (1.0, 1.0)  # noqa: E731

    monkeypatch.setattr(
        ImageTextSegmenter, "from_pretrained", lambda *_, coordinates, **__: Foreign(None, None, coordinates)
    )
    command = ["outline-points", str(dataset), "--segmenter", str(foreign), "--coordinates"]
    for coordinates, code in (("thousand", 0), ("unit", 0), ("miles", 2)):
        result = CliRunner().invoke(app, [*command, coordinates])
        assert result.exit_code == code, result.stderr
    assert "expected unit, thousand or pixels" in result.stderr


@pytest.mark.parametrize("kind", ["tiny", "foreign"])
def test_no_new_tokens_are_not_taken_for_the_default(given: list[str], kind: str) -> None:
    image, model = Image.new("RGB", (9, 6)), Segmenter.from_pretrained(given[2])
    if kind == "tiny":
        with pytest.raises(ValueError, match="0"):
            model.segment([image], ["the dog"], max_new_tokens=0)
        return
    other = ImageTextSegmenter(MagicMock(), MagicMock(), max_new_tokens=7)
    other.encode = lambda *_: MagicMock()  # type: ignore[method-assign]
    for limit in (0, None):
        other.answer([image], ["the dog"], max_new_tokens=limit)
    assert [call.kwargs["max_new_tokens"] for call in other.model.generate.call_args_list] == [0, 7]


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ([], "found none"),
        (["dog", "--point", "1", "1"], "words and --point"),
        ([" "], "expected words"),
        (["..."], "expected words"),
        (["dog " * 1000], "at most 1,000 characters"),
        (["--point", "90", "10"], "90x60"),
        (["--point", "nan", "10"], "90x60"),
        (["--box", "0", "0", "0", "5"], "90x60"),
        (["--box", "80", "0", "20", "5"], "90x60"),
        (["--box", "nan", "0", "20", "5"], "90x60"),
        (["dog", "--mask", "mask.jpg"], ".png"),
        (["dog", "--mask", "nowhere/mask.png"], "make it first"),
        (["dog", "--figure", "figure.txt"], "--figure"),
        (["dog", "--coordinates", "miles"], "thousand"),
        (["dog", "--model", ""], "--model"),
        (["dog", "--model", "nowhere"], "nowhere"),
    ],
)
def test_everyday_mistakes_are_told_in_words(given: list[str], asked: list[str], named: str) -> None:
    code, message = run(*given, *asked)
    assert code == 2, message
    assert named in message
    assert "Traceback" not in message
