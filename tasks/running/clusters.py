"""What runs tasks: threads, processes, a cluster of Dask or of Ray, behind one small face.

Prefect's own task runners carry the tasks. What is added here: clear words about a cluster that is not there, cannot
be used or was lost, resources by stage, and how many tasks are to be under way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from talking_points.runner_config import RunnerConfig
from tasks.running.dask_cluster import open_dask
from tasks.running.ray_cluster import open_ray
from tasks.running.runner_checks import check_runner
from tasks.running.workers import Workers


@contextmanager
def open_workers(config: RunnerConfig, workers: int) -> Iterator[Workers]:
    """What runs the tasks of a build, for its length. Raises ``ConfigError`` where it cannot be had."""
    check_runner(config)
    if config.kind == "dask":
        with open_dask(config, workers) as opened:
            yield opened
    elif config.kind == "ray":
        with open_ray(config, workers) as opened:
            yield opened
    else:
        pools = {"processes": ProcessPoolTaskRunner, "threads": ThreadPoolTaskRunner}
        runner: TaskRunner[Any] = pools[config.kind](max_workers=workers)
        with runner:
            yield Workers(config, workers, runner)
