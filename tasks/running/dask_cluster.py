"""Workers of a cluster of Dask: one that exists, one of this machine, or one that a batch system starts."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

from talking_points.config import ConfigError
from talking_points.runner_config import RunnerConfig
from talking_points.units import format_duration
from tasks.running.dask_packages import called, find_other_packages
from tasks.running.lost_workers import LostWorker, why_lost
from tasks.running.runner_checks import ANSWERS, advise, cause_of, last_line
from tasks.running.shards import AnyOrder
from tasks.running.worker_checks import Expectation, end_stage
from tasks.running.workers import (
    ASSURED,
    LOOK_EVERY,
    ClusterLost,
    Workers,
    cannot_run,
    compare_with,
    offers,
    placed,
    refuse_different,
    title_of,
    wanted_of,
)

_WORKERS = 20.0
"""Seconds in which the first worker of an existing cluster has to be there."""
PRELOAD = "tasks.running.dask_worker"
"""What workers load when they start."""
_SILENT = 30.0
"""Seconds after which people are told that a worker was not heard of: its scheduler waits ten times as long."""
_ENDED = "worker-restart-memory"
"""What Dask's events call a worker that was ended for its memory."""
_ASKED_EVERY = 2.0
"""Seconds between two questions for the workers that there are."""


class DaskWorkers(Workers):
    """A cluster of Dask: one that exists, or one that is started for the build."""

    def __init__(self, config: RunnerConfig, workers: int, runner: TaskRunner[Any]) -> None:
        super().__init__(config, workers, runner)
        from distributed import KilledWorker

        self.lost = (KilledWorker,)
        self._titles: dict[str, str] = {}
        self._ending: dict[str, Any] = {}
        self._workers: list[dict[str, Any]] = []
        self._asked = float("-inf")
        self._held: dict[str, tuple[str, int | None, int | None]] = {}

    @property
    def client(self) -> Any:
        return self.runner.client  # type: ignore[attr-defined]

    def window(self) -> int:
        if self.config.address is None and self.config.cluster_class is None:
            return self.wanted
        # One more for each, so that nobody waits for the driver.
        return max(self.wanted if self.config.workers else 1, 2 * sum(worker["nthreads"] for worker in self._known()))

    def check(self, expected: Expectation, say: Callable[[str], None], look: Callable[[], None]) -> None:
        self._wait(say, look)
        stages = {stage: dict(wanted) for stage, wanted in self.config.resources.items()}
        known = self.client.scheduler_info(n_workers=-1)["workers"]
        say(f"{len(known)} worker(s) connected: looking what they run and see")
        different = find_other_packages(self.client, known, expected)
        # As tasks, not in the workers' own loops, which have to answer their scheduler while the code is imported.
        asked = {
            address: self.client.submit(_compare, expected, stages, workers=[address], pure=False)
            for address, worker in known.items()
            if called(address, worker) not in different
        }
        end = time.monotonic() + ASSURED
        for address, future in asked.items():
            who = called(address, known[address])
            try:
                while not future.done() and time.monotonic() < end:
                    look()
                    time.sleep(LOOK_EVERY)
                different[who] = future.result(timeout=LOOK_EVERY)
            except (TimeoutError, OSError, self.lost[0]):
                continue  # it has gone, or is busy: its first task looks again
            except Exception as error:
                raise cannot_run(who, error) from error
        refuse_different(different)
        self._check_resources()

    def submit(self, task: Any, order: AnyOrder, parameters: Mapping[str, Any]) -> PrefectFuture[Any]:
        import dask
        from distributed.client import ClosedClientError
        from prefect_dask.task_runners import PrefectDaskFuture

        wanted = self.config.resources.get(order.stage)
        with dask.annotate(resources=wanted) if wanted else nullcontext():
            try:
                future = self.client.submit(
                    task, parameters=dict(parameters), return_type="state", pure=False, resources=wanted or None
                )
            except ClosedClientError as error:
                raise self._gone() from error
        self._titles[future.key] = title_of(order, parameters)
        future.add_done_callback(lambda done: self._titles.pop(done.key, None))
        return PrefectDaskFuture(wrapped_future=future, task_run_id=future.task_run_id)

    def is_lost(self, outcome: Any) -> bool:
        from distributed.client import FutureCancelledError

        if isinstance(outcome, FutureCancelledError):
            raise self._gone()
        return super().is_lost(outcome)

    def count_losses(self, outcome: BaseException) -> int:
        # The scheduler has run it again already, as often as it is configured to.
        return 1 + int(getattr(outcome, "allowed_failures", 0))

    def why_lost(self, outcome: BaseException) -> str:
        last = outcome.last_worker  # type: ignore[attr-defined]
        try:
            told = [message for _, message in self.client.get_events("all")]
            ended = {message["worker"]: message["rss"] for _, message in self.client.get_events(_ENDED)}
        except Exception:  # of a scheduler that is gone
            told, ended = [], {}
        task = outcome.task  # type: ignore[attr-defined]
        lost = [message["worker"] for message in told if task in message.get("processing-tasks", ())]
        found = []
        for address in dict.fromkeys([*lost, last.address]):
            worker, held, limit = self._held.get(address, (f"worker {address}", None, None))
            held = ended.get(address, held)
            found.append(LostWorker(f"the {worker}", held, limit or None, address in ended))
        return why_lost(found, _remedy(self.config))

    def _gone(self) -> ClusterLost:
        return ClusterLost(
            f"the scheduler {self.config.address or 'of Dask'} is gone: start it and its workers again, and run "
            "the build again to go on; finished shards are kept"
        )

    def release(self, future: PrefectFuture[Any]) -> None:
        with suppress(Exception):  # of a scheduler that is gone
            future.wrapped_future.release()  # type: ignore[attr-defined]

    def end_stage(self) -> None:
        with suppress(Exception):  # a worker that does not answer releases it with its next model
            for worker in self.client.scheduler_info(n_workers=-1)["workers"]:
                future = self.client.submit(end_stage, workers=[worker], pure=False)
                # Held, so that it is done; not longer than the build, so that a scheduler does not wait for workers
                # that are gone.
                self._ending[future.key] = future
                future.add_done_callback(lambda done: self._ending.pop(done.key, None))

    def replace_lost(self) -> None:
        from distributed import SpecCluster

        cluster = self.client.cluster
        if isinstance(cluster, SpecCluster) and len(self._known()) < len(cluster.plan):
            # A job that has ended stays in the cluster's plan, which it looks at again when it is told its size.
            cluster.scale(len(cluster.plan))

    def describe(self, worker_of: Callable[[AnyOrder], str | None]) -> list[dict[str, Any]]:
        try:
            processing = self.client.processing()
        except Exception:
            return []
        known = self.client.scheduler_info(n_workers=-1)["workers"]
        # By the scheduler's clock, which need not be ours: the one that was heard of last tells what time it is there.
        now = max((worker.get("last_seen", 0.0) for worker in known.values()), default=0.0)
        return [
            {
                "worker": str(known.get(address, {}).get("name", address)),
                "threads": known.get(address, {}).get("nthreads", 1),
                "tasks": [self._titles.get(str(key), "another's") for key in keys],
                "note": _note_of(known.get(address, {}), now),
            }
            for address, keys in sorted(processing.items())
        ]

    def _known(self) -> list[dict[str, Any]]:
        if time.monotonic() - self._asked > _ASKED_EVERY:
            self._asked = time.monotonic()
            with suppress(Exception):  # a scheduler that is gone is noticed by its tasks
                known = self.client.scheduler_info(n_workers=-1)["workers"]
                self._workers = list(known.values())
                self._held |= {
                    address: (called(address, worker), worker["metrics"].get("memory"), worker.get("memory_limit"))
                    for address, worker in known.items()
                }
        return self._workers

    def _wait(self, say: Callable[[str], None], look: Callable[[], None]) -> None:
        """Wait for the first worker; of a cluster that a batch system starts, for as long as it takes."""
        place = self.config.address
        begun, said = time.monotonic(), False
        while True:
            look()
            try:
                return self.client.wait_for_workers(1, timeout=LOOK_EVERY)
            except TimeoutError as error:
                if not said:
                    say(f"waiting for the first worker of {place or self.config.cluster_class or 'this machine'}")
                    said = True
                patient = place is None and self.config.cluster_class is not None
                if not patient and time.monotonic() - begun > _WORKERS:
                    raise ConfigError(
                        f"no worker is connected to the scheduler {place}: start one with 'dask worker {place} "
                        f"--nthreads 1 --preload {PRELOAD}'"
                    ) from error

    def _check_resources(self) -> None:
        if self.config.cluster_class is not None:
            return  # its workers are started with all that stages take, and may come later
        for stage, wanted in self.config.resources.items():
            if not self._has(wanted):
                found = ", ".join(f"{worker.get('name', '')}: {worker.get('resources')}" for worker in self._known())
                amounts = ",".join(f"{name}={amount:g}" for name, amount in wanted.items())
                raise ConfigError(
                    f"runner.resources.{stage}: no worker has {wanted_of(wanted)} (found {found}): start one with "
                    f"'dask worker ADDRESS --resources {amounts}'"
                )

    def _has(self, wanted: Mapping[str, float]) -> bool:
        return any(offers(worker.get("resources") or {}, wanted) for worker in self._known())

    def machines(self) -> int:
        started = self.config.cluster_class
        there = len({worker.get("host") for worker in self._known()})
        # What a batch system or Kubernetes starts may come later, and lies where there is room.
        return max(there, self.wanted if started and not started.endswith("LocalCluster") else 1)

    def waits_for(self, stage: str) -> str:
        wanted = self.config.resources.get(stage, {})
        if not self._known():
            return "no worker is connected: the build goes on when one is"
        if all(worker.get("status") == "paused" for worker in self._known()):
            return f"Dask has paused all workers, as they have little memory left: {_remedy(self.config)}"
        if not self._has(wanted):
            return f"no worker has {wanted_of(wanted)}, which {stage} takes: the build goes on when one has"
        return ""


