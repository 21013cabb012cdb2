"""``make poses``: the run on named keypoints, here and now, with its table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.learning_runs import run_here


def main(
    output: Annotated[Path, typer.Option(help="folder of the run")] = Path("build/poses"),
    images: Annotated[int, typer.Option(help="drawn images")] = 3000,
    objects: Annotated[int, typer.Option(help="objects of each figure")] = 160,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the training configuration")
    ] = None,
    all_ways: Annotated[
        bool, typer.Option("--all-ways", help="also a head for coordinates, and a localizer trained on the keypoints")
    ] = False,
    localizer: Annotated[str | None, typer.Option(help="a localizer that is asked as it is")] = None,
) -> None:
    """Learn named keypoints from drawn scenes and print the table."""

    def run() -> str:
        from flows.poses import poses, table

        return table(poses(str(output), images, objects, overrides or [], all_ways, localizer))

    run_here(output, run)


if __name__ == "__main__":
    typer.run(main)
