"""Runs the shards of a stage as Prefect task runs: bounded, verified, and told apart into made and reused."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError
from talking_points.descriptions.asking import WholesaleFailure
from talking_points.descriptions.budget import plan_seconds
from talking_points.errors import RunError
from talking_points.extras import how_to_install
from talking_points.sources.protocol import SourceError
from talking_points.stop_requests import request_stop
from tasks.running.batches import batches_of
from tasks.running.manifests import Manifest, holds
from tasks.running.prefect_tasks import PrefectTask, find_manifest
from tasks.running.progress import BuildProgress
from tasks.running.result_records import ShardTask
from tasks.running.shards import STAGES, WAITING, AnyOrder, count_rows, order_key
from tasks.running.storage import Storage


class RunnerConfig(Protocol):
    """What a configuration says of where its tasks run."""

    @property
    def runner(self) -> str: ...

    @property
    def workers(self) -> int: ...


class BuildFailed(RunError):
    """Shards failed; running the build again, or retrying its run, makes them and only them."""

    def __init__(self, failures: Sequence[dict[str, Any]]) -> None:
        self.failures = list(failures)
        named = ", ".join(f"{failure['stage']}-{failure['shard']}" for failure in self.failures[:20])
        more = f" and {len(self.failures) - 20} more" if len(self.failures) > 20 else ""
        super().__init__(
            f"{len(self.failures)} shard(s) failed: {named}{more}; the first: {self.failures[0]['error']}. "
            "Finished shards are kept: run the build again, or retry this run, to make the failed ones"
        )


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

    @classmethod
    @contextmanager
    def for_build(
        cls, settings: RunnerConfig, storage: Storage, stages: Sequence[str] = STAGES
    ) -> Iterator[StageRunner]:
        """The runner that a configuration asks for, with the progress of its build, for the length of the build.

        ``stages``: all that the build may run, in their order.
        """
        planned = plan_seconds(settings) if isinstance(settings, BuildConfig) else {}
        with (
            BuildProgress(storage, planned=planned, workers=settings.workers, order=stages) as progress,
            task_runner(settings.runner, settings.workers) as runner,
        ):
            yield cls(runner, settings.workers, storage, progress)

    def complete(self, task: ShardTask, orders: Sequence[AnyOrder]) -> dict[int, Manifest]:
        """Run a stage that the rest of the build needs as a whole. Raises ``BuildFailed`` if a shard failed so far."""
        results = self.run(task, orders)
        if self.progress.failures:
            raise BuildFailed(self.progress.failures)
        return results

    def run(self, task: ShardTask, orders: Sequence[AnyOrder]) -> dict[int, Manifest]:
        """Run one stage. Returns the manifests by shard number; failed shards are missing and reported.

        Raises ``WholesaleFailure`` or ``SourceError`` as soon as a shard does, without submitting the rest: no retry
        of the other shards could help.
        """
        stage, again = task.name, _is_retry()
        self.progress.begin(stage, len(orders), sum(count_rows(order) for order in orders))
        results: dict[int, Manifest] = {}
        with batches_of(orders, self.progress.say) as answer:
            pending = self._run(task, orders, again, results)
            while pending and answer is not None:
                answer()
                pending = self._run(task, pending, again, results)
        self.progress.end(stage)
        return dict(sorted(results.items()))

    def _run(
        self, task: ShardTask, orders: Sequence[AnyOrder], again: bool, results: dict[int, Manifest]
    ) -> list[AnyOrder]:
        """Run shards and add their manifests to ``results``; returns those that wait for a batch."""
        made_by = task.as_prefect()
        pending: list[AnyOrder] = []
        waiting = deque(orders)
        running: dict[PrefectFuture[Any], tuple[AnyOrder, Manifest | None]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.window:
                    order = waiting.popleft()
                    kept = self._find_kept(order)
                    if kept is not None and again:
                        # The run's page has this shard already, from the attempt before.
                        self._collect(order, kept, True, results)
                    else:
                        running[self._submit(made_by if kept is not None else made_by.anew(), order)] = (order, kept)
                if not running:
                    continue
                future = next(as_completed(list(running)))
                order, kept = running.pop(future)
                outcome = _read_outcome(future)  # first, because a future knows its last state only from then on
                reused = future.state.name == "Cached"
                if future.state.name == WAITING:
                    pending.append(order)
                elif reused and outcome != kept and not holds(self.storage, outcome):
                    # What was kept a moment ago has changed: make the shard again.
                    running[self._submit(made_by.anew(), order)] = (order, None)
                else:
                    self._collect(order, outcome, reused, results)
        except BaseException:
            request_stop()
            raise
        return sorted(pending, key=lambda order: order.shard)

    def _find_kept(self, order: AnyOrder) -> Manifest | None:
        """The manifest that is kept under the order's key, if it and its files still hold."""
        manifest = find_manifest(order_key(order))
        return manifest if manifest is not None and holds(self.storage, manifest) else None

    def _collect(self, order: AnyOrder, outcome: Any, reused: bool, results: dict[int, Manifest]) -> None:
        if isinstance(outcome, (WholesaleFailure, SourceError)):
            raise outcome
        if isinstance(outcome, BaseException):
            self.progress.fail_shard(order.stage, order.shard, order.title, outcome)
            return
        results[order.shard] = outcome
        self.progress.finish_shard(order.stage, outcome, reused=reused)

    def _submit(self, task: PrefectTask, order: AnyOrder) -> PrefectFuture[Any]:
        return self.runner.submit(task, parameters={"order": order})


def _is_retry() -> bool:
    """Whether this run of a flow has been tried before."""
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.run_count > 1


def _read_outcome(future: PrefectFuture[Any]) -> Any:
    """The manifest, or the exception that a shard ended with; a record that cannot be read is one as well."""
    try:
        return future.result(raise_on_failure=False)
    except Exception as error:
        return error
