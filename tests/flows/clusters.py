"""A real cluster of Dask on this machine: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from commands.orchestrator import free_port
from tests.blocks import CLUSTER, printed_by
from tests.flows.serving import REPOSITORY, wait_for

_SCHEDULER, _WORKER, _ = printed_by(CLUSTER)
"""What docs/clusters.md has one type on the machines of a cluster."""

LOST_AFTER = "12 s"
"""What a scheduler of the tests waits for a worker that does not answer."""


@dataclass
class DaskCluster:
    """Starts and ends its processes; ``environment`` is that of its workers."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    scheduler: subprocess.Popen[bytes] | None = None
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start_scheduler(self) -> None:
        # It answers at its port when it says so.
        (line,) = _SCHEDULER.commands
        self.scheduler = self._start(
            "scheduler", *line.split(), "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"
        )

    def start_worker(self, name: str, *arguments: str) -> None:
        (line,) = _WORKER.typed(self.address.removeprefix("tcp://"))
        self.workers[name] = self._start(
            name, *line.split(), "--name", name, "--no-nanny", "--no-dashboard",
            "--host", "127.0.0.1", "--local-directory", str(self.folder / "spill"), *arguments,
        )  # fmt: skip

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        process = self.workers[name]
        process.send_signal(number)
        if number == signal.SIGKILL:
            del self.workers[name]
            process.wait(30)

    def close(self) -> None:
        for process in [*self.workers.values(), *([self.scheduler] if self.scheduler else [])]:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait(30)
        self.workers.clear()
        self.scheduler = None

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _start(self, name: str, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": LOST_AFTER,
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3 s",
            "PYTHONPATH": str(REPOSITORY),
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [str(Path(sys.executable).with_name(program)), *arguments],
                cwd=REPOSITORY,
                env={**environment, **self.environment},
                stdout=log,
                stderr=log,
            )


@contextmanager
def dask_cluster(folder: Path, workers: int, **environment: str) -> Iterator[DaskCluster]:
    """A scheduler and so many workers, ``w0`` and on."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = DaskCluster(folder, environment)
    try:
        cluster.start_scheduler()
        wait_for(lambda: "Scheduler at:" in cluster.log("scheduler"), 60, "the scheduler")
        for number in range(workers):
            cluster.start_worker(f"w{number}")
        yield cluster
    finally:
        cluster.close()
