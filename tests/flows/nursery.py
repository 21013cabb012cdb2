"""Starts schedulers and workers of Dask as forks of one process that has loaded the code, which saves seconds for each.

Every line of standard input is an order in JSON: ``program`` (``scheduler`` or ``worker``), ``arguments``, ``log``; and
the id of the process is the answer. When the input ends, so does all that was started.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

_END_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG`` of Linux."""


def main() -> None:
    from distributed.cli import dask_scheduler, dask_worker

    import talking_points.publishing.figures  # noqa: F401  # which the first dataset that a worker assembles loads else
    import tasks.running.dask_worker  # noqa: F401
    from tasks.running.worker_checks import code_digest

    code_digest()
    programs: dict[str, Any] = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    started = []
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if not process:
            become(programs[order["program"]], order)
        started.append(process)
        print(process, flush=True)
    for process in started:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def become(program: Any, order: dict[str, Any]) -> None:
    """Be this program until it ends."""
    try:
        # With the one that started it, it ends as well.
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number, file in enumerate((nothing, log, log)):
            os.dup2(file, number)
        exec(order.get("before", ""), {})
        program(order["arguments"], standalone_mode=False)
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
