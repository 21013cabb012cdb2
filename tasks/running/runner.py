"""Runs the shards of a stage as Prefect task runs: bounded, verified, and told apart into made and reused."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.settings import get_current_settings

from talking_points.build_config import BuildConfig
from talking_points.descriptions.asking import WholesaleFailure
from talking_points.descriptions.budget import plan_seconds
from talking_points.errors import RunError
from talking_points.instructions.config import InstructionBuildConfig
from talking_points.sources.protocol import SourceError
from talking_points.stage_names import BUILD_STAGES
from talking_points.stop_requests import request_stop, stop_requested
from talking_points.units import counted
from tasks.running.batches import batches_of
from tasks.running.build_checks import check_shared_answers
from tasks.running.build_folder import BuildStorage
from tasks.running.claims import Overtaken, latest_worker, was_begun
from tasks.running.clusters import open_workers
from tasks.running.group_tasks import group_task
from tasks.running.lease import LeaseLost, check_fence, leave_stop, stop_asked
from tasks.running.lost_workers import WorkersLost
from tasks.running.manifests import Manifest, holds
from tasks.running.pieces import InPieces
from tasks.running.prefect_tasks import find_manifest, records_folder
from tasks.running.progress import BuildProgress
from tasks.running.result_records import ShardTask
from tasks.running.run_page import crash_task_run
from tasks.running.shards import AnyOrder, count_rows, order_key
from tasks.running.stages import WAITING
from tasks.running.storage import Storage
from tasks.running.worker_checks import WorkerDiffers, expect, forget_marks
from tasks.running.workers import Workers

TASK_SECONDS = 120.0
"""Seconds that a task run is to take where it gets as many shards as it needs for that."""
_MOST_SHARDS = 1000
_LOOK_EVERY, _DESCRIBE_EVERY = 1.0, 5.0
_OVERTAKEN = "its files were replaced by those of another attempt, which has not ended"


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


class StageRunner:
    """Gives orders to workers, never more at a time than they can take.

    Nothing waits in a queue of theirs for long, so there is little to wait for when the build is stopped.
    """

    def __init__(self, workers: Workers, storage: Storage, progress: BuildProgress) -> None:
        self.workers = workers
        self.storage = storage
        self.progress = progress
        self._described = 0.0

    @classmethod
    @contextmanager
    def for_build(
        cls,
        settings: BuildConfig | InstructionBuildConfig,
        storage: BuildStorage,
        roots: Mapping[str, str] | None = None,
        stages: Sequence[str] = BUILD_STAGES,
    ) -> Iterator[StageRunner]:
        """The workers that a configuration asks for, with the progress of its build, for the length of the build.

        ``stages``: all that the build may run, in their order. Raises ``ConfigError`` where workers cannot be had, or
        cannot do the work.
        """
        planned = plan_seconds(settings) if isinstance(settings, BuildConfig) else {}
        with (
            BuildProgress(storage, planned=planned, workers=settings.workers, order=stages) as progress,
            open_workers(settings.runner, settings.workers) as workers,
        ):
            if not settings.runner.is_cluster:
                yield cls(workers, storage, progress)
                return
            api = get_current_settings().api.url
            storage.expected = expect(settings, roots or {}, storage.lease.number, records_folder(), api)
            try:
                made = cls(workers, storage, progress)
                workers.check(storage.expected, progress.wait, made._stop_if_asked)
                if isinstance(settings, BuildConfig) and (said := check_shared_answers(settings, workers.machines())):
                    progress.say(said)
                yield made
            finally:
                forget_marks(storage.expected)

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
        if isinstance(orders, InPieces):
            orders = self._make_pieces(task, orders, again)
        results: dict[int, Manifest] = {}
        with batches_of(orders, self.progress.say) as answer:
            pending = self._run(task, orders, again, results)
            while pending and answer is not None:
                answer()
                pending = self._run(task, pending, again, results)
        self.progress.end(stage)
        return dict(sorted(results.items()))

    def _make_pieces(self, task: ShardTask, orders: InPieces, again: bool) -> Sequence[AnyOrder]:
        """The order that is left once its pieces are made: itself where it is kept, none where a piece failed."""
        if self._find_kept(orders.whole) is not None:
            return orders
        made: dict[int, Manifest] = {}
        for cut in orders.cuts:
            given = cut(made)
            self.progress.expect(task.name, len(given))
            before = len(made)
            self._run(task, given, again, made)
            if len(made) < before + len(given):
                return []
        return [orders.finish(made)]

    def _run(
        self, task: ShardTask, orders: Sequence[AnyOrder], again: bool, results: dict[int, Manifest]
    ) -> list[AnyOrder]:
        """Run shards and add their manifests to ``results``; returns those that wait for a batch."""
        stage = _Stage(task, deque(orders), again)
        pending: list[AnyOrder] = []
        try:
            while stage.waiting or stage.running:
                while stage.waiting and not stage.broken and len(stage.running) < self.workers.window():
                    self._give_out(stage, results)
                if not stage.running:
                    if stage.broken:
                        self.workers.recover()
                        stage.broken = False
                    continue
                future = self._next_finished(stage)
                given, kept = stage.running.pop(future)
                outcome = _read_outcome(future)  # first, because a future knows its last state only from then on
                self.workers.release(future)
                if self.workers.is_lost(outcome):
                    why = self.workers.why_lost(outcome)
                    crash_task_run(future.task_run_id, why)
                    self._take_back(stage, given, outcome, results, why)
                elif len(given) > 1:
                    for order, (kind, found) in zip(given, _each(outcome, given), strict=True):
                        if kind == WAITING:
                            pending.append(order)
                        elif self._is_overtaken(order, found):
                            self._take_back(stage, [order], Overtaken(_OVERTAKEN), results)
                        else:
                            self._collect(order, found, False, results)
                elif future.state.name == WAITING:
                    pending += given
                elif self._is_overtaken(given[0], outcome):
                    self._take_back(stage, given, Overtaken(_OVERTAKEN), results)
                elif future.state.name == "Cached" and outcome != kept and not holds(self.storage, outcome):
                    # What was kept a moment ago has changed: make the shard again.
                    stage.start(self.workers, task.as_prefect().anew(), given)
                else:
                    self._collect(given[0], outcome, future.state.name == "Cached", results)
            self.workers.end_stage()
        except BaseException:
            self._stop_workers()
            raise
        return sorted(pending, key=lambda order: order.shard)

    def _give_out(self, stage: _Stage, results: dict[int, Manifest]) -> None:
        """Give the next shards to a worker; those that are kept, and that the run's page knows, are looked at only."""
        size = stage.size(self.workers, results)
        group: list[AnyOrder] = []
        while stage.waiting and len(group) < size:
            if group and stage.losses[stage.waiting[0].shard]:
                break  # what was lost before goes alone: it may be what its workers died of
            order = stage.waiting.popleft()
            kept = self._find_kept(order)
            if kept is None:
                group.append(order)
                if stage.losses[order.shard]:
                    break
            elif stage.again or self.workers.config.is_cluster:
                # The run's page has this shard already, from the attempt before, or is not to have one for each.
                self._collect(order, kept, True, results)
            else:
                stage.start(self.workers, stage.task.as_prefect(), [order], kept)
                break
        if len(group) == 1:
            stage.start(self.workers, stage.task.as_prefect().anew(), group)
        elif group:
            stage.start(self.workers, group_task(stage.task), group)

    def _take_back(
        self,
        stage: _Stage,
        given: list[AnyOrder],
        outcome: BaseException,
        results: dict[int, Manifest],
        why: str = "",
    ) -> None:
        """Give the shards of a lost worker out again, each at most so often as configured.

        A shard of several, or one that was never begun, need not be what the workers died of: it has been lost once.
        """
        stage.broken = self.workers.loses_all
        for order in given:
            alone = len(given) == 1 and was_begun(self.storage, order.stage, order.shard)
            stage.losses[order.shard] += self.workers.count_losses(outcome) if alone else 1
            retries, titled = self.workers.config.retries_of_lost_workers, why and f": {why}"
            if stage.losses[order.shard] > retries:
                if why:
                    times = f"{counted(stage.losses[order.shard], 'time')} (runner.retries_of_lost_workers: {retries})"
                    outcome = WorkersLost(f"its worker was lost {times}{titled}")
                self._collect(order, outcome, False, results)
            else:
                self.progress.say(f"the worker of {order.title} was lost, so that it is run again{titled}")
                stage.waiting.appendleft(order)

    def _is_overtaken(self, order: AnyOrder, outcome: Any) -> bool:
        """Whether a shard's result is one whose files a later attempt has replaced, or that was refused for one."""
        if not self.workers.config.is_cluster or not isinstance(outcome, Mapping):
            return isinstance(outcome, Overtaken)
        return was_begun(self.storage, order.stage, order.shard, 2) and not holds(self.storage, outcome)

    def _next_finished(self, stage: _Stage) -> PrefectFuture[Any]:
        """A task that has ended; meanwhile it is looked whether the build is to go on."""
        while True:
            self._look_around(stage.task.name)
            try:
                return stage.finished.get(timeout=_LOOK_EVERY)
            except Empty:
                continue

    def _look_around(self, stage: str) -> None:
        """Raise ``LeaseLost`` where another build has taken over, and ``KeyboardInterrupt`` where this one is asked to
        stop, which then does what Ctrl-C does.
        """
        lease = getattr(self.storage, "lease", None)
        if lease is not None and lease.lost:
            check_fence(self.storage, lease.fence())
        if stop_requested():
            raise KeyboardInterrupt
        if self.workers.config.is_cluster and time.monotonic() - self._described >= _DESCRIBE_EVERY:
            self._described = time.monotonic()
            found = self.workers.describe(lambda order: latest_worker(self.storage, order.stage, order.shard))
            self.progress.show_workers(found, self.workers.waits_for(stage))
            self.workers.replace_lost()

    def _stop_if_asked(self) -> None:
        """Raise ``KeyboardInterrupt`` where this build was asked to stop, on this machine or in its output."""
        lease = getattr(self.storage, "lease", None)
        if stop_requested() or (lease is not None and stop_asked(self.storage, lease.number)):
            raise KeyboardInterrupt

    def _stop_workers(self) -> None:
        request_stop()
        lease = getattr(self.storage, "lease", None)
        if lease is not None and self.workers.config.is_cluster and not lease.lost:
            with suppress(OSError):
                leave_stop(self.storage, lease.number)

    def _find_kept(self, order: AnyOrder) -> Manifest | None:
        """The manifest that is kept under the order's key, if it and its files still hold."""
        manifest = find_manifest(order_key(order))
        return manifest if manifest is not None and holds(self.storage, manifest) else None

    def _collect(self, order: AnyOrder, outcome: Any, reused: bool, results: dict[int, Manifest]) -> None:
        if not isinstance(outcome, (Mapping, BaseException)):
            # Its worker was asked to stop, perhaps before this process has heard of it.
            self._stop_if_asked()
            outcome = RunError(f"it ended without a result ({type(outcome).__name__}): run the build again")
        if isinstance(outcome, (WholesaleFailure, SourceError, WorkerDiffers, LeaseLost)):
            raise outcome
        if isinstance(outcome, BaseException):
            self.progress.fail_shard(order.stage, order.shard, order.title, outcome)
            return
        results[order.shard] = outcome
        self.progress.finish_shard(order.stage, outcome, reused=reused, whole=bool(order.pieces))


