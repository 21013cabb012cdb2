"""The paper's tables and Figure 1 with our figures beside them: Markdown, LaTeX and PNG, from reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from talking_points.evaluation.paper import FIGURES, TITLES
from talking_points.evaluation.report import IncomparableError, Report

HEADER = (
    "", "paper mPCK", "@0.1", "@0.2", "our mPCK", "95 % interval", "above text only", "@0.05", "@0.1", "@0.2", "points",
)  # fmt: skip
"""The column ``above text only``: our mPCK minus that of a localizer that never sees the image, with its interval."""


@dataclass(frozen=True)
class Table:
    """A title and rows of texts as wide as ``HEADER``."""

    key: str
    title: str
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """A Markdown table."""
        lines = [HEADER, tuple("---" for _ in HEADER), *self.rows]
        return f"### {self.title}\n\n" + "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"

    def latex(self) -> str:
        """A LaTeX ``table`` with booktabs rules."""
        rows = [" & ".join(_escaped(cell) for cell in cells) + r" \\" for cells in (HEADER, *self.rows)]
        body = "\n".join([rows[0], r"\midrule", *rows[1:]])
        return (
            "\\begin{table}\n\\caption{"
            + _escaped(self.title)
            + "}\n\\begin{tabular}{l"
            + "r" * (len(HEADER) - 1)
            + "}\n"
            "\\toprule\n" + body + "\n\\bottomrule\n\\end{tabular}\n\\end{table}\n"
        )


def paper_tables(reports: Mapping[str, Report]) -> list[Table]:
    """The paper's tables; ``reports`` maps keys of ``paper.FIGURES`` to ours. A figure without a report shows a dash.

    Sets that the paper does not have, and the controls of the ground-truth report, make tables of their own. Raises
    ``IncomparableError`` for reports that were not all scored by one definition.
    """
    definitions = {str(report.definition) for report in reports.values()}
    if len(definitions) > 1:
        raise IncomparableError(f"the reports use {len(definitions)} definitions of PCK: {sorted(definitions)}")
    tables = []
    for key, title in TITLES.items():
        rows = []
        for figure in FIGURES:
            if figure.table == key:
                breakdown = [f"{value:.2f}" for value in figure.pck] if figure.pck else ["", ""]
                rows.append((figure.method, f"{figure.mpck:.2f}", *breakdown, *_ours(reports.get(figure.key))))
        tables.append(Table(key, title, rows))
    empty = ("", "", "")
    own = {name: report for name, report in reports.items() if name not in {figure.key for figure in FIGURES}}
    if own:
        rows = [(name.replace("_", " "), *empty, *_ours(report)) for name, report in own.items()]
        tables.append(Table("own", "Description sets that the paper does not have", rows))
    truth = reports.get("ground_truth")
    if truth is not None and truth.controls:
        rows = [("ground-truth description", *empty, *_ours(truth))]
        rows += [
            (name.replace("_", " "), *empty, f"{value:.2f}", "", "", "", "", "", _points(truth))
            for name, value in sorted(truth.controls.items(), key=lambda item: -item[1])
        ]
        tables.append(Table("controls", "Controls, which the paper does not report", rows))
    return tables


def write_tables(reports: Mapping[str, Report], folder: Path) -> list[Path]:
    """``tables.md``, ``tables.tex`` and one PNG per table that has a figure of ours."""
    tables = paper_tables(reports)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "tables.md", folder / "tables.tex"]
    paths[0].write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")
    paths[1].write_text("\n".join(table.latex() for table in tables), encoding="utf-8")
    for table in tables:
        if any(row[4] not in ("", "-") for row in table.rows):
            paths.append(folder / f"{table.key}.png")
            draw_table(table, paths[-1])
    return paths


def draw_table(table: Table, path: Path) -> None:
    """Horizontal bars: the paper's mPCK and ours for every row."""
    names = [row[0] for row in table.rows]
    figure, axis = plt.subplots(figsize=(7, 0.8 + 0.55 * len(names)), layout="constrained")
    for offset, column, label, color in ((-0.2, 1, "paper", "#b0b0b0"), (0.2, 4, "ours", "#2a6f97")):
        values = [float(row[column]) if row[column] not in ("", "-") else 0.0 for row in table.rows]
        if any(values):
            bars = axis.barh([place + offset for place in range(len(names))], values, 0.38, label=label, color=color)
            axis.bar_label(bars, labels=[f"{value:.1f}" if value else "" for value in values], fontsize=8, padding=2)
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 105)
    axis.set_xlabel("mPCK")
    axis.set_title(table.title, fontsize=10, wrap=True)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _ours(report: Report | None) -> tuple[str, ...]:
    if report is None:
        return ("-", *("" for _ in HEADER[5:]))
    values = [f"{report.pck[name]:.2f}" if name in report.pck else "" for name in ("0.05", "0.1", "0.2")]
    above = "" if report.above_text_only is None else _difference(report.above_text_only)
    return (f"{report.mpck:.2f}", _interval(report.interval), above, *values, _points(report))


def _interval(interval: Mapping[str, float]) -> str:
    return f"{interval['low']:.1f} to {interval['high']:.1f}"


def _difference(found: Mapping[str, Any]) -> str:
    return f"{found['difference']:+.2f} ({_interval(found['interval'])})"


def _points(report: Report) -> str:
    """How many points; of how many, where the set left some undescribed."""
    return f"{report.points} of {report.points + report.undescribed}" if report.undescribed else str(report.points)


def _escaped(text: str) -> str:
    for character in ("\\", "%", "&", "_", "#"):
        text = text.replace(character, "\\textbackslash{}" if character == "\\" else "\\" + character)
    return text
