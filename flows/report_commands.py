"""Commands that look at the texts of finished builds: the quality report of one, the comparison of two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.console import app, exit_codes

Folder = Annotated[Path, typer.Argument(help="folder of a finished dataset")]


@app.command()
def report(
    output: Folder, seed: Annotated[int, typer.Option(help="chooses the rows that are shown with picture")] = 0
) -> None:
    """Write the quality report of a build: acceptance, levels, diversity, lengths, rows with pictures."""
    with exit_codes():
        from talking_points.publishing.quality import write_quality_report

        paths = write_quality_report(output, seed)
    for path in paths:
        print(path)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="BUILD_A", help="folder of a finished dataset")],
    second: Annotated[Path, typer.Argument(metavar="BUILD_B", help="folder of another one")],
    html: Annotated[Path | None, typer.Option(help="also write a page with pictures and the texts that differ")] = None,
    rows: Annotated[int, typer.Option(help="rows on that page", min=1)] = 60,
) -> None:
    """Show two builds side by side, for work on prompts: settings, numbers, and the texts that differ."""
    with exit_codes():
        from flows.compare import print_comparison
        from talking_points.publishing.comparison import compare_builds, write_comparison

        comparison = compare_builds(first, second)
        print_comparison(comparison)
        if html is not None:
            print(write_comparison(comparison, html, rows))
