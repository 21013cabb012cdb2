"""An instruction build in this process: nothing is started before it is known that something has to be made."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from commands.build import find_kept_build
from commands.local import local_orchestration
from commands.orchestrator import claim_port, orchestrator
from commands.outputs import open_output
from talking_points.instructions.config import InstructionBuildConfig
from talking_points.redacted_console import RedactedConsole
from talking_points.redaction import seal
from talking_points.sources import open_source
from talking_points.sources.protocol import NothingListedError, reasons_in_words
from talking_points.stage_names import INSTRUCTION_STAGES
from talking_points.units import counted
from tasks.instruction_orders import InstructionOrders
from tasks.instructions import make_instructions
from tasks.running.build_checks import check_instructions
from tasks.running.build_folder import check_folder
from tasks.running.kept_stages import KeptStages
from tasks.running.manifests import Manifest
from tasks.running.storage import Storage


def build_dataset(
    settings: InstructionBuildConfig, config: str, overrides: Sequence[str], verbose: bool
) -> dict[str, Any]:
    """Build, and print the outcome on stderr. Returns the numbers that are printed last. Raises as the flow does."""
    records = None if "://" in settings.output else Path(settings.output).absolute() / ".work" / "results"
    local_orchestration(verbose, records)
    # Wrong input is found before the orchestrator, which takes seconds to start.
    storage = open_output(settings.output)
    roots = check_instructions(settings)
    check_folder(storage, settings)

    def make(stages: KeptStages) -> Manifest:
        return make_instructions(stages, InstructionOrders(settings, roots))

    result = find_kept_build(settings, storage, records, make, INSTRUCTION_STAGES)
    if result is None:
        with orchestrator(claim_port(), lambda: importlib.import_module("flows.build_instructions")):
            from flows.build_instructions import build_instructions

            # The orchestrator records what a flow is called with.
            result = build_instructions(config, [seal(override) for override in overrides])
    print_outcome(storage)
    return result


def print_plan(settings: InstructionBuildConfig) -> None:
    """Validate configuration, sources, phrasings and output, and print the images of every source.

    Nothing is written. Raises what the build would raise.
    """
    storage = open_output(settings.output)
    roots = check_instructions(settings)
    check_folder(storage, settings)
    table = _table("Sources", ("source", "images", "by split", "left out"))
    skipped: dict[str, tuple[str | Path, Mapping[str, int]]] = {}
    total = 0
    for name, root in roots.items():
        source = open_source(name, root, split=settings.sources[name].split, **settings.reader_options(name))
        splits = Counter(entry.split for entry in source.entries())
        total += sum(splits.values())
        skipped[name] = (root, source.skipped)
        by_split = ", ".join(f"{split} {count:,}" for split, count in splits.items())
        cells = (name, f"{sum(splits.values()):,}", by_split, reasons_in_words(source.skipped) or "-")
        table.add_row(*cells)
    if not total:
        raise NothingListedError(skipped)
    console = RedactedConsole(highlight=False)
    console.print(table)
    console.print(f"output: {storage.output}", soft_wrap=True)


def print_outcome(storage: Storage) -> None:
    """Rows by kind and side, what the texts keep of the masks, and the paths, on stderr."""
    manifest = storage.read_json("manifest.json")
    console = RedactedConsole(stderr=True, highlight=False)
    sides = [side for side in ("train", "test") if manifest["rows"].get(side)]
    table = _table(f"{manifest['name']}: {counted(sum(manifest['rows'].values()), 'row')}", ("kind", *sides))
    for kind in dict.fromkeys(kind for side in sides for kind in manifest["kinds"][side]):
        table.add_row(kind, *(f"{manifest['kinds'][side].get(kind, 0):,}" for side in sides))
    console.print(table)
    found = manifest["regions"]
    console.print(
        f"{found['count']:,} regions: outlines of {found['points']['mean']:g} points on average, IoU with their masks "
        f"{found['round_trip_iou']['mean']:.3f} once written and read (a tenth is below "
        f"{found['round_trip_iou']['p10']:.3f})"
    )
    for name, source in manifest["sources"].items():
        left_out = source["skipped"].get("evaluation_image", 0)
        if left_out:
            console.print(f"{name}: {left_out:,} images or regions of evaluation images are not trained on")
    if manifest.get("unseen_evaluation_sets"):
        console.print(
            f"not below these roots: {', '.join(manifest['unseen_evaluation_sets'])}, whose evaluation images may be "
            "among those trained on"
        )
    for name in ("README.md", "data/", "rejected/", "manifest.json"):
        if storage.exists(name.rstrip("/")):
            console.print(f"  {storage.path(name)}", soft_wrap=True)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column in ("source", "kind", "by split", "left out") else "right")
    return table
