"""Several shards in one task run, so that a build of many shards does not have as many runs."""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

from prefect import State, Task
from prefect.cache_policies import NO_CACHE

from talking_points.errors import RunError
from tasks.running.prefect_tasks import keep_manifest
from tasks.running.result_records import ShardTask
from tasks.running.shards import AnyOrder, order_key
from tasks.running.stages import WAITING


@cache
def group_task(task: ShardTask) -> Task[..., Any]:
    """Several shards as one task run: each is made, and kept under its own key, as if it had a run of its own.

    Returns a pair for every order: ``WAITING`` and nothing for one that waits for a batch, else nothing and its
    manifest, or the exception that it ended with.
    """

    run = task.run

    def run_together(orders: list[AnyOrder]) -> Any:
        outcomes: list[tuple[str, Any]] = []
        for order in orders:
            try:
                made = run(order)
            except Exception as error:
                outcomes.append(("", _carried(error)))
                continue
            if isinstance(made, State):
                if made.name != WAITING:
                    return made  # it was asked to stop
                outcomes.append((WAITING, None))
                continue
            keep_manifest(order_key(order), made)
            outcomes.append(("", made))
        return outcomes

    return Task(
        run_together,
        name=task.name,
        task_run_name="{orders[0].title} and on",
        persist_result=False,
        cache_policy=NO_CACHE,
        retries=0,
    )


def _carried(error: Exception) -> Exception:
    """The error, if another process can be given it as it is; else its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(f"{type(error).__name__}: {error}")
    return error