@dataclass
class _Stage:
    """The tasks of a stage that is running: ``running`` has their orders, and the manifest that was kept."""

    task: ShardTask
    waiting: deque[AnyOrder]
    again: bool
    running: dict[PrefectFuture[Any], tuple[list[AnyOrder], Manifest | None]] = field(default_factory=dict)
    finished: SimpleQueue[PrefectFuture[Any]] = field(default_factory=SimpleQueue)
    losses: Counter[int] = field(default_factory=Counter)
    broken: bool = False

    def start(self, workers: Workers, task: Any, given: list[AnyOrder], kept: Manifest | None = None) -> None:
        parameters = {"order": given[0]} if len(given) == 1 else {"orders": given}
        try:
            future = workers.submit(task, given[0], parameters)
        except workers.lost:
            self.broken = True
            self.waiting.extendleft(reversed(given))
            return
        self.running[future] = (given, kept)
        future.add_done_callback(self.finished.put)

    def size(self, workers: Workers, results: dict[int, Manifest]) -> int:
        """How many shards the next task gets: as configured, or by how long those so far have taken."""
        wanted = workers.config.shards_per_task
        if wanted != "auto":
            return wanted
        taken = [manifest["seconds"] for manifest in islice(reversed(results.values()), 50)]
        return shards_of_a_task(taken, len(self.waiting), workers.window())


def shards_of_a_task(taken: Sequence[float], waiting: int, window: int) -> int:
    """How many of the shards that are ``waiting`` the next task run is to make: as many as take ``TASK_SECONDS``, by
    the seconds that the last ones have ``taken``; one before the first is known, and fewer towards the end of a stage,
    so that no worker has much to do when the others have nothing. ``window``: tasks that are under way at a time.
    """
    if not taken:
        return 1
    seconds = max(sum(taken) / len(taken), 0.001)
    return max(1, min(round(TASK_SECONDS / seconds), waiting // (2 * window), _MOST_SHARDS))


def _each(outcome: Any, given: list[AnyOrder]) -> list[tuple[str, Any]]:
    """What became of every shard of a task; all of them share the error of a task that failed as a whole."""
    return [("", outcome)] * len(given) if isinstance(outcome, BaseException) else list(outcome)


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
