"""Builds on a real Dask cluster of processes: the same bytes, whatever becomes of workers and scheduler on the way."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from prefect.settings import get_current_settings

from talking_points.config import ConfigError
from tasks.running.clusters import ClusterLost
from tasks.running.storage import Storage
from tests.blocks import CLUSTER, printed_by, run_lines
from tests.fault_server import MODEL, FaultServer, serving
from tests.flows.building import build, published
from tests.flows.clusters import DaskCluster, dask_cluster
from tests.flows.serving import REPOSITORY, wait_for

pytest.importorskip("prefect_dask", reason="the extra 'dask' is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("orchestrator")]

KILLS = int(os.environ.get("KILLS", "2"))
"""Workers that are killed during one build; more of them by hand."""
SHARDS = (f"limit={12 if KILLS < 5 else 36}", "shard_size=4")


@pytest.fixture(scope="module")
def model() -> Iterator[FaultServer]:
    with serving(FaultServer(delay=0.4)) as server:
        yield server


@pytest.fixture(scope="module")
def reference(
    orchestrator: None, drawn: dict[str, Path], model: FaultServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], Counter[int]]:
    """What threads publish, and the requests of a build."""
    output = tmp_path_factory.mktemp("reference") / "out"
    build(output, drawn, *SHARDS, step(model))
    requests = Counter(seen.seed for seen in model.seen)
    assert set(requests.values()) == {1}
    return published(output), requests


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask"), 2) as started:
        yield started


def step(model: FaultServer) -> str:
    return f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}', concurrency: 1}}"


def on(cluster: DaskCluster, more: str = "") -> str:
    return f"runner={{kind: dask, address: '{cluster.address}'{more}}}"


def has_seen(model: FaultServer, count: int) -> bool:
    return len(model.seen) >= count


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread beside the block; its error counts."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        if errors:
            raise errors[0]


def asked_again(model: FaultServer, requests: Counter[int], killed: int) -> None:
    """Every request was asked, and again only what was taken away: of each killed worker one answer on its way,
    and one not yet stored.
    """
    times = Counter(seen.seed for seen in model.seen)
    assert set(requests) == set(times)
    assert times.total() - len(times) <= 2 * killed, "answers that were there were asked for again"


def test_killed_and_paused_workers_change_nothing(
    cluster: DaskCluster,
    reference: tuple[dict[str, str], Counter[int]],
    model: FaultServer,
    drawn: dict[str, Path],
    tmp_path: Path,
) -> None:
    output, draw = tmp_path / "out", random.Random(11)
    model.seen.clear()
    kills: list[float] = []
    paused: list[str] = []

    def disturb() -> None:
        for number in range(KILLS):
            wait_for(partial(has_seen, model, 1 + number), 240, "requests")
            time.sleep(draw.uniform(0, 0.3))
            name = draw.choice(sorted(cluster.workers))
            cluster.end(name)
            kills.append(time.monotonic())
            cluster.start_worker(f"{name}-{number}")
        # A worker in the middle of a shard does not answer until another one has made it.
        before = len(model.seen)
        wait_for(lambda: len(model.seen) > before, 240, "requests")
        claims = Storage(output).names(".work/claims/local_caption")
        busy = {int(path.read_text().split()[1]) for path in (output / ".work/claims/local_caption").iterdir()}
        name = next(name for name, process in cluster.workers.items() if process.pid in busy)
        paused.append(name)
        cluster.end(name, signal.SIGSTOP)
        kills.append(time.monotonic())
        wait_for(
            lambda: any(new.endswith((".2", ".3")) for new in Storage(output).names(".work/claims/local_caption")
                        if new not in claims),
            120, "another attempt at its shard",
        )  # fmt: skip

    with meanwhile(disturb):
        result = build(output, drawn, *SHARDS, step(model), on(cluster))
    files = {path: path.read_bytes() for path in output.rglob("*.parquet")}
    name = paused[0]
    cluster.end(name, signal.SIGCONT)
    # It ends by itself, because its scheduler has given it up, or goes on; either way it leaves nothing.
    time.sleep(3)
    cluster.end(name)
    cluster.start_worker("afterwards")
    assert {path: path.read_bytes() for path in output.rglob("*.parquet")} == files
    assert published(output) == reference[0]
    assert result["rejected"] == 0
    asked_again(model, reference[1], len(kills))
    assert not list(output.rglob("*.part"))


def test_the_commands_of_the_page_build_on_a_cluster(
    cluster: DaskCluster, drawn: dict[str, Path], tmp_path: Path
) -> None:
    *_, block = printed_by(CLUSTER)
    address, api, output = cluster.address.removeprefix("tcp://"), get_current_settings().api.url, tmp_path / "out"
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    printed = run_lines(block.typed(address, api, output, drawn["partimagenet"]), REPOSITORY, environment)
    result = json.loads(printed.splitlines()[-1])
    assert result["rows"] > 0
    assert Storage(output).names(".work/claims/local_caption"), "made by workers of the cluster"


def test_a_lost_scheduler_ends_the_build_and_a_new_one_goes_on(
    cluster: DaskCluster,
    reference: tuple[dict[str, str], Counter[int]],
    model: FaultServer,
    drawn: dict[str, Path],
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    model.seen.clear()

    def kill() -> None:
        wait_for(lambda: len(model.seen) > 4, 240, "requests")
        cluster.close()

    with meanwhile(kill), pytest.raises(ClusterLost, match="is gone: start it"):
        build(output, drawn, *SHARDS, step(model), on(cluster))
    cluster.start_scheduler()
    cluster.start_worker("v0")
    cluster.start_worker("v1")
    # Several shards of a task run, and the same bytes.
    wait_for(lambda: "Registered to" in cluster.log("v0"), 60, "a worker")
    again = build(output, drawn, *SHARDS, step(model), on(cluster, ", shards_per_task: 3"))
    assert again["reused_shards"] >= 10
    assert published(output) == reference[0]
    asked_again(model, reference[1], 2)
    assert build(output, drawn, *SHARDS, step(model), "runner=threads")["executed_shards"] == 0


def test_a_request_to_stop_reaches_workers_that_know_the_output_alone(
    cluster: DaskCluster, model: FaultServer, drawn: dict[str, Path], tmp_path: Path
) -> None:
    from commands.status import read_status, stop_build

    output = tmp_path / "out"
    model.seen.clear()

    def stop() -> None:
        wait_for(lambda: len(model.seen) > 2, 240, "requests")
        status = read_status(Storage(output))
        assert status["running"]
        assert "to stop" in stop_build(Storage(output))

    with meanwhile(stop), pytest.raises(KeyboardInterrupt):
        build(output, drawn, *SHARDS, step(model), on(cluster))
    status = read_status(Storage(output))
    assert (status["running"], status["state"]) == (False, "stopped")
    # Workers end at their next row.
    time.sleep(3)
    asked = len(model.seen)
    time.sleep(1)
    assert len(model.seen) == asked
    assert asked < 12


def test_what_no_worker_can_do_is_said_before_anything_is_made(
    cluster: DaskCluster, drawn: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"resources\.local_caption: no worker has GPU: 1 .*--resources GPU=1"):
        build(output, drawn, *SHARDS, on(cluster, ", resources: {local_caption: {GPU: 1}}"))

    # A worker with other code: a copy of ours, with a changed file.
    code = tmp_path / "code"
    for part in ("talking_points", "tasks", "prompts", "configs", "data_cards"):
        shutil.copytree(REPOSITORY / part, code / part, ignore=shutil.ignore_patterns("__pycache__"))
    with (code / "tasks" / "verify.py").open("a") as file:
        file.write("# changed\n")
    environment = cluster.environment
    cluster.environment = {"PYTHONPATH": str(code)}
    try:
        cluster.start_worker("other")
        wait_for(lambda: "Registered to" in cluster.log("other"), 60, "a worker")
        with pytest.raises(ConfigError, match=r"the worker tcp://.* its code in .* is not that of the build"):
            build(output, drawn, *SHARDS, on(cluster))
    finally:
        cluster.environment = environment
        cluster.end("other")
    assert not list(output.rglob("*.parquet"))
