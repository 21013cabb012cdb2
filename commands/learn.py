"""``make learn``: the learning run, here and now, with its table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.learning_runs import run_here


def main(
    output: Annotated[Path, typer.Option(help="folder of the run")] = Path("build/learn"),
    quick: Annotated[
        bool, typer.Option("--quick", help="fewer steps and images, no second judge, no ablations")
    ] = False,
    images: Annotated[int, typer.Option(help="drawn images per source")] = 1800,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the training configuration")
    ] = None,
) -> None:
    """Learn from drawn scenes and print the table."""

    def run() -> str:
        from flows.learn import learn, table

        return table(learn(str(output), quick, images, overrides or []))

    run_here(output, run)


if __name__ == "__main__":
    typer.run(main)
