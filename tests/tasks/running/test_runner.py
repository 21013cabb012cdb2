from __future__ import annotations

from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow
from rich.console import Console

from talking_points.config import Section
from talking_points.runner_config import RunnerConfig
from tasks.running.clusters import open_workers
from tasks.running.manifests import Manifest
from tasks.running.progress import BuildProgress
from tasks.running.runner import StageRunner, shards_of_a_task
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


@given(seconds=st.floats(0.12, 600), window=st.integers(1, 2000))
def test_a_task_run_gets_as_many_shards_as_take_one_to_ten_minutes(seconds: float, window: int) -> None:
    assert 60 <= seconds * shards_of_a_task([seconds] * 50, 10**8, window) <= 600


@pytest.mark.parametrize(
    ("taken", "waiting", "window", "shards"),
    [
        ([], 10_000, 4, 1),  # nothing is known yet
        ([0.0] * 50, 10**6, 4, 1000),  # of shards that take no time, some end
        ([0.5] * 25 + [1.5] * 25, 10**6, 4, 120),
        ([1.0], 800, 4, 100),  # towards the end, work is left for the others
        ([1.0], 7, 4, 1),
        ([3600.0], 100, 4, 1),
    ],
)
def test_the_shards_of_a_task_run(taken: list[float], waiting: int, window: int, shards: int) -> None:
    assert shards_of_a_task(taken, waiting, window) == shards
