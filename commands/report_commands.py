"""Commands that look at what is finished: the texts of one build, of two, evaluations in the paper's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.console import app, exit_codes, needs_extra
from talking_points.evaluation.paper import ROWS
from talking_points.owners import refuse_closed
from talking_points.terminal import show, tell

Folder = Annotated[Path, typer.Argument(help="folder of a finished dataset")]


@app.command()
def report(
    output: Folder,
    seed: Annotated[int, typer.Option(help="chooses the rows that are shown with their image")] = 0,
    evaluation: Annotated[
        Path | None, typer.Option(help="output of talking-points evaluate on these rows: mPCK, by who wrote the text")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="folder that receives the report; default: OUTPUT/report")] = None,
) -> None:
    """Write the quality report of a build: acceptance, levels, diversity, lengths, rows with images."""
    with exit_codes():
        tell(f"report: reading {output}")
        from talking_points.publishing.quality import write_quality_report

        paths = write_quality_report(output, seed, evaluation, to)
    for path in paths:
        show(path)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="BUILD_A", help="folder of a finished dataset")],
    second: Annotated[Path, typer.Argument(metavar="BUILD_B", help="folder of another one")],
    html: Annotated[Path | None, typer.Option(help="also write a page with images and the texts that differ")] = None,
    rows: Annotated[int, typer.Option(help="rows on that page", min=1)] = 60,
) -> None:
    """Show two builds side by side, for work on prompts: settings, numbers, and the texts that differ."""
    with exit_codes():
        from commands.compare import print_comparison
        from talking_points.publishing.comparison import compare_builds, write_comparison

        if html is not None:
            refuse_closed(html)
            refuse_closed(html.parent)
        tell(f"compare: reading {first} and {second}")
        comparison = compare_builds(first, second)
        print_comparison(comparison)
        if html is not None:
            show(write_comparison(comparison, html, rows))


@app.command()
def tables(
    output: Annotated[Path, typer.Argument(metavar="DIR", help="folder that receives the tables")],
    reports: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=REPORT",
            help="reports of talking-points evaluate by the row they stand in, or folders of reports whose file names "
            f"are the rows. KEY is one of {', '.join(ROWS)}; figure_1_KEY is the row of Figure 1 alone",
        ),
    ],
) -> None:
    """Write the paper's tables and Figure 1 with our figures beside them: Markdown, LaTeX, an image of each."""
    with exit_codes():
        tell("tables: reading the reports")
        with needs_extra("train"):
            from talking_points.evaluation.saved_reports import read_reports
            from talking_points.evaluation.tables import write_tables

        refuse_closed(output)
        paths = write_tables(read_reports(reports), output)
    for path in paths:
        show(path)
