"""``make outlines``: the run on outlines, here and now, with its table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.learning_runs import run_here


def main(
    output: Annotated[Path, typer.Option(help="folder of the run")] = Path("build/outlines"),
    images: Annotated[int, typer.Option(help="drawn images of each of three sources")] = 1500,
    questions: Annotated[int, typer.Option(help="held-out questions to judge on")] = 400,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the training configuration")
    ] = None,
) -> None:
    """Learn outlines from drawn scenes and print the table."""

    def run() -> str:
        from flows.outlines import outlines
        from talking_points.evaluation.outline_floors import outlines_table

        return outlines_table(outlines(str(output), images, questions, overrides or []))

    run_here(output, run)


if __name__ == "__main__":
    typer.run(main)
