"""An instruction build in this process, without an orchestrator: the stages one after another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from talking_points.config import load_config
from talking_points.instructions.config import InstructionBuildConfig
from tasks.instruction_orders import InstructionOrders
from tasks.instructions import make_instructions
from tasks.running.build_checks import check_instructions
from tasks.running.manifests import Manifest
from tasks.running.result_records import ShardTask
from tasks.running.shards import AnyOrder
from tasks.running.storage import Storage


class PlainStages:
    """Runs every shard where it is asked for."""

    def run(self, task: ShardTask, orders: Sequence[AnyOrder]) -> dict[int, Manifest]:
        return {order.shard: task.run(order) for order in orders}

    complete = run


def settings_of(output: Path, roots: dict[str, Path], *overrides: str) -> InstructionBuildConfig:
    given = [f"output={output}", *(f"sources.{name}.root={root}" for name, root in roots.items()), *overrides]
    return load_config(InstructionBuildConfig, None, given)


def build(output: Path, roots: dict[str, Path], *overrides: str) -> dict[str, Any]:
    """Build, and return the manifest of the dataset."""
    settings = settings_of(output, roots, *overrides)
    make_instructions(PlainStages(), InstructionOrders(settings, check_instructions(settings)))
    manifest: dict[str, Any] = Storage(str(output)).read_json("manifest.json")
    return manifest
