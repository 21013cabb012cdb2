"""What many rows and many workers cost: sampling and assembling, a cluster of Dask, orchestration.

    python benchmarks/scale.py rows 250000             # synthetic candidates through sample and assemble
    python benchmarks/scale.py workers 1 2 4           # a stage that waits for a served model, on so many workers
    python benchmarks/scale.py shards 100 1000         # what orchestrating shards costs that do nothing
    python benchmarks/scale.py simulate                # 10^6 to 10^8 points on 10 to 1,000 workers, from such costs

``rows`` runs each stage as its tasks, in pieces where there are many rows, on two processes, and prints its seconds and
the peak memory of the process that gives out and of the others; candidates are made, not decoded, and published by
reference. ``workers`` and ``shards`` start a scheduler and workers of Dask as processes of
this machine, and a temporary Prefect server. Every line that is printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

SHARD = 10_000
"""Rows of a synthetic shard."""
PROCESSES = 2
"""That make pieces at the same time."""
REQUEST, REQUESTS = 0.2, 20
"""Seconds that a served model takes for an answer, and answers of a shard, one after another."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rows", "workers", "shards", "simulate", "stage"])
    parser.add_argument("values", nargs="*", default=[])
    parser.add_argument("--per-task", nargs="+", default=["1", "50", "auto"], help="of 'shards': so many in a task run")
    parser.add_argument("--folder", type=Path, help="where files go; default: a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-", dir=given.folder) as folder:
        if given.what == "rows":
            for count in given.values or ["250000"]:
                measure_rows(int(count), Path(folder, count))
        elif given.what == "stage":
            run_stage(given.values[0], int(given.values[1]), Path(given.values[2]))
        elif given.what == "workers":
            measure_workers([int(value) for value in given.values or ["1", "2", "4"]], Path(folder))
        elif given.what == "shards":
            measure_shards([int(value) for value in given.values or ["100", "1000"]], given.per_task, Path(folder))
        else:
            simulate()


# ------------------------------------------------------------------ rows


def measure_rows(count: int, folder: Path) -> None:
    """Make candidates, choose all of them, and publish them, one process after another."""
    for stage in ("make", "sample", "verify", "assemble"):
        command = [sys.executable, __file__, "stage", stage, str(count), str(folder)]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def run_stage(stage: str, count: int, folder: Path) -> None:
    """One stage in this process; prints its seconds and the most memory that it took."""
    began = time.perf_counter()
    steps = {"make": make_candidates, "sample": sample_all, "verify": describe_all, "assemble": assemble_all}
    steps[stage](count, folder)
    print(
        json.dumps(
            {
                "stage": stage,
                "rows": count,
                "seconds": round(time.perf_counter() - began, 1),
                "processor_seconds": round(sum(sum(resource.getrusage(who)[:2]) for who in _BOTH), 1),
                "driver_gib": _peak(resource.RUSAGE_SELF),
                "worker_gib": _peak(resource.RUSAGE_CHILDREN),
            }
        ),
        flush=True,
    )


_BOTH = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _peak(who: int) -> float:
    """GiB that this process, or the largest of those that it has waited for, has taken at most."""
    return round(resource.getrusage(who).ru_maxrss / 2**20, 3)


