"""Builds on a real Dask cluster of processes: the same bytes, whatever becomes of workers and scheduler on the way."""

from __future__ import annotations

import hashlib
import html
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import get_current_settings

from commands.orchestrator import free_port
from commands.status import read_status, stop_build
from talking_points.config import Section
from talking_points.errors import InputError
from talking_points.runner_config import RunnerConfig
from tasks import assemble, sample
from tasks.index import index
from tasks.running import dataset_figures, progress, runner, runner_checks
from tasks.running.clusters import open_workers
from tasks.running.dask_cluster import DaskWorkers
from tasks.running.shards import Environment, Inputs, Order
from tasks.running.status_tables import worker_notes
from tasks.running.storage import Storage
from tasks.running.workers import ClusterLost
from tests.blocks import CLUSTER, printed_by, run_lines
from tests.fault_server import MODEL, FaultServer, Seen, serving
from tests.flows.building import build, published
from tests.flows.clusters import DaskCluster, dask_cluster
from tests.flows.serving import REPOSITORY
from tests.object_store import bucket
from tests.patience import wait_for
from tests.soak import repeats

pytest.importorskip("prefect_dask", reason="the extra 'dask' is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("orchestrator")]

KILLS = repeats(10, 30)
"""Workers that are killed during one build."""
AFTERWARDS = 3
"""Of these, killed after the scheduler was."""
SEED = int(os.environ.get("SEED", "11"))
SHARDS = ("limit=20", "shard_size=4", "rows_per_file=5")
DELAY = 0.25
"""Seconds in which the model answers."""
ON_THE_WAY = 2.0
"""Seconds after which an answer is stored, also by a worker that hardly gets a processor."""


HIDES = """
from importlib import util
found = util.find_spec
util.find_spec = lambda name, *more: None if name == {0!r} else found(name, *more)
"""
"""What lets a worker be without a package, as far as it can tell."""
OLDER = """
from importlib import metadata
found = metadata.version
metadata.version = lambda name: "1.0" if name == {0!r} else found(name)
"""
"""What lets a worker have an older release of a package, as far as it can tell."""
SLOWS = """
import time
from tasks.running import dataset_figures
from tasks.running.shards import ShardWriter

dataset_figures.EXAMPLES = 2
begin = ShardWriter.__post_init__

def begin_slowly(writer):
    begin(writer)
    if writer.order.stage in ("sample", "assemble"):
        time.sleep(0.75)

ShardWriter.__post_init__ = begin_slowly
"""
"""What lets a worker take so long for what it samples and assembles that it can be killed meanwhile; of the images of
the card, which take seconds to draw, it draws two.
"""
COVERS = """
import ctypes, sys
libc = ctypes.CDLL(None)
apart = 0x10020000  # CLONE_NEWUSER | CLONE_NEWNS
if libc.unshare(apart) or libc.mount(b"none", {0!r}.encode(), b"tmpfs", 0, None):
    print("no other view of the files is allowed here", file=sys.stderr)
    sys.exit()
"""
"""What lets a worker see an empty folder in the place of another one."""


@pytest.fixture(scope="module")
def model() -> Iterator[FaultServer]:
    with serving(FaultServer(delay=DELAY)) as server:
        yield server


@pytest.fixture(scope="module")
def reference(
    orchestrator: None, drawn: dict[str, Path], model: FaultServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], set[int]]:
    """What threads publish, and the requests of a build."""
    output = tmp_path_factory.mktemp("reference") / "out"
    with pytest.MonkeyPatch.context() as drawing:
        drawing.setattr(dataset_figures, "EXAMPLES", 2)
        build(output, drawn, *SHARDS, "workers=4", step(model))
    requests = Counter(seen.seed for seen in model.seen)
    assert set(requests.values()) == {1}
    return published(output), set(requests)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder in a bucket, which the workers' environment leads to as well."""
    with bucket(tmp_path_factory.mktemp("bucket").name) as url:
        yield url


@pytest.fixture(scope="module")
def cluster(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask"), 2, SLOWS) as started:
        yield started


def step(model: FaultServer) -> str:
    return f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}', concurrency: 1}}"


def on(cluster: DaskCluster, more: str = "") -> str:
    return f"runner={{kind: dask, address: '{cluster.address}'{more}}}"


