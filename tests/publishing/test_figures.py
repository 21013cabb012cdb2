from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from talking_points.publishing.figures import (
    Example,
    acceptance_bars,
    composition_sunburst,
    example_grid,
    length_histogram,
)

COUNTS = {
    "pascal_part116": {"dog": {"head": 30, "tail": 9}, "potted plant": {"pot": 1}},
    "ade20k_part234": {"chest of drawers": {"drawer": 40}},
    "partimagenet": {"quadruped": {"head": 25, "foot": 15}},
}
GRADIENT = np.repeat(np.arange(120, dtype=np.uint8)[None, :, None], 80, axis=0).repeat(3, axis=2)
EXAMPLES = [
    Example(GRADIENT, (60.0, 40.0), "The point is on the dog, which spans most of the image. " * n)
    for n in (1, 2, 3, 4)
]

FIGURES: dict[str, Callable[[Path], None]] = {
    "composition": lambda path: composition_sunburst(COUNTS, path),
    "examples": lambda path: example_grid(EXAMPLES, path),
    "lengths": lambda path: length_histogram([3, 2, 3], path),
    "acceptance": lambda path: acceptance_bars({"accepted": 90, "too_long": 4, "contradicts_left_right": 6}, path),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES.keys())
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_input_gives_the_same_bytes(draw: Callable[[Path], None], suffix: str, tmp_path: Path):
    first, second = tmp_path / f"a/first{suffix}", tmp_path / f"b/second{suffix}"
    draw(first)
    draw(second)
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes()) > 1000


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES.keys())
def test_pngs_are_150_dpi_and_carry_no_software_or_date(draw: Callable[[Path], None], tmp_path: Path):
    draw(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert set(image.info) == {"dpi"}
        assert min(image.size) > 200


def test_photographs_in_an_svg_are_as_wide_as_photographs_are(tmp_path: Path):
    example_grid(EXAMPLES, tmp_path / "figure.svg")
    svg = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    shown = re.findall(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)\"", svg)
    assert len(shown) == len(EXAMPLES)
    for encoded in shown:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            assert 380 <= image.width <= 400


def test_names_stand_where_they_fit_and_only_there(tmp_path: Path):
    composition_sunburst(COUNTS, tmp_path / "figure.svg")
    svg = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    for name in ("chest of drawers", "drawer", "quadruped", "PartImageNet: 40 points (33%)"):
        assert f">{name}<" in svg
    crowded = {"pascal_part116": {"dog": {f"part {n}": 1 for n in range(600)}}}
    composition_sunburst(crowded, tmp_path / "crowded.svg")
    assert ">part " not in (tmp_path / "crowded.svg").read_text(encoding="utf-8")


def test_the_grid_marks_the_point_in_red(tmp_path: Path):
    example_grid(EXAMPLES[:1], tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1:].max(axis=2) < 40)
    rows, columns = np.nonzero(red)
    assert len(rows) > 50
    assert columns.mean() / pixels.shape[1] == pytest.approx(0.5, abs=0.05)


def test_bars_show_number_and_share(tmp_path: Path):
    acceptance_bars({"too_long": 10, "accepted": 30}, tmp_path / "figure.svg")
    svg = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert ">30 (75.0%)<" in svg
    assert ">too long<" in svg


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda path: composition_sunburst({}, path), "nothing to draw"),
        (lambda path: example_grid([], path), "nothing to draw"),
        (lambda path: length_histogram([], path), "nothing to draw"),
        (lambda path: acceptance_bars({"accepted": 0}, path), "nothing to draw"),
        (lambda path: length_histogram([1], path.with_suffix(".gif")), r"expected a file name ending in \.png"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(draw: Callable[[Path], None], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "figure.png")