def _remedy(config: RunnerConfig) -> str:
    """What gives the workers of a cluster more memory."""
    if config.address is not None:
        return "start workers with more (dask worker --memory-limit), or fewer of them on a machine"
    name = config.cluster_class or "distributed.LocalCluster"
    key = "memory_limit" if name.endswith("LocalCluster") else "resources" if "kubernetes" in name else "memory"
    return f"give each more (runner.cluster_kwargs.{key}), or set fewer runner.workers"


def _note_of(worker: Mapping[str, Any], now: float) -> str:
    """Why nothing may come of what a worker was given; ``now`` by the clock of its scheduler."""
    silent = now - worker.get("last_seen", now)
    if silent > _SILENT:
        return f"not heard of for {format_duration(silent)}"
    if worker.get("status") == "paused":
        return "paused by Dask, as it has little memory left"
    return ""


def _compare(expected: Expectation, resources: Mapping[str, Mapping[str, float]]) -> list[str]:
    """On a worker of Dask: set it up, and say what it lacks for the stages that may be given to it."""
    from distributed import get_worker

    return compare_with(expected, placed(expected, resources, get_worker().state.total_resources))


@contextmanager
def open_dask(config: RunnerConfig, workers: int) -> Iterator[Workers]:
    import dask
    import distributed  # noqa: F401  # it sets the levels of its loggers
    from prefect_dask import DaskTaskRunner

    patience = {"timeout": 2 * ANSWERS}
    losses = {"distributed.scheduler.allowed-failures": config.retries_of_lost_workers}
    if config.address is not None:
        runner = DaskTaskRunner(address=config.address, client_kwargs=patience)
    else:
        runner = DaskTaskRunner(
            cluster_class=config.cluster_class, cluster_kwargs=_cluster_kwargs(config, workers), client_kwargs=patience
        )
    with dask.config.set(losses), _quiet(), runner:
        try:
            opened = DaskWorkers(config, workers, runner)
            opened.client  # noqa: B018  # it connects
        except (OSError, ValueError, TypeError, RuntimeError, MemoryError, LookupError, ImportError) as error:
            where = config.address or config.cluster_class or "this machine"
            cause = cause_of(error)
            why = str(error) if cause is error else f"{error} ({type(cause).__name__}: {last_line(cause)})"
            raise ConfigError(f"runner: Dask on {where} cannot be used: {why}{advise('dask', cause)}") from error
        yield opened


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Dask say what is wrong alone; the traceback of its client that has lost a scheduler is said in words here."""
    levels = {"distributed": logging.WARNING, "distributed.client": logging.CRITICAL}
    before = {name: logging.getLogger(name).level for name in levels}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*Port \d+ is already in use")  # of its dashboard: it takes another one
        try:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def _cluster_kwargs(config: RunnerConfig, workers: int) -> dict[str, Any]:
    """Settings of a cluster that is started: as many workers as wanted, with the resources that stages take."""
    given: dict[str, Any] = {"n_workers": workers, **config.cluster_kwargs}
    most: dict[str, float] = {}
    for wanted in config.resources.values():
        most = {name: max(most.get(name, 0), wanted.get(name, 0)) for name in {*most, *wanted}}
    name = config.cluster_class or "distributed.LocalCluster"
    if name.endswith("LocalCluster"):
        given = {"threads_per_worker": 1, "dashboard_address": None, "preload": [PRELOAD]} | given
        return given | ({"resources": most} if most else {})
    offered = ",".join(f"{key}={value:g}" for key, value in sorted(most.items()))
    arguments = ["--preload", PRELOAD, *(["--resources", offered] if most else [])]
    if name.startswith("dask_jobqueue."):
        given["worker_extra_args"] = arguments
    elif name.startswith("dask_kubernetes."):
        given["worker_command"] = ["dask-worker", "--nthreads", "1", *arguments]
    return given
