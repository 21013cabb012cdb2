"""The build flow, with a log of the shards it executes and with shards that can be told to fail.

``EXECUTIONS`` names the log: one line ``start KEY`` and, when the shard was made, ``end KEY``. ``BROKEN`` names a file
with the keys of shards that fail. ``SLOWLY`` are seconds that every shard of texts takes longer. Run as a program it
is the command line. All of it works in other processes.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from commands import orchestrator
from commands.local import local_orchestration

if __name__ == "__main__":
    # What the command does before it imports Prefect, which the lines below do already.
    output = next((word.removeprefix("output=") for word in sys.argv if word.startswith("output=")), None)
    records = None if output is None or "://" in output else Path(output).absolute() / ".work" / "results"
    local_orchestration("--verbose" in sys.argv, records)
    port = orchestrator.claim_port()
    orchestrator.claim_port = lambda: port

import tasks.running.shards as shards
from talking_points.descriptions.backends.protocol import STEPS
from tasks.running.manifests import Manifest
from tasks.running.result_records import ShardTask
from tasks.running.shards import AnyOrder

_plain = shards.shard_task


def _shard_task(stage: str) -> Callable[[Callable[[AnyOrder], Manifest]], ShardTask]:
    def decorate(run: Callable[[AnyOrder], Manifest]) -> ShardTask:
        @functools.wraps(run)
        def logged(order: AnyOrder) -> Manifest:
            key = f"{order.stage}-{order.shard}"
            _log(f"start {key}")
            if key in _broken():
                raise OSError(f"the disk of {key} is gone")
            if stage in STEPS:
                time.sleep(float(os.environ.get("SLOWLY", "0")))
            manifest = run(order)
            _log(f"end {key}")
            return manifest

        return _plain(stage)(logged)

    return decorate


def _log(line: str) -> None:
    # One short write to a file opened for appending: lines of several processes never mix, and survive a kill.
    descriptor = os.open(os.environ["EXECUTIONS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def _broken() -> list[str]:
    path = Path(os.environ.get("BROKEN", "/nowhere"))
    return path.read_text().split() if path.exists() else []


shards.shard_task = _shard_task

from flows.build_llamapointinpart import build_llamapointinpart  # noqa: E402

__all__ = ["build_llamapointinpart"]

if __name__ == "__main__":
    from commands.cli import main

    main()
