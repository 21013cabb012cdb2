"""Jobs that need one another's results, each in a process of its own, as many at a time as there are cores for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from multiprocessing import get_context
from pathlib import Path
from typing import Any

Result = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """``work()`` is to be called once the jobs named in ``after`` are done. It must be picklable."""

    name: str
    work: Callable[[], Result]
    after: tuple[str, ...] = ()


def run_jobs(jobs: Sequence[Job], processes: int, done: Callable[[str, Result], None]) -> dict[str, Result]:
    """Run all jobs, of those that are ready the first of the sequence first; returns their results by name.

    ``done(name, result)`` is called after each. A result is what the job returned and ``process_cpu_seconds``, which
    its process and the children it waited for have used. The first exception of a job is raised when those that run
    beside it have ended; no other is started. Raises ValueError for a job after one that is not in the sequence.
    """
    by_name = {job.name: job for job in jobs}
    unknown = {name for job in jobs for name in job.after} - set(by_name)
    if unknown or len(by_name) < len(jobs):
        raise ValueError(f"jobs need names of their own, and known ones after 'after'; unknown: {sorted(unknown)}")
    position = {name: place for place, name in enumerate(by_name)}
    graph = TopologicalSorter({job.name: job.after for job in jobs})
    graph.prepare()
    ready: list[str] = []
    running: dict[Future[Result], str] = {}
    results: dict[str, Result] = {}
    # A server that has imported everything forks the processes: importing takes ten seconds, and a run has twenty.
    context = get_context("forkserver")
    context.set_forkserver_preload(["talking_points.evaluation.learning"])
    with ProcessPoolExecutor(processes, context, initializer=_quiet, max_tasks_per_child=1) as pool:
        while graph.is_active():
            ready = sorted([*ready, *graph.get_ready()], key=position.__getitem__)
            while ready and len(running) < processes:
                name = ready.pop(0)
                running[pool.submit(_measured, by_name[name].work)] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                results[name] = future.result()
                done(name, results[name])
                graph.done(name)
    return results


def _measured(work: Callable[[], Result]) -> Result:
    result = work()
    return result | {"process_cpu_seconds": sum(os.times()[:4])}


def _quiet() -> None:
    # What several processes write would be mixed up; values and curves are in the stages' folders.
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
