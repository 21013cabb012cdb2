"""``talking-points build-instructions``: the flow of the deployment, run here and now."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from commands.console import KEPT, Config, Overrides, Verbose, app, exit_codes
from commands.processes import end_at_once
from talking_points.config import load_config
from talking_points.terminal import show_json, tell


@app.command("build-instructions")
def build_instructions(
    config: Config = "configs/build/instructions.yaml",
    overrides: Overrides = None,
    limit: Annotated[int | None, typer.Option(help="preview: at most so many images of each source", min=1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="validate everything and count the images")] = False,
    verbose: Verbose = False,
) -> None:
    """Build questions about regions of images, answered with text, point, box or outline, for a segmenter."""
    given = [*(overrides or []), *([f"limit={limit}"] if limit is not None else [])]
    with exit_codes(KEPT):
        from talking_points.instructions.config import InstructionBuildConfig

        settings = load_config(InstructionBuildConfig, config, given)
        if dry_run:
            from commands.instruction_build import print_plan

            print_plan(settings)
            return
        tell("build-instructions: checking configuration, sources and output")
        with end_at_once():
            from commands.instruction_build import build_dataset

        result: dict[str, Any] = build_dataset(settings, config, given, verbose)
    show_json(result)
