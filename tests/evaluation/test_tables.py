"""The paper's tables beside ours, and the saved reports that they are made of."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from talking_points.config import ConfigError
from talking_points.evaluation.controls import centre
from talking_points.evaluation.paper import FIGURES, ROWS
from talking_points.evaluation.pck import MP100
from talking_points.evaluation.reports import IncomparableError, Report, evaluate_predictions
from talking_points.evaluation.saved_reports import read_reports
from talking_points.evaluation.tables import draw_table, paper_tables, write_tables
from tests.training.conftest import points

DATA = points(6, 3)


def report(shift: float = 0.0, *, data=DATA, **fields) -> Report:
    return evaluate_predictions("ours", data, data.keypoints + shift, **fields)


def test_the_papers_breakdown_is_that_of_its_means() -> None:
    for figure in FIGURES:
        assert figure.pck is None or sum(figure.pck) / 2 == pytest.approx(figure.mpck, abs=0.0051), figure
    assert sum(figure.pck is not None for figure in FIGURES) == 12


def test_the_papers_tables_stand_beside_ours(tmp_path: Path) -> None:
    truth = report(controls={"centre": centre(DATA), "text_only": centre(DATA)})
    paths = write_tables({"ground_truth": truth, "descriptor": report(12.0, undescribed=3)}, tmp_path)
    text = paths[0].read_text()
    for figure in ("78.13", "78.83", "42.87", "31.03", "29.85", "23.63", "47.60", "92.33"):
        assert figure in text
    assert "| ground-truth description | 78.83 | 65.60 | 92.05 | 100.00 |" in text
    assert "| DAM | 42.87 | 28.24 | 57.49 | - |" in text
    above = truth.above_text_only
    assert above is not None
    interval = f"{above['interval']['low']:.1f} to {above['interval']['high']:.1f}"
    assert f"| 100.0 to 100.0 | {above['difference']:+.2f} ({interval}) |" in text
    assert "| 18 of 21 |" in text
    assert "Controls" in text
    assert "Ours were" not in text
    assert "does not have" not in text
    latex = paths[1].read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 6
    assert r"95 \% interval & above text only" in latex
    assert f"{above['difference']:+.2f} ({interval})" in latex
    assert r"{l" + "r" * latex.split(r"\midrule")[0].count("&") + "}" in latex
    drawn = {"table_1.png", "table_3.png", "table_4.png", "figure_1.png", "controls.png"}
    assert {path.name for path in paths[2:]} == drawn == {path.name for path in tmp_path.glob("*.png")}


def test_a_set_that_the_paper_does_not_have_stands_in_a_table_of_its_own() -> None:
    (table,) = (table for table in paper_tables({"my_model": report()}) if table.key == "own")
    assert "| my model |  |  |  | 100.00 |" in table.markdown()


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ({"dam": report(), "descriptor": report(data=points(6, 2))}, {"table_1": "same points"}),
        ({"dam": report(localizer="a"), "descriptor": report(localizer="b")}, {"table_1": "same localizer: a, b"}),
        ({"ground_truth": report(localizer="a"), "frozen_lm": report(localizer="b")}, {}),
        ({"canidae_adapted": report(), "bovidae_adapted": report(data=points(6, 2))}, {}),
        (
            {"canidae_adapted": report(), "canidae_zero_shot": report(data=points(6, 2))},
            {"table_2": "not taken on the same points"},
        ),
        ({"human": report(definition=MP100)}, {"figure_1": "the definition mp100, the paper's by talking_points"}),
    ],
)
def test_a_note_says_what_must_not_be_compared(reports: dict[str, Report], expected: dict[str, str]) -> None:
    found = {table.key: table for table in paper_tables(reports) if table.notes}
    assert set(found) == set(expected)
    for key, note in expected.items():
        assert note in found[key].markdown()
        assert note in found[key].latex().replace(r"\_", "_")


def test_reports_of_several_definitions_make_no_tables() -> None:
    with pytest.raises(IncomparableError, match=r"2 definitions .* with the same definition"):
        paper_tables({"ground_truth": report(), "descriptor": report(definition=MP100)})


def test_one_table_can_have_a_report_of_its_own() -> None:
    found = {
        table.key: table
        for table in paper_tables({"ground_truth": report(), "figure_1_ground_truth": report(data=points(6, 2))})
    }
    assert [found[key].rows[-1].points for key in ("table_1", "table_4", "figure_1")] == [18, 18, 12]


@pytest.mark.parametrize(
    ("key", "panels"),
    [("table_2", ["mPCK", "PCK@0.1", "PCK@0.2"]), ("figure_1", ["mPCK", "PCK@0.1", "PCK@0.2"]), ("controls", ["mPCK"])],
)
def test_an_image_shows_every_figure_and_no_label_on_another(
    key: str, panels: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, path: Path) -> None:
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(Figure, "savefig", keep)
    controls = {name: centre(DATA) for name in ("centre", "shuffled_images")}
    reports = {name: report(4.0 * place, controls=controls) for place, name in enumerate(ROWS)}
    reports["bovidae_adapted"] = report(data=points(6, 2), localizer="another localizer")
    del reports["human"]
    (table,) = (table for table in paper_tables(reports) if table.key == key)
    draw_table(table, tmp_path / "table.png")
    (figure,) = drawn
    assert [axis.get_title() for axis in figure.axes] == panels
    for axis, name in zip(figure.axes, ("mPCK", "@0.1", "@0.2"), strict=False):
        written = sorted(text.get_text() for text in axis.texts)
        figures = [side[name] for row in table.rows for side in (row.paper, row.ours) if name in side]
        assert written == sorted([f"{value:.1f}" for value in figures] + ["-"] * (key == "figure_1"))
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    for (one, box), (other, beside) in combinations(zip(texts, boxes, strict=True), 2):
        assert not box.overlaps(beside), (one.get_text(), other.get_text())
    edges = np.array([[box.x0, box.y0, figure.bbox.width - box.x1, figure.bbox.height - box.y1] for box in boxes])
    assert edges.min() >= 0, "every label lies within the image"


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as an evaluation leaves it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("ground_truth", "descriptor"):
        report().save(tmp_path / "evaluation" / f"{name}.json")
    (tmp_path / "evaluation" / "comparisons.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        (["evaluation"], {"ground_truth", "descriptor"}),
        (["evaluation/descriptor.json"], {"descriptor"}),
        (["dam=evaluation/descriptor.json", "evaluation"], {"dam", "ground_truth", "descriptor"}),
        (["figure_1_descriptor=evaluation/descriptor.json"], {"figure_1_descriptor"}),
    ],
)
def test_saved_reports_are_gathered_by_row(saved: Path, given: list[str], rows: set[str]) -> None:
    found = read_reports(given)
    assert set(found) == rows
    assert all(one.mpck == 100 for one in found.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["llava=evaluation/descriptor.json"], "no row 'llava'; expected one of omg_llava, dam, descriptor"),
        (["table_2_dam=evaluation/descriptor.json"], "no row 'table_2_dam'"),
        (["evaluation", "descriptor=evaluation/ground_truth.json"], "two reports for the row 'descriptor'"),
        (["dam=none.json"], "cannot read none.json"),
        (["dam=evaluation/comparisons.json"], "expected a report that talking-points evaluate wrote"),
        (["none"], "no file or folder none: expected reports as KEY=REPORT.json"),
        (["."], "holds no report"),
    ],
)
def test_what_is_no_report_of_a_row_is_named(saved: Path, given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_reports(given)
