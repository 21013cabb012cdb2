"""The jobs of ``make learn`` as tasks: each in a process of its own, as many at a time as there are cores for."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from threading import Semaphore
from typing import Self

from prefect import task
from prefect.cache_policies import NO_CACHE

from talking_points.stop_requests import Stopped
from talking_points.terminal import show
from tasks.learn_jobs import Job, Result, begin_process, measure_job

PRELOADED = (
    *("talking_points.evaluation.learning", "talking_points.training.stages", "tasks.learn_jobs"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "torch.utils.tensorboard"),
)
"""What every job needs, imported once."""


class JobProcesses:
    """So many processes at a time, a fresh one for every job: none finds what another has left in its memory.

    A server that has imported everything forks them. Prefect's own pool would either give a job the memory of the one
    before, or import everything for each, which takes ten seconds of a core: one twentieth of a whole run.
    After a job has failed no further one is started. As a context it ends those that are under way when its flow is
    stopped: they would go on for minutes.
    """

    def __init__(self, count: int) -> None:
        self._free = Semaphore(count)
        self._failed = False
        self._running: set[int] = set()
        server = "forkserver" in get_all_start_methods()  # not on Windows, where every job imports everything
        self._context: BaseContext = get_context("forkserver" if server else "spawn")
        if server:
            self._context.set_forkserver_preload(list(PRELOADED))

    def run(self, job: Job) -> Result:
        """What a job returned, as soon as a process was free for it."""
        with self._free:
            if self._failed:
                raise Stopped("another job of this run has failed")
            try:
                with ProcessPoolExecutor(1, self._context, initializer=begin_process) as process:
                    return self._follow(process, job)
            except BaseException:
                self._failed = True
                raise

    def _follow(self, process: ProcessPoolExecutor, job: Job) -> Result:
        number = process.submit(os.getpid).result()
        self._running.add(number)
        try:
            if self._failed:
                raise Stopped("another job of this run has failed, or the run was stopped")
            return process.submit(measure_job, job).result()
        finally:
            self._running.discard(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None or issubclass(kind, Exception):
            return
        self._failed = True
        for number in list(self._running):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGTERM)


@task(name="job", task_run_name="{job.name}", persist_result=False, cache_policy=NO_CACHE)
def run_job(job: Job, processes: JobProcesses) -> Result:
    """Run one job and print what it took."""
    result = processes.run(job)
    made = " (made before)" if result.get("reused") else ""
    show(f"{job.name:<22} {result['seconds']:.0f} s{made}")
    return result
