from __future__ import annotations

from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pytest
from prefect import flow
from rich.console import Console

from talking_points.config import Section
from talking_points.runner_config import RunnerConfig
from tasks.running.clusters import open_workers
from tasks.running.manifests import Manifest
from tasks.running.progress import BuildProgress
from tasks.running.runner import StageRunner
from tasks.running.shards import Environment, Inputs, Order, ShardWriter, shard_task
from tasks.running.storage import Storage

WORKERS = 2


class Settings(Section):
    place: str


@pytest.mark.usefixtures("orchestrator")
def test_lost_shards_are_made_again_side_by_side(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    meet = Barrier(WORKERS)

    @shard_task("candidates")
    def make(order: Order[Settings, Inputs]) -> Manifest:
        meet.wait(timeout=60)  # raises if the shards of one stage are made one after another
        return ShardWriter(order).commit(pa.table({"id": [order.shard]}))

    environment = Environment(output=str(tmp_path), sources={}, cache="", max_rejected_share=1)
    orders = [
        Order("candidates", 1, number, f"candidates {number}", Inputs(), Settings(place=str(tmp_path)), environment)
        for number in range(2 * WORKERS)
    ]

    @flow
    def stage() -> tuple[int, int, int]:
        progress = BuildProgress(storage, console=Console(quiet=True))
        with progress, open_workers(RunnerConfig(), WORKERS) as workers:
            made = StageRunner(workers, storage, progress).run(make, orders)
        status = progress.stages["candidates"]
        return len(made), status.executed, status.reused

    assert stage() == (4, 4, 0)
    assert stage() == (4, 0, 4)
    for file in tmp_path.glob(".work/candidates/*.parquet"):
        file.unlink()
    assert stage() == (4, 4, 0)
