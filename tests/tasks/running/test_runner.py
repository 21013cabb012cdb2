from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow
from prefect.states import Completed
from rich.console import Console

from talking_points.config import Section
from talking_points.runner_config import RunnerConfig
from tasks.candidates import candidates
from tasks.running import runner
from tasks.running.claims import latest_worker
from tasks.running.clusters import open_workers
from tasks.running.dask_cluster import DaskWorkers
from tasks.running.manifests import Manifest
from tasks.running.progress import BuildProgress
from tasks.running.ray_cluster import by_worker
from tasks.running.runner import StageRunner, shards_of_a_task
from tasks.running.shards import AnyOrder, Environment, Inputs, Order, ShardWriter, shard_task
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


@dataclass(eq=False)
class Ended:
    """A task that has ended with ``outcome``."""

    outcome: Any
    task_run_id: str = "run"
    state: Any = field(default_factory=Completed)

    def result(self, raise_on_failure: bool) -> Any:
        return self.outcome

    def add_done_callback(self, callback: Callable[[Ended], None]) -> None:
        callback(self)


@pytest.mark.parametrize(("retries", "alone"), [(0, 0), (3, 1), (5, 2)])
def test_what_workers_die_of_ends_without_the_shards_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retries: int, alone: int
) -> None:
    distributed = pytest.importorskip("distributed")
    storage, deadly, crashed = Storage(tmp_path), 2, []
    given: list[list[int]] = []
    died = distributed.KilledWorker("key", SimpleNamespace(address="tcp://there"), 3)

    class Dying(DaskWorkers):
        def window(self) -> int:
            return 2

        def submit(self, task: Any, order: AnyOrder, parameters: Mapping[str, Any]) -> Any:
            orders = parameters.get("orders", [order])
            given.append([order.shard for order in orders])
            if deadly in given[-1]:
                storage.create(f".work/claims/candidates/{deadly:05d}.1", b"")
                return Ended(died)
            made = [{"shard": order.shard, "rows": 1, "rejected": {}, "details": {}, "seconds": 1} for order in orders]
            return Ended([("", manifest) for manifest in made] if len(made) > 1 else made[0])

        def release(self, future: Any) -> None:
            """Nothing to forget."""

        def end_stage(self) -> None:
            """Nothing to release."""

    nothing: Any = SimpleNamespace(client=SimpleNamespace(cluster=None))
    monkeypatch.setattr(runner, "find_manifest", lambda key: None)
    monkeypatch.setattr(runner, "crash_task_run", lambda task_run, why: crashed.append(task_run))
    place = Environment(output=str(tmp_path), sources={}, cache="", max_rejected_share=1)
    orders = [
        Order("candidates", 1, number, f"candidates {number}", Inputs(), Settings(place=""), place)
        for number in range(5)
    ]
    config = RunnerConfig(kind="dask", address="tcp://there:1", shards_per_task=4, retries_of_lost_workers=retries)
    with BuildProgress(storage, console=Console(quiet=True), on_page=False) as progress:
        made = StageRunner(Dying(config, 2, nothing), storage, progress).run(candidates, orders)
    assert [failure["shard"] for failure in progress.failures] == ([deadly] if retries else [0, 1, 2, 3])
    assert sorted(made) == ([0, 1, 3, 4] if retries else [4])
    # That it died with four workers the scheduler tells once.
    assert given.count([deadly]) == alone
    assert len(crashed) == 1 + alone


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


def test_who_does_what_is_told_by_what_workers_have_begun(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    for name, worker in {"00001.1": "1 on a", "00001.2": "7 on b", "00002.1": "3 on a"}.items():
        storage.create(f".work/claims/verify/{name}", f"process {worker}\n".encode())
    environment = Environment(output=str(tmp_path), sources={}, cache="", max_rejected_share=1)
    settings = Settings(place=str(tmp_path))
    given = [
        (Order("verify", 1, number, f"verify {number}", Inputs(), settings, environment), f"verify {number}")
        for number in range(1, 4)
    ]
    found = by_worker(given, lambda order: latest_worker(storage, order.stage, order.shard), "Ray, 2 nodes", 4)
    assert [(one["worker"], one["threads"], one["tasks"]) for one in found] == [
        ("process 3 on a", 1, ["verify 2"]),
        ("process 7 on b", 1, ["verify 1"]),
        ("Ray, 2 nodes", 2, ["verify 3"]),
    ]
    assert by_worker([], lambda order: None, "Ray, 1 node", 0) == []
