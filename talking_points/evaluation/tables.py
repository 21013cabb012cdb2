"""The paper's tables and Figure 1 with our figures beside them: Markdown, LaTeX and PNG, from reports."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from talking_points.escaping import for_latex, for_markdown
from talking_points.evaluation.paper import FIGURES, TITLES, PaperFigure
from talking_points.evaluation.pck import TALKING_POINTS
from talking_points.evaluation.reports import IncomparableError, Report
from talking_points.plotting import plain_style
from talking_points.whole_files import write_text

HEADER = (
    "", "paper mPCK", "@0.1", "@0.2", "our mPCK", "95 % interval", "above text only", "@0.05", "@0.1", "@0.2", "points",
)  # fmt: skip
"""The column ``above text only``: our mPCK minus that of a localizer that never sees the image, with its interval."""


@dataclass(frozen=True)
class Row:
    """One description set. ``paper`` and ``ours`` are percentages by ``mPCK`` or ``@threshold``, as far as known.

    interval: of our mPCK; above_text_only: its difference to the text-only control and the interval of that.
    """

    method: str
    paper: Mapping[str, float] = field(default_factory=dict)
    ours: Mapping[str, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    above_text_only: tuple[float, float, float] | None = None
    points: int = 0
    undescribed: int = 0

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts under ``HEADER``; a row that has none of our figures shows a dash."""
        paper = (f"{self.paper[name]:.2f}" if name in self.paper else "" for name in ("mPCK", "@0.1", "@0.2"))
        if not self.ours:
            return (self.method, *paper, "-", *[""] * (len(HEADER) - 5))
        interval = "{:.1f} to {:.1f}".format(*self.interval) if self.interval else ""
        above = "{:+.2f} ({:.1f} to {:.1f})".format(*self.above_text_only) if self.above_text_only else ""
        ours = (f"{self.ours[name]:.2f}" if name in self.ours else "" for name in ("@0.05", "@0.1", "@0.2"))
        points = f"{self.points} of {self.points + self.undescribed}" if self.undescribed else str(self.points)
        return (self.method, *paper, f"{self.ours['mPCK']:.2f}", interval, above, *ours, points)


@dataclass(frozen=True)
class Table:
    """A title, rows, and notes: what forbids to compare figures of it."""

    key: str
    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """A Markdown table, the notes below it."""
        lines = [HEADER, *(row.cells for row in self.rows)]
        head, *body = ("| " + " | ".join([for_markdown(cells[0]), *cells[1:]]) + " |" for cells in lines)
        table = "\n".join([f"### {for_markdown(self.title)}", "", head, "|" + " --- |" * len(HEADER), *body, ""])
        return table + "".join(f"\n{for_markdown(note)}\n" for note in self.notes)

    def latex(self) -> str:
        """A LaTeX ``table`` with booktabs rules, the notes below it."""
        head, *body = (
            " & ".join(for_latex(cell) for cell in cells) + r" \\"
            for cells in (HEADER, *(row.cells for row in self.rows))
        )
        columns = "l" + "r" * (len(HEADER) - 1)
        begin = [
            r"\begin{table}", rf"\caption{{{for_latex(self.title)}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule",
        ]  # fmt: skip
        end = [r"\bottomrule", r"\end{tabular}", *(rf"\par {for_latex(note)}" for note in self.notes), r"\end{table}"]
        return "\n".join([*begin, head, r"\midrule", *body, *end]) + "\n"


def paper_tables(reports: Mapping[str, Report]) -> list[Table]:
    """The paper's tables; ``reports`` maps keys of ``paper.FIGURES`` to ours. A figure without a report shows a dash.

    Sets that the paper does not have, and the controls of the ground-truth report, make tables of their own. Raises
    ``IncomparableError`` for reports that were not all scored by one definition.
    """
    definitions = {str(report.definition) for report in reports.values()}
    if len(definitions) > 1:
        raise IncomparableError(
            f"the reports use {len(definitions)} definitions of PCK: {sorted(definitions)}; "
            "evaluate all of them with the same definition"
        )
    tables = []
    for key, title in TITLES.items():
        figures = [figure for figure in FIGURES if figure.table == key]
        ours = {figure: reports[name] for figure in figures for name in reversed(figure.keys) if name in reports}
        rows = [Row(figure.method, _paper(figure), **_ours(ours.get(figure))) for figure in figures]
        tables.append(Table(key, title, rows, _notes(ours)))
    known = {key for figure in FIGURES for key in figure.keys}
    own = [Row(name.replace("_", " "), **_ours(report)) for name, report in reports.items() if name not in known]
    if own:
        tables.append(Table("own", "Description sets that the paper does not have", own))
    truth = reports.get("ground_truth")
    if truth is not None and truth.controls:
        rows = [Row("ground-truth description", **_ours(truth))]
        rows += [
            Row(name.replace("_", " "), ours={"mPCK": value}, points=truth.points)
            for name, value in sorted(truth.controls.items(), key=lambda item: -item[1])
        ]
        tables.append(Table("controls", "Controls, which the paper does not report", rows))
    return tables


