"""``make learn``: the learning run, here and now, with its table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.console import exit_codes
from commands.local import local_orchestration
from commands.orchestrator import claim_port, orchestrator
from talking_points.terminal import show


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
    with exit_codes():
        local_orchestration(verbose=False, records=(output / "records").resolve())
        port = claim_port()
        from flows.learn import learn, table

        with orchestrator(port):
            report = learn(str(output), quick, images, overrides or [])
        show(table(report))
        show(output / "report.json")


if __name__ == "__main__":
    typer.run(main)
