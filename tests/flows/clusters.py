"""A real cluster of Dask on this machine: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from commands.orchestrator import free_port
from tests.blocks import CLUSTER, printed_by
from tests.flows.serving import REPOSITORY
from tests.patience import wait_for

_SCHEDULER, _WORKER, _ = printed_by(CLUSTER)
"""What docs/clusters.md has one type on the machines of a cluster."""

LOST_AFTER = "15 s"
"""What a scheduler of the tests waits for a worker that does not answer: on a busy machine one that is well may need
four seconds and more.
"""


@dataclass
class DaskCluster:
    """Starts and ends its processes, by name: ``processes`` has their ids."""

    folder: Path
    nursery: subprocess.Popen[str]
    port: int = field(default_factory=free_port)
    scheduler: int | None = None
    workers: dict[str, int] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start_scheduler(self) -> None:
        """Start it and wait until it answers."""
        log = self.folder / "scheduler.log"
        log.unlink(missing_ok=True)
        (line,) = _SCHEDULER.commands
        _, program, *arguments = line.split()
        arguments += ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
        self.scheduler = self._fork(program, "scheduler", *arguments)
        wait_for(lambda: "Scheduler at:" in self.log("scheduler"), 60, "the scheduler")

    def start_worker(self, name: str, *arguments: str, before: str = "") -> None:
        """Start one; ``before`` is what its process does before it becomes a worker."""
        self.workers[name] = self._fork("worker", name, *self._worker(name), *arguments, before=before)

    def start_elsewhere(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """A worker that is started as on another machine, without anything of this process' code."""
        program = str(Path(sys.executable).with_name("dask"))
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, program, "worker", *self._worker(name)],
                cwd=REPOSITORY,
                env=_environment() | environment,
                stdout=log,
                stderr=log,
            )

    def await_worker(self, name: str) -> None:
        """Wait until its scheduler knows it."""
        wait_for(lambda: "Registered to" in self.log(name), 60, f"the worker {name}")

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a worker a signal."""
        process = self.workers[name]
        with suppress(ProcessLookupError):
            os.kill(process, number)
        if number == signal.SIGKILL:
            del self.workers[name]
            _await_end(process)

    def end_scheduler(self) -> None:
        """Kill it."""
        assert self.scheduler is not None
        os.kill(self.scheduler, signal.SIGKILL)
        _await_end(self.scheduler)

    def close(self) -> None:
        """Kill all."""
        for process in [*self.workers.values(), *([self.scheduler] if self.scheduler else [])]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.workers.clear()
        self.scheduler = None

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def _worker(self, name: str) -> list[str]:
        (line,) = _WORKER.typed(self.address.removeprefix("tcp://"))
        return [
            *line.split()[2:], "--name", name, "--no-nanny", "--no-dashboard", "--host", "127.0.0.1",
            "--local-directory", str(self.folder / "spill"),
        ]  # fmt: skip

    def _fork(self, program: str, name: str, *arguments: str, before: str = "") -> int:
        order = {
            "program": program,
            "arguments": arguments,
            "log": str(self.folder / f"{name}.log"),
            "before": before,
        }
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        self.nursery.stdin.write(json.dumps(order) + "\n")
        self.nursery.stdin.flush()
        return int(self.nursery.stdout.readline())


@contextmanager
def dask_cluster(folder: Path, workers: int, before: str = "") -> Iterator[DaskCluster]:
    """A scheduler and so many workers, ``w0`` and on, which do ``before`` first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "nursery.log").open("wb") as log:
        nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.nursery"],
            cwd=REPOSITORY,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with nursery:
        assert nursery.stdout is not None
        assert nursery.stdout.readline() == "ready\n", (folder / "nursery.log").read_text()
        cluster = DaskCluster(folder, nursery)
        try:
            cluster.start_scheduler()
            for number in range(workers):
                cluster.start_worker(f"w{number}", before=before)
            yield cluster
        finally:
            cluster.close()
            assert nursery.stdin is not None
            nursery.stdin.close()


def _environment() -> dict[str, str]:
    return os.environ | {
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": LOST_AFTER,
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3 s",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }


def _await_end(process: int) -> None:
    wait_for(lambda: not Path(f"/proc/{process}").exists(), 30, "the end of a process")
