"""Runs the shards of a stage as Prefect task runs: bounded, verified, and told apart into made and reused."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from prefect import Task
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from talking_points.config import ConfigError
from talking_points.descriptions.asking import WholesaleFailure
from talking_points.extras import how_to_install
from talking_points.sources.protocol import SourceError
from talking_points.stop_requests import request_stop
from tasks.running.progress import BuildProgress
from tasks.running.shards import Manifest, Order, holds
from tasks.running.storage import Storage


def task_runner(kind: str, workers: int) -> TaskRunner[Any]:
    """A bounded task runner: ``threads``, ``processes`` or ``dask`` (extra ``dask``)."""
    if kind == "processes":
        return ProcessPoolTaskRunner(max_workers=workers)
    if kind == "dask":
        try:
            from prefect_dask import DaskTaskRunner
        except ImportError as error:
            raise ConfigError(f"runner 'dask' needs the extra 'dask', {how_to_install('dask')}") from error
        return DaskTaskRunner(cluster_kwargs={"n_workers": workers, "threads_per_worker": 1})
    return ThreadPoolTaskRunner(max_workers=workers)


class StageRunner:
    """Gives orders to a task runner, never more at a time than it has workers.

    Nothing waits in a queue of the runner, so there is little to wait for when the build is stopped.
    """

    def __init__(self, runner: TaskRunner[Any], workers: int, storage: Storage, progress: BuildProgress) -> None:
        self.runner = runner
        self.window = workers
        self.storage = storage
        self.progress = progress

    def run(self, task: Task[[Order], Manifest], orders: Sequence[Order]) -> dict[int, Manifest]:
        """Run one stage. Returns the manifests by shard number; failed shards are missing and reported.

        Raises ``WholesaleFailure`` or ``SourceError`` as soon as a shard does, without submitting the rest: no retry
        of the other shards could help.
        """
        stage = task.name
        self.progress.begin(stage, len(orders), sum(_rows_in(order) for order in orders))
        results: dict[int, Manifest] = {}
        waiting, running = deque(orders), dict[PrefectFuture[Manifest], Order]()
        try:
            while waiting or running:
                while waiting and len(running) < self.window:
                    order = waiting.popleft()
                    running[self._submit(task, order)] = order
                future = next(as_completed(list(running)))
                order = running.pop(future)
                outcome = _outcome(future)  # first, because a future knows its last state only from then on
                reused = future.state.name == "Cached"
                if reused and not holds(self.storage, outcome):
                    # The record says finished, but it or its files are gone or changed: make the shard again.
                    running[self._submit(task.with_options(refresh_cache=True), order)] = order
                else:
                    self._collect(order, outcome, reused, results)
        except BaseException:
            request_stop()
            raise
        self.progress.end(stage)
        return dict(sorted(results.items()))

    def _collect(self, order: Order, outcome: Any, reused: bool, results: dict[int, Manifest]) -> None:
        if isinstance(outcome, (WholesaleFailure, SourceError)):
            raise outcome
        if isinstance(outcome, BaseException):
            self.progress.failed(order["stage"], order["shard"], outcome)
            return
        results[order["shard"]] = outcome
        self.progress.finished(order["stage"], outcome, reused=reused)

    def _submit(self, task: Task[[Order], Manifest], order: Order) -> PrefectFuture[Manifest]:
        return self.runner.submit(task, parameters={"order": order})


def _outcome(future: PrefectFuture[Manifest]) -> Any:
    """The manifest, or the exception that a shard ended with; a record that cannot be read is one as well."""
    try:
        return future.result(raise_on_failure=False)
    except Exception as error:
        return error


def _rows_in(order: Order) -> int:
    """Rows of the first kind of input: the others carry further columns of the same rows."""
    inputs = order["inputs"]
    return sum(manifest["rows"] for manifest in inputs if manifest["stage"] == inputs[0]["stage"])
