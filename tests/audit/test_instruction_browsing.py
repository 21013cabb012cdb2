"""Instruction datasets in the viewer: filters, rows, and what is drawn over an image."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from talking_points.audit.browsing import Filter
from talking_points.audit.instruction_browsing import InstructionRows, draw_region, is_instructions, outlines_of
from talking_points.instructions.rows import read_instructions
from talking_points.sources.drawn import draw_sample
from tests.instructions.building import build
from tests.publishing.small_dataset import write_dataset


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewed")
    build(folder / "out", draw_sample(folder / "drawn", 8, 6, variant="plain", sources=["partimagenet"]))
    return folder / "out"


def test_rows_are_found_by_kind_and_words(built: Path, tmp_path: Path) -> None:
    assert is_instructions(built)
    assert not is_instructions(write_dataset(tmp_path / "points"))
    assert not is_instructions(tmp_path)
    rows = InstructionRows.read(built)
    expected = list(read_instructions(built, images=False))
    assert len(rows) == len(expected)
    for kind, count in rows.choices("kind").items():
        assert len(rows.find(Filter(kind=kind))) == count == sum(row.kind == kind for row in expected)
    word = expected[0].question.split()[-1].strip(".?")
    assert 0 in rows.find(Filter(words=word))
    assert rows.rejected.num_rows >= 0
    assert rows.row(0)["question"] == rows.lines([0])[0]["description"]


def test_outlines_box_and_point_are_drawn_at_the_size_that_is_shown(built: Path) -> None:
    rows = InstructionRows.read(built)
    for number in range(0, len(rows), 3):
        row = rows.row(number)
        outlines, where = outlines_of(row)
        assert where == ("answer" if row["kind"].endswith("_to_mask") else "mask")
        assert outlines.polygons
        shapes = ElementTree.fromstring(f"<svg>{draw_region(row, (2 * row['width'], 2 * row['height']))}</svg>")
        (box,) = shapes.findall("rect")
        assert [float(box.get(name, "nan")) for name in ("x", "y")] == pytest.approx(
            [2 * v for v in row["box"][:2]], abs=0.1
        )
        assert len(shapes.findall("polygon")) == 2 * sum(1 for _ in outlines.rings)


def test_a_damaged_mask_draws_no_outline(built: Path) -> None:
    rows = InstructionRows.read(built)
    row = rows.row(0) | {"kind": "text_to_box", "mask": {"size": [9, 9], "counts": "~~"}}
    assert not outlines_of(row)[0].polygons
    assert "<rect" in draw_region(row, (100, 100))
