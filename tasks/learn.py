"""The jobs of ``make learn`` as tasks: each in a process of its own, as many at a time as there are cores for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.learn_jobs import Job, Result, measure_job


@contextmanager
def job_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """So many processes at a time, a fresh one for every job: no job finds what another has left in its memory.

    A server that has imported everything forks them. Prefect's own pool starts each by importing anew, which takes
    ten seconds of a core; twenty jobs would pay it twenty times.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["talking_points.evaluation.learning", "tasks.learn_jobs"])
    with ProcessPoolExecutor(count, context, initializer=_be_quiet, max_tasks_per_child=1) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@task(name="job", task_run_name="{job.name}", persist_result=False, cache_policy=NO_CACHE)
def run_job(job: Job, pool: ProcessPoolExecutor) -> Result:
    """Run one job as soon as a process is free, and print what it took."""
    result = pool.submit(measure_job, job).result()
    made = " (made before)" if result.get("reused") else ""
    print(f"{job.name:<22} {result['seconds']:.0f} s{made}", flush=True)
    return result


def _be_quiet() -> None:
    # What several processes write would be mixed up; values and curves are in the stages' folders.
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