def write_tables(reports: Mapping[str, Report], folder: Path) -> list[Path]:
    """``tables.md``, ``tables.tex`` and one PNG per table that has a figure of ours."""
    tables = paper_tables(reports)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "tables.md", folder / "tables.tex"]
    write_text(paths[0], "\n".join(table.markdown() for table in tables))
    write_text(paths[1], "\n".join(table.latex() for table in tables))
    for table in tables:
        if any(row.ours for row in table.rows):
            paths.append(folder / f"{table.key}.png")
            draw_table(table, paths[-1])
    return paths


@plain_style()
def draw_table(table: Table, path: Path) -> None:
    """Horizontal bars, the paper's and ours for every row: a panel for mPCK and one for each threshold that is told."""
    # Imported here: whoever scores a model needs no figures until there is something to draw.
    from matplotlib.figure import Figure

    evaluated = [row for row in table.rows if row.ours]
    shown = ["mPCK"]
    for name in ("@0.1", "@0.2"):
        if any(name in row.paper for row in table.rows) or all(name in row.ours for row in evaluated):
            shown.append(name)
    width, height = 3.2 + 2.8 * len(shown), 1.5 + 0.55 * len(table.rows) + 0.2 * len(table.notes)
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], shown, strict=True):
        _draw_bars(axis, table.rows, name)
    axes[0][0].set_yticks(range(len(table.rows)), [row.method for row in table.rows], fontsize=9)
    axes[0][0].invert_yaxis()
    # About twelve letters to an inch; the legend stands beside the title.
    figure.suptitle(textwrap.fill(table.title, int(12 * (width - 2))), x=0.01, ha="left", fontsize=10)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=8)
    figure.supxlabel("\n".join(textwrap.fill(note, int(14 * width)) for note in table.notes), fontsize=8)
    figure.savefig(path)


def _draw_bars(axis: Any, rows: Sequence[Row], name: str) -> None:
    """One panel: bars with their values behind them, and our intervals; a dash where none of ours is known."""
    apart = 0.2 if any(row.paper for row in rows) else 0.0
    for side, offset, color in (("paper", -apart, "#b0b0b0"), ("ours", apart, "#2a6f97")):
        figures = {place: getattr(row, side)[name] for place, row in enumerate(rows) if name in getattr(row, side)}
        if figures:
            axis.barh([place + offset for place in figures], list(figures.values()), 0.38, label=side, color=color)
        for place, value in figures.items():
            end, interval = value, rows[place].interval
            if side == "ours" and name == "mPCK" and interval is not None:
                axis.plot(interval, [place + offset] * 2, "|-", color="black", linewidth=1, markersize=6)
                end = max(value, interval[1])
            axis.text(end + 2, place + offset, f"{value:.1f}", va="center", fontsize=8)
    for place, row in enumerate(rows):
        if not row.ours:
            axis.text(2, place + apart, "-", va="center", fontsize=8)
    axis.set_xlim(0, 118)
    axis.set_xticks(range(0, 101, 25))
    axis.tick_params(labelsize=8)
    axis.set_title(name if name == "mPCK" else f"PCK{name}", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _paper(figure: PaperFigure) -> dict[str, float]:
    return {"mPCK": figure.mpck, **dict(zip(("@0.1", "@0.2"), figure.pck or (), strict=False))}


def _ours(report: Report | None) -> dict[str, Any]:
    """The fields of a ``Row`` that come from a report."""
    if report is None:
        return {}
    above = report.above_text_only
    return {
        "ours": {"mPCK": report.mpck, **{f"@{threshold}": value for threshold, value in report.pck.items()}},
        "interval": _bounds(report.interval),
        "above_text_only": None if above is None else (above["difference"], *_bounds(above["interval"])),
        "points": report.points,
        "undescribed": report.undescribed,
    }


def _bounds(interval: Mapping[str, float]) -> tuple[float, float]:
    return interval["low"], interval["high"]


def _notes(ours: Mapping[PaperFigure, Report]) -> list[str]:
    """What sets the reports of one table apart from the paper's, or from each other."""
    notes = []
    other = {report.definition["name"] for report in ours.values()} - {TALKING_POINTS.name}
    if other:
        notes.append(f"Ours are by the definition {', '.join(other)}, the paper's by {TALKING_POINTS.name}.")
    points, localizers = defaultdict(set), defaultdict(set)
    for figure, report in ours.items():
        points[figure.test_set].add(frozenset(row["id"] for row in report.predictions))
        localizers[figure.localizer].add(report.localizer)
    if any(len(sets) > 1 for sets in points.values()):
        notes.append("Ours were not taken on the same points: evaluate them on one set to compare them.")
    if any(len(names) > 1 for names in localizers.values()):
        names = sorted(set().union(*localizers.values()))
        notes.append(f"Ours were not found by the same localizer: {', '.join(names)}.")
    return notes