def make_candidates(count: int, folder: Path) -> None:
    """Shards of rows that differ in what sampling and splitting look at."""
    from talking_points.records import CANDIDATE_SCHEMA, SOURCES
    from tasks.running.storage import Storage

    storage, draw = Storage(folder), np.random.default_rng(0)
    manifests, rows = [], min(SHARD, -(-count // 3))
    for number, start in enumerate(range(0, count, rows)):
        size = min(rows, count - start)
        numbers = np.arange(start, start + size)
        text: dict[str, Any] = {
            "id": [f"{value * 0x9E3779B97F4A7C15 % 2**64:016x}" for value in numbers.tolist()],
            "source": [SOURCES[number % 3]] * size,
            "image_id": [f"image-{value}" for value in (numbers // 2).tolist()],
            "image_path": [f"images/{value}.jpg" for value in (numbers // 2).tolist()],
            "image_sha256": [f"{value:064x}" for value in (numbers // 2).tolist()],
            "image_phash": np.repeat(draw.integers(0, 2**64, size // 2 + 1, dtype=np.uint64), 2)[:size],
            "object": [f"animal {value % 60}" for value in numbers.tolist()],
            "part": [f"part {value % 7}" for value in numbers.tolist()],
        }
        table: dict[str, Any] = {}
        for field in CANDIDATE_SCHEMA:
            if field.name in text:
                table[field.name] = pa.array(text[field.name], field.type)
            elif pa.types.is_string(field.type):
                table[field.name] = pa.array([f"in the upper left of the {field.name}"] * size, field.type)
            elif field.name == "flags":
                table[field.name] = pa.array([[]] * size, field.type)
            elif pa.types.is_fixed_size_list(field.type) or pa.types.is_list(field.type):
                table[field.name] = pa.array([[10.0, 20.0, 30.0, 40.0][: _length(field.name)]] * size, field.type)
            elif pa.types.is_boolean(field.type):
                table[field.name] = pa.array([True] * size, field.type)
            else:
                table[field.name] = pa.array([480] * size, field.type)
        manifests.append(_write(storage, "candidates", number, pa.table(table, schema=CANDIDATE_SCHEMA)))
    storage.write_json("candidates.json", manifests)


def _length(name: str) -> int:
    return 2 if name == "keypoint" else 4


def sample_all(count: int, folder: Path) -> None:
    from tasks import sample

    settings = sample.Settings(
        seed=0, limit=None, shard_size=1000, points=dict.fromkeys(_sources()), equal_shares=False
    )
    inputs = sample.CandidateInputs(candidates=tuple(_read(folder, "candidates")))
    manifest = _run_pieces(sample.run_sample, sample.cut_sample(_order("sample", folder, settings, inputs)))
    Path(folder, "sample.json").write_text(json.dumps(manifest))


def describe_all(count: int, folder: Path) -> None:
    """What the stages of text would add, as constants with the row's number."""
    from tasks.running.storage import Storage
    from tasks.verify import VERIFIED_SCHEMA

    storage, manifests = Storage(folder), []
    for part in json.loads(Path(folder, "sample.json").read_text())["details"]["shards"]:
        rows = storage.read_table(part["path"])
        for name in ("object_caption", "local_caption", "draft", "description"):
            words = [f"the left edge of the {value} in the middle of a wide field" for value in rows["id"].to_pylist()]
            rows = rows.append_column(name, pa.array(words))
        rows = rows.select(VERIFIED_SCHEMA.names).cast(VERIFIED_SCHEMA)
        manifests.append(_write(storage, "verify", part["shard"], rows))
    storage.write_json("verify.json", manifests)


def assemble_all(count: int, folder: Path) -> None:
    from talking_points.build_config import BuildConfig
    from tasks import assemble

    config = BuildConfig(output=str(folder), images="reference", rows_per_file=10_000)
    settings = assemble.Settings(
        config=config, sampling=config.sampling, seed=0, images="reference", rows_per_file=config.rows_per_file,
        steps=assemble.describe_steps(config), packages=assemble.package_versions(), drawn=[],
    )  # fmt: skip
    found = _read(folder, "candidates")
    sources = tuple(
        assemble.SourceInputs(source=name, listing=found[place], candidates=tuple(found[place::3]))
        for place, name in enumerate(_sources())
    )
    sampled = json.loads(Path(folder, "sample.json").read_text())
    inputs = assemble.FinishedInputs(verified=tuple(_read(folder, "verify")), sources=sources, sample=sampled, texts=())
    made = _run_pieces(assemble.run_assemble, assemble.cut_assemble(_order("assemble", folder, settings, inputs)))
    assert made["rows"] == count


def _run_pieces(run: Callable[[Any], Any], orders: Sequence[Any]) -> Any:
    """The manifest of a stage of one result: what pieces it has are made by two processes. Those that are there from a
    run that was killed are not made again.
    """
    from tasks.running.manifests import holds
    from tasks.running.pieces import InPieces
    from tasks.running.shards import order_key
    from tasks.running.storage import Storage

    whole = orders[0]
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        if isinstance(orders, InPieces):
            storage, made = Storage(whole.environment.output), dict[int, Any]()
            for cut in orders.cuts:
                given = {order_key(order): order for order in cut(made)}
                names = {key: f"kept/{key}.json" for key in given}
                kept = {key: storage.read_json(name) for key, name in names.items() if storage.exists(name)}
                kept = {key: manifest for key, manifest in kept.items() if holds(storage, manifest)}
                missing = {pool.submit(_run_sealed, run, order): key for key, order in given.items() if key not in kept}
                for future in as_completed(missing):
                    kept[missing[future]] = future.result()
                    storage.write_json(names[missing[future]], future.result())
                made |= {given[key].shard: manifest for key, manifest in kept.items()}
            whole = orders.finish(made)
        return pool.submit(run, whole).result()


def _run_sealed(run: Callable[[Any], Any], order: Any) -> Any:
    from tasks.running.manifests import add_seal

    return add_seal(run(order))


def _sources() -> tuple[str, ...]:
    from talking_points.records import SOURCES

    return SOURCES


def _read(folder: Path, stage: str) -> list[Any]:
    found: list[Any] = json.loads(Path(folder, f"{stage}.json").read_text())
    return found


def _write(storage: Any, stage: str, number: int, table: pa.Table) -> dict[str, Any]:
    name = f".work/{stage}/{number:05d}.parquet"
    storage.write_table(name, table)
    return {
        "stage": stage, "shard": number, "path": name, "rows": table.num_rows, "rejected": {},
        "files": {name: storage.sha256(name)}, "seconds": 0.0, "details": {},
    }  # fmt: skip


def _order(stage: str, folder: Path, settings: Any, inputs: Any) -> Any:
    from tasks.running.shards import Environment, Order, Place

    places = {name: Place(root=str(folder), options={}) for name in _sources()}
    environment = Environment(output=str(folder), sources=places, cache="", max_rejected_share=1)
    return Order(stage, 1, 0, stage, inputs, settings, environment)


# ------------------------------------------------------------------ workers and shards


def measure_workers(counts: list[int], folder: Path) -> None:
    """A stage that waits for answers, on each number of workers: its seconds from the start of its first shard to the
    commit of its last one, and the share of them that the answers alone would take. Every worker has had a shard
    before, so that its code is loaded. ``with_giving_out``: until the driver has read the last result.
    """
    shards = 4 * max(counts)
    alone = None
    for count in counts:
        with _cluster(folder, count) as cluster, _orchestrator(folder):
            output = folder / f"workers-{count}"
            made = _run(output, cluster.address, shards, REQUEST * REQUESTS, 1, warm=2 * count)
        seconds = _between(output, shards)
        alone = alone or seconds * count
        print(json.dumps({"workers": count, "shards": shards, "seconds": round(seconds, 1),
                          "of_ideal": round(shards * REQUEST * REQUESTS / count / seconds, 3),
                          "of_one_worker": round(alone / count / seconds, 3),
                          "with_giving_out": round(made, 1)}), flush=True)  # fmt: skip


def _between(output: Path, shards: int) -> float:
    """Seconds from the start of the first of so many shards to the commit of the last one."""
    import pyarrow.parquet as pq

    files = [
        path for path in (output / ".work" / "candidates").glob("*.parquet") if int(path.name.split(".")[0]) < shards
    ]
    assert len(files) == shards
    return max(path.stat().st_mtime for path in files) - min(pq.read_table(path)["began"][0].as_py() for path in files)


def measure_shards(counts: list[int], sizes: list[str], folder: Path) -> None:
    """Shards that do nothing, so many in a task run: seconds, the processor seconds that the driver, the scheduler and
    Prefect's server have spent meanwhile, and the memory that each holds afterwards.
    """
    with _cluster(folder, 2) as cluster, _orchestrator(folder) as server:
        processes = {"driver": os.getpid(), "scheduler": cluster.scheduler, "server": server}
        for size in sizes:
            for count in counts:
                each = size if size == "auto" else int(size)
                before = {name: _processor(process) for name, process in processes.items()}
                seconds = _run(folder / f"shards-{size}-{count}", cluster.address, count, 0.0, each, warm=2)
                print(json.dumps({"shards": count, "shards_per_task": each, "seconds": round(seconds, 1),
                                  "ms_per_shard": round(1000 * seconds / count, 1),
                                  **{f"{name}_processor_seconds": round(_processor(process) - before[name], 1)
                                     for name, process in processes.items()},
                                  **{f"{name}_gib": _memory(process) for name, process in processes.items()}}),
                      flush=True)  # fmt: skip


def _run(output: Path, address: str, shards: int, waits: float, size: Any, *, warm: int) -> float:
    """Seconds of a stage whose shards wait so long, after ``warm`` shorter ones with which workers import the code."""
    from prefect import flow
    from rich.console import Console
    from scale_stage import Settings, wait

    from talking_points.runner_config import RunnerConfig
    from tasks.running.clusters import open_workers
    from tasks.running.progress import BuildProgress
    from tasks.running.runner import StageRunner
    from tasks.running.shards import Environment, Inputs, Order
    from tasks.running.storage import Storage

    environment = Environment(output=str(output), sources={}, cache="", max_rejected_share=1)

    def orders(numbers: range, seconds: float) -> list[Any]:
        settings = Settings(seconds=seconds, output=str(output))
        return [Order("candidates", 1, number, f"wait {number}", Inputs(), settings, environment) for number in numbers]

    config = RunnerConfig(kind="dask", address=address, shards_per_task=size)
    storage = Storage(output)

    @flow(persist_result=False)
    def stage() -> float:
        with BuildProgress(storage, console=Console(quiet=True)) as progress, open_workers(config, 1) as workers:
            runner = StageRunner(workers, storage, progress)
            runner.run(wait, orders(range(shards, shards + warm), 1.0))
            began = time.perf_counter()
            made = runner.run(wait, orders(range(shards), waits))
            assert len(made) == shards, progress.failures[:1]
            return time.perf_counter() - began

    return stage()


def _memory(process: int) -> float:
    """GiB that a process holds now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**30, 3)


def _processor(process: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _orchestrator(folder: Path) -> Iterator[int]:
    """A temporary Prefect server; gives its process."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_LOGGING_LEVEL, PREFECT_RESULTS_LOCAL_STORAGE_PATH, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    with (
        prefect_test_harness(server_startup_timeout=180),
        temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: folder / "results", PREFECT_LOGGING_LEVEL: "CRITICAL"}),
    ):
        server = SubprocessASGIServer().server_process
        assert server is not None
        yield server.pid


@dataclass(frozen=True)
class _Cluster:
    """Its address, and the process of its scheduler."""

    address: str
    scheduler: int


@contextmanager
def _cluster(folder: Path, workers: int) -> Iterator[_Cluster]:
    """A scheduler and workers as processes."""
    from commands.orchestrator import free_port

    program, port = str(Path(sys.executable).with_name("dask")), free_port()
    address = f"tcp://127.0.0.1:{port}"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent)}
    scheduler = [program, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    started = [subprocess.Popen(scheduler, env=environment, **quiet)]  # it reads what the workers are to do
    try:
        for _ in range(workers):
            started.append(
                subprocess.Popen(
                    [program, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
                     "--preload", "tasks.running.dask_worker", "--local-directory", str(folder / "spill")],
                    env=environment, **quiet,
                )
            )  # fmt: skip
        from distributed import Client

        with Client(address, timeout=60) as client:
            client.wait_for_workers(workers, timeout=180)
        yield _Cluster(address, started[0].pid)
    finally:
        for process in reversed(started):
            with suppress(ProcessLookupError):
                process.kill()
            process.wait(30)


# ------------------------------------------------------------------ simulation


def simulate() -> None:
    """Hours of a stage of text by a served model, and what binds: workers, or the driver that gives the tasks out.

    From an answer that takes ``REQUEST`` seconds, and from what a task run and a shard in it cost the driver, as
    ``shards 100`` measured on two shared cores.
    """
    task, each, rows = 0.19, 0.024, 200
    for points in (10**6, 10**7, 10**8):
        for workers in (10, 100, 1000):
            for size in (1, 10, 100):
                shards = points / rows
                work = points * REQUEST / workers
                driver = shards / size * task + shards * each
                print(json.dumps({
                    "points": points, "workers": workers, "shards_per_task": size, "task_runs": round(shards / size),
                    "minutes_of_a_task": round(size * rows * REQUEST / 60, 1),
                    "hours": round(max(work, driver) / 3600, 2), "binds": "workers" if work > driver else "driver",
                }), flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