MANY_LOSSES = ", retries_of_lost_workers: 12"
"""Of few shards one may be what is under way at every kill."""


def claims(output: Path, stage: str = "*") -> list[Path]:
    """The attempts at shards so far."""
    return [path for path in (output / ".work" / "claims").glob(f"{stage}/*") if path.suffix[1:].isdigit()]


def has_begun(output: Path, count: int) -> bool:
    return len(claims(output)) >= count


def maker_of(attempt: Path, cluster: DaskCluster) -> str | None:
    """The worker whose attempt it is, if it is there still."""
    process = int(attempt.read_text().split()[1])
    return next((name for name, own in cluster.workers.items() if own == process), None)


def has_seen(model: FaultServer, count: int) -> bool:
    return len(model.seen) >= count


DOES = re.compile(r"[a-z]\d+: local_caption \d/5 and 1 more")
"""What is said of a worker that has two shards in one task."""


def report_of_run(output: str) -> str:
    """The report on the page of the run of a build, without the marks of its language."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["build-report"])))
    reports = [html.unescape(str(artifact.data)).replace("\\", "") for artifact in found]
    return "\n".join(report for report in reports if f"# {output}\n" in report)


async def look_for_silent(dask_scheduler: Any) -> None:
    """Let a scheduler give up now who has been silent for five seconds, which it does at its ``LOST_AFTER`` else."""
    patience, dask_scheduler.worker_ttl = dask_scheduler.worker_ttl, 1
    try:
        await dask_scheduler.check_worker_ttl()
    finally:
        dask_scheduler.worker_ttl = patience


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


def check_requests(model: FaultServer, requests: set[int], losses: list[float]) -> None:
    """Every request was asked, and again only one that a lost worker had asked just before it was lost: its answer was
    on the way, or not yet stored.
    """
    seen: dict[int, list[Seen]] = defaultdict(list)
    for one in model.seen:
        seen[one.seed].append(one)
    assert set(seen) == requests
    for asked in seen.values():
        asked.sort(key=lambda one: one.came)
        for first, again in pairwise(asked):
            assert any(first.answered > lost - ON_THE_WAY and again.came > lost for lost in losses), (
                f"a request that was answered at {first.answered:.1f} was sent again at {again.came:.1f}; workers "
                f"were lost at {losses}"
            )
    assert len(model.seen) - len(seen) <= 2 * len(losses)


def test_killed_and_paused_workers_and_a_killed_scheduler_change_nothing(
    cluster: DaskCluster,
    reference: tuple[dict[str, str], set[int]],
    model: FaultServer,
    drawn: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (sample, assemble):
        monkeypatch.setattr(module, "AT_ONCE", 10)  # few rows are many: both are made in pieces
    output, draw = tmp_path / "out", random.Random(SEED)
    model.seen.clear()
    losses: list[float] = []

    def kill_workers(count: int) -> None:
        for _ in range(count):
            begun = len(claims(output))
            wait_for(partial(has_begun, output, begun + 1), 120, "a shard that is begun")
            time.sleep(draw.uniform(0, 2 * DELAY))
            name = draw.choice(sorted(cluster.workers))
            losses.append(time.monotonic())
            cluster.end(name)
            cluster.start_worker(f"k{len(losses)}", before=SLOWS)

    def kill_maker(stage: str) -> None:
        known = set(claims(output, stage))
        found: list[str] = []

        def is_made() -> bool:
            found.extend(filter(None, (maker_of(path, cluster) for path in set(claims(output, stage)) - known)))
            return bool(found)

        wait_for(is_made, 120, f"a worker that makes a piece of {stage}")
        losses.append(time.monotonic())
        cluster.end(found[0])
        cluster.start_worker(f"k{len(losses)}", before=SLOWS)

    def kill_workers_and_scheduler() -> None:
        kill_maker("sample")
        kill_workers(KILLS - AFTERWARDS - 1)
        wait_for(lambda: len(model.seen) > 4, 120, "requests")
        losses.extend([time.monotonic()] * 2)
        cluster.end_scheduler()

    with meanwhile(kill_workers_and_scheduler), pytest.raises(ClusterLost, match="is gone: start it"):
        build(output, drawn, *SHARDS, step(model), on(cluster, MANY_LOSSES))
    for name in list(cluster.workers):
        cluster.end(name)
    cluster.start_scheduler()
    for name in ("v0", "v1", "v2"):
        cluster.start_worker(name, before=SLOWS)
        cluster.await_worker(name)

    paused: list[int] = []

    def pause_one_and_kill_others() -> None:
        from distributed import Client

        begun = set(claims(output))
        with model.holding():
            # A worker in the middle of a shard does not answer until another one has begun to make it.
            wait_for(lambda: model.waiting > 0, 120, "requests")
            attempt = max(set(claims(output, "local_caption")) - begun, key=lambda path: path.stat().st_mtime)
            name = maker_of(attempt, cluster)
            assert name is not None
            losses.append(time.monotonic())
            cluster.end(name, signal.SIGSTOP)
        paused.append(cluster.workers.pop(name))
        later = attempt.with_suffix(f".{int(attempt.suffix[1:]) + 1}")
        with Client(cluster.address, set_as_default=False) as client:

            def is_made_again() -> bool:
                client.run_on_scheduler(look_for_silent)
                return later.exists()

            wait_for(is_made_again, 60, "another attempt at its shard")
        kill_workers(AFTERWARDS - 1)
        kill_maker("assemble")

    with meanwhile(pause_one_and_kill_others):
        again = build(output, drawn, *SHARDS, step(model), on(cluster, MANY_LOSSES))
    assert again["reused_shards"] >= 3
    assert again["rejected"] == 0
    for stage in ("sample", "assemble"):
        pieces = {path.name.rpartition(".")[0] for path in claims(output, stage)}
        assert len(pieces) > 3, "the whole, and its pieces"
        assert any(path.suffix != ".1" for path in claims(output, stage)), "one was begun twice"
    files = {path: path.read_bytes() for path in output.rglob("*.parquet")}
    (process,) = paused
    os.kill(process, signal.SIGCONT)
    # It ends by itself, because its scheduler has given it up, or goes on; either way it leaves nothing.
    with suppress(AssertionError):
        wait_for(lambda: not Path(f"/proc/{process}").exists(), 5, "its end")
    assert {path: path.read_bytes() for path in output.rglob("*.parquet")} == files
    assert published(output) == reference[0]
    check_requests(model, reference[1], losses)
    assert build(output, drawn, *SHARDS, step(model), "runner=threads")["executed_shards"] == 0
    assert not list(output.rglob("*.part")), (
        "what was being written when its worker was killed goes with the next build"
    )


def test_a_scheduler_that_has_gone_between_two_tasks_is_named(cluster: DaskCluster) -> None:
    order = Order(
        "index",
        1,
        0,
        "index",
        Inputs(),
        Section(),
        Environment(output="out", sources={}, cache="", max_rejected_share=1),
    )
    with open_workers(RunnerConfig(kind="dask", address=cluster.address), 1) as workers:
        assert isinstance(workers, DaskWorkers)
        workers.client.close()  # as it does itself where its scheduler does not come back
        with pytest.raises(ClusterLost, match="is gone: start it"):
            workers.submit(index.as_prefect(), order, {"order": order})


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


def test_a_request_to_stop_reaches_workers_that_know_the_output_alone(
    cluster: DaskCluster, model: FaultServer, drawn: dict[str, Path], tmp_path: Path
) -> None:
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
    time.sleep(2)
    asked = len(model.seen)
    time.sleep(4 * DELAY)
    assert len(model.seen) == asked
    assert asked < 20


def test_workers_of_a_cluster_write_to_an_object_store(
    cluster: DaskCluster, folder: str, reference: tuple[dict[str, str], set[int]], model: FaultServer,
    drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path))  # answers for an output elsewhere are kept in the user's cache
    monkeypatch.setattr(runner, "_DESCRIBE_EVERY", 0.5)
    for name in ("_WRITE_EVERY", "_REPORT_EVERY"):
        monkeypatch.setattr(progress, name, 0.5)
    storage = Storage(f"{folder}/out")
    model.seen.clear()

    def look() -> None:
        with model.holding():
            wait_for(lambda: model.waiting > 0, 240, "requests")
            wait_for(lambda: DOES.search("\n".join(worker_notes(read_status(storage)))) is not None, 60, "their tasks")
            wait_for(lambda: DOES.search(report_of_run(storage.output)) is not None, 60, "what the page says of them")

    with meanwhile(look):
        result = build(storage.output, drawn, *SHARDS, step(model), on(cluster, ", shards_per_task: 2"))
    assert result["executed_shards"] > 20
    for said in ("\n".join(worker_notes(read_status(storage))), report_of_run(storage.output)):
        assert re.search(r"2 worker\(s\), [\d.]+ rows/s of all stages, [\d.]+% of their time idle", said)
        assert re.search(r"slowest shards: \S+-\d+ [\d.]+ s, ", said)
        assert not DOES.search(said), "nothing is done any more"
    stored = {f"data/{name}": storage.read_bytes(f"data/{name}") for name in storage.names("data")}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in stored.items()}
    assert digests == {name: digest for name, digest in reference[0].items() if name.startswith("data/")}


def test_what_no_worker_can_do_is_said_before_anything_is_made(
    cluster: DaskCluster, model: FaultServer, drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    model.seen.clear()
    monkeypatch.setattr(runner_checks, "ANSWERS", 2.0)
    # A worker with other code: a copy of ours, with a changed file.
    code = tmp_path / "code"
    for part in ("talking_points", "tasks", "prompts", "configs", "data_cards"):
        shutil.copytree(REPOSITORY / part, code / part, ignore=shutil.ignore_patterns("__pycache__"))
    with (code / "tasks" / "verify.py").open("a") as file:
        file.write("# changed\n")

    elsewhere: list[subprocess.Popen[bytes]] = []

    def refused(words: str, *more: str) -> None:
        # What commands end with exit code 2 for.
        with pytest.raises(InputError, match=words):
            build(output, drawn, *SHARDS, step(model), *more)

    try:
        nobody = free_port()
        refused(
            rf"Dask's scheduler does not answer at tcp://127\.0\.0\.1:{nobody}",
            f"runner={{kind: dask, address: 'tcp://127.0.0.1:{nobody}'}}",
        )
        with socket.create_server(("127.0.0.1", 0)) as mute:
            mute_port = mute.getsockname()[1]
            refused(
                rf"does not answer at tcp://127\.0\.0\.1:{mute_port} \(it takes a connection and says nothing",
                f"runner={{kind: dask, address: 'tcp://127.0.0.1:{mute_port}'}}",
            )
        refused(
            r"on tls://.* cannot be used: TLS expects .*; certificates stand in Dask's configuration: ",
            f"runner={{kind: dask, address: '{cluster.address.replace('tcp', 'tls')}'}}",
        )
        refused(
            r"resources\.local_caption: no worker has GPU: 1 .*--resources GPU=1",
            on(cluster, ", resources: {local_caption: {GPU: 1}}"),
        )
        cluster.start_worker("poor", before=HIDES.format("httpx"))
        cluster.await_worker("poor")
        refused(
            r"the worker poor \(tcp://.* the package 'httpx', which local_caption needs, is not installed", on(cluster)
        )
        cluster.end("poor")
        cluster.start_worker("older", before=OLDER.format("opencv-contrib-python"))
        cluster.await_worker("older")
        refused(r"the worker older \(tcp://.* it has opencv-contrib-python 1\.0, the build [5-9]", on(cluster))
        cluster.end("older")
        cluster.start_worker("blind", before=COVERS.format(str(drawn["partimagenet"])))
        wait_for(lambda: any(word in cluster.log("blind") for word in ("Registered to", "no other view")), 60, "blind")
        if "no other view" not in cluster.log("blind"):
            refused(r"the worker blind \(tcp://.* it has other files at .*, the root of partimagenet", on(cluster))
        cluster.end("blind")
        elsewhere.append(cluster.start_elsewhere("elsewhere", PYTHONPATH=str(code)))
        cluster.await_worker("elsewhere")
        refused(r"the worker elsewhere \(tcp://.* its code in .* is not that of the build", on(cluster))
    finally:
        for process in elsewhere:
            process.kill()
            process.wait()
    assert not list(output.rglob("*.parquet"))
    assert not model.seen, "nothing was asked"
