"""The way to the paper's tables: what it takes, what is missing, and walking it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from commands.console import KEPT, Config, Overrides, Verbose, app, exit_codes, needs_extra
from commands.local import local_orchestration
from talking_points.config import load_config
from talking_points.errors import InputError
from talking_points.owners import refuse_closed
from talking_points.terminal import show, show_json

PAPER = "configs/reproduce/paper.yaml"


@app.command()
def plan(config: Config = PAPER, overrides: Overrides = None) -> None:
    """Print hours, memory, disk and downloads of a reproduction before anything starts; nothing is loaded."""
    with exit_codes():
        from commands.reproduction_plan import print_reproduction
        from talking_points.evaluation.reproduction import ReproduceConfig

        print_reproduction(load_config(ReproduceConfig, config, overrides or []))


@app.command()
def reproduce(
    config: Config = PAPER,
    overrides: Overrides = None,
    verbose: Verbose = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the steps and which are done")] = False,
) -> None:
    """Run all steps from the raw datasets to the paper's tables; each is skipped when it is done."""
    with exit_codes(KEPT):
        from talking_points.evaluation import reproduction

        settings = load_config(reproduction.ReproduceConfig, config, overrides or [])
        if dry_run:
            for step, done in steps_done(settings):
                show(f"{'done' if done else 'to do'}  {step}")
            return
        refuse_closed(settings.output)
        reproduction.check_reproduction(settings)
        from commands.orchestrator import claim_port, orchestrator

        local_orchestration(verbose)
        port = claim_port()
        with needs_extra("train"):
            from flows.reproduce import reproduce as flow
        with orchestrator(port):
            result = flow(config, overrides or [])
    show_json(result)


@app.command()
def rehearse(
    folder: Annotated[Path, typer.Argument(help="an empty folder for everything that is made")] = Path(
        "build/rehearsal"
    ),
    images: Annotated[int, typer.Option(help="drawn images per source", min=4)] = 6,
    hub: Annotated[str | None, typer.Option(help="ORG/NAME on a Hub of this machine, to publish to")] = None,
    vllm: Annotated[
        Path | None, typer.Option(help="environment of 'make vllm-env': vLLM serves the build, not a stand-in")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Walk the paper's whole way on tiny models in the true layouts; one page says what ran."""
    with exit_codes():
        if folder.exists() and not folder.is_dir():
            raise InputError(f"expected an empty or new folder, found the file {folder}: name another")
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} holds files: name an empty or new folder, or remove it")
        refuse_closed(folder)
        if vllm is not None and not (vllm / "bin" / "python").exists():
            raise InputError(f"--vllm: expected a virtual environment at {vllm}, found no bin/python: make vllm-env")
        from commands.orchestrator import claim_port, orchestrator

        local_orchestration(verbose)
        port = claim_port()
        with needs_extra("train"):
            from commands.rehearsal import rehearse as walk
        with orchestrator(port):
            page = walk(folder, images=images, hub=hub, vllm=vllm)
    show(page.read_text(encoding="utf-8"))


def steps_done(settings: Any) -> list[tuple[str, bool]]:
    """The command line of every step, and whether it is done."""
    from talking_points.evaluation import reproduction

    key, steps = "", []
    for step in settings.steps:
        own = step.settings()
        key = reproduction.step_key(step, own, key)
        steps.append((reproduction.command_line(step, settings), reproduction.is_done(step, settings, own, key)))
    return steps


def print_resources(config: str = PAPER) -> None:
    """Print every dataset and weight of the paper's way. Raises ``InputError`` when a dataset is missing."""
    from talking_points.evaluation.reproduction import ReproduceConfig
    from talking_points.evaluation.resources import find_resources

    settings = load_config(ReproduceConfig, config)
    build = next(step.settings() for step in settings.steps if step.run == "build")
    train = next(step.settings() for step in settings.steps if step.run == "adapt-descriptor")
    found = find_resources(settings, build, train)
    show("What the paper's way needs from elsewhere; nothing is downloaded here")
    for entry in found:
        resource = entry.resource
        size = f" ({resource.gigabytes:g} GB)" if resource.gigabytes else ""
        show(f"\n{resource.name}{size}")
        facts = {
            "expected": resource.expected,
            "found": entry.found,
            "missing": entry.missing,
            "from": resource.place,
            "licence": resource.licence,
            "checksum": resource.checksum,
        }
        for name, value in facts.items():
            if value:
                show(f"  {name + ':':<9} {value}")
    datasets = [entry.resource for entry in found if entry.missing and entry.resource.kind == "dataset"]
    if datasets:
        ways = "\n  ".join(f"{resource.name}: {resource.place}, then set {resource.setting}" for resource in datasets)
        raise InputError(f"{len(datasets)} datasets are missing:\n  {ways}")
