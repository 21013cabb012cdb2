"""What runs tasks: threads, processes, a cluster of Dask or of Ray, behind one small face.

Prefect's own task runners carry the tasks. What is added here: clear words about a cluster that is not there, cannot
be used or was lost, resources by stage, and how many tasks are to be under way.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from talking_points.config import ConfigError
from talking_points.errors import RunError
from talking_points.runner_config import RunnerConfig
from talking_points.units import counted
from tasks.running.runner_checks import ANSWERS, advise, check_runner, last_line
from tasks.running.shards import AnyOrder
from tasks.running.worker_checks import Expectation, end_stage, find_differences, set_up_worker

_WORKERS = 20.0
"""Seconds in which the first worker of an existing cluster has to be there."""
_ASSURED = 60.0
"""Seconds that all workers together get to import the code and to look around."""
PRELOAD = "tasks.running.dask_worker"
"""What workers load when they start."""
_LOOK_EVERY = 0.5
"""Seconds between two looks whether a build is to stop while it waits for workers."""
_TOLD = 50
"""Tasks of which it is looked who does them: each takes a file or two to read."""
_ASKED_EVERY = 2.0
"""Seconds between two questions for the workers that there are."""


class ClusterLost(RunError):
    """What hands out the tasks is gone; finished shards are kept."""


class Workers:
    """Threads or processes of this machine."""

    lost: tuple[type[BaseException], ...] = (BrokenProcessPool,)
    """What a task ends with whose worker was lost."""

    def __init__(self, config: RunnerConfig, workers: int, runner: TaskRunner[Any]) -> None:
        self.config = config
        self.wanted = workers
        self.runner = runner

    def window(self) -> int:
        """How many tasks are to be under way."""
        return self.wanted

    def check(self, expected: Expectation, say: Callable[[str], None], look: Callable[[], None]) -> None:
        """Refuse workers that cannot do the work of a build.

        ``say`` tells people what is waited for; ``look`` is called meanwhile, and raises where the build is to stop.
        """

    def submit(self, task: Any, order: AnyOrder, parameters: Mapping[str, Any]) -> PrefectFuture[Any]:
        return self.runner.submit(task, parameters=dict(parameters))

    def is_lost(self, outcome: Any) -> bool:
        """Whether a task ended because its worker did. Raises ``ClusterLost``."""
        return isinstance(outcome, self.lost)

    def count_losses(self, outcome: BaseException) -> int:
        """How many workers a task was lost with that ended so."""
        return 1

    def release(self, future: PrefectFuture[Any]) -> None:
        """Forget a task whose outcome was read, so that it is not run again when its worker is lost later."""

    def recover(self) -> None:
        """Make new workers where losing one has lost them all. Call when none has anything to do."""
        with suppress(Exception):
            self.runner.__exit__(None, None, None)
        self.runner.__enter__()

    @property
    def loses_all(self) -> bool:
        """Whether no task can be given out any more once one worker is lost."""
        return self.config.kind == "processes"

    def end_stage(self) -> None:
        """Release what workers keep for a stage."""

    def replace_lost(self) -> None:
        """Start workers in the place of those that have ended, where only the build does so."""

    def describe(self, worker_of: Callable[[AnyOrder], str | None]) -> list[dict[str, Any]]:
        """The workers, as far as they are known: name, threads, titles of their tasks.

        ``worker_of`` tells by what the output says which worker has begun a shard.
        """
        return []


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
        # As tasks, not in the workers' own loops, which have to answer their scheduler while the code is imported.
        asked = {
            address: self.client.submit(_compare, expected, stages, workers=[address], pure=False)
            for address in self.client.scheduler_info(n_workers=-1)["workers"]
        }
        say(f"{len(asked)} worker(s) connected: looking what they run and see")
        end = time.monotonic() + _ASSURED
        for address, future in asked.items():
            try:
                while not future.done() and time.monotonic() < end:
                    look()
                    time.sleep(_LOOK_EVERY)
                differences = future.result(timeout=_LOOK_EVERY)
            except (TimeoutError, OSError, self.lost[0]):
                continue  # it has gone, or is busy: its first task looks again
            except Exception as error:
                raise _cannot_run(f"worker {address}", error) from error
            _refuse(f"worker {address}", differences)
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
        self._titles[future.key] = _title(order, parameters)
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
        return [
            {
                "worker": str(known.get(address, {}).get("name", address)),
                "threads": known.get(address, {}).get("nthreads", 1),
                "tasks": [self._titles.get(str(key), "another's") for key in keys],
            }
            for address, keys in sorted(processing.items())
        ]

    def _known(self) -> list[dict[str, Any]]:
        if time.monotonic() - self._asked > _ASKED_EVERY:
            self._asked = time.monotonic()
            with suppress(Exception):  # a scheduler that is gone is noticed by its tasks
                self._workers = list(self.client.scheduler_info(n_workers=-1)["workers"].values())
        return self._workers

    def _wait(self, say: Callable[[str], None], look: Callable[[], None]) -> None:
        """Wait for the first worker; of a cluster that a batch system starts, for as long as it takes."""
        place = self.config.address
        begun, said = time.monotonic(), False
        while True:
            look()
            try:
                return self.client.wait_for_workers(1, timeout=_LOOK_EVERY)
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
        offered = {worker.get("name", ""): worker.get("resources") or {} for worker in self._known()}
        for stage, wanted in self.config.resources.items():
            for name, amount in wanted.items():
                if self.config.cluster_class is None and not any(
                    resources.get(name, 0) >= amount for resources in offered.values()
                ):
                    raise ConfigError(
                        f"runner.resources.{stage}: no worker has {name}: {amount:g} (found "
                        f"{', '.join(f'{worker}: {resources}' for worker, resources in offered.items())}): start one "
                        f"with 'dask worker ADDRESS --resources {name}={amount:g}'"
                    )


class RayWorkers(Workers):
    """A cluster of Ray: one that exists, or one that is started on this machine for the build."""

    def __init__(self, config: RunnerConfig, workers: int, runner: TaskRunner[Any]) -> None:
        super().__init__(config, workers, runner)
        import ray

        self.lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)
        self._given: dict[PrefectFuture[Any], tuple[AnyOrder, str]] = {}

    def window(self) -> int:
        import ray

        if self.config.address is None or self.config.workers:
            return self.wanted
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def count_losses(self, outcome: BaseException) -> int:
        # Ray has run it again already, as often as each task tells it.
        return 1 + (self.config.retries_of_lost_workers if isinstance(outcome, self.lost) else 0)

    def check(self, expected: Expectation, say: Callable[[str], None], look: Callable[[], None]) -> None:
        self._check_resources()
        if self.config.address is not None:
            self._check_nodes(expected, say, look)

    def _check_resources(self) -> None:
        import ray

        offered = ray.cluster_resources()
        for stage, wanted in self.config.resources.items():
            for name, amount in wanted.items():
                if offered.get(name, 0) < amount:
                    raise ConfigError(
                        f"runner.resources.{stage}: the cluster has {name}: {offered.get(name, 0):g}, {amount:g} are "
                        "wanted: start a node with it, as in 'ray start --address=... --num-gpus=1'"
                    )

    def _check_nodes(self, expected: Expectation, say: Callable[[str], None], look: Callable[[], None]) -> None:
        """Compare one worker of every node with this process."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = {}
        for node in (node for node in ray.nodes() if node["Alive"]):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            compare = ray.remote(_compare_with).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            stages = _placed(expected, self.config.resources, node["Resources"])
            asked[f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"] = compare.remote(
                expected, stages
            )
        say(f"{len(asked)} node(s) connected: looking what they run and see")
        end = time.monotonic() + _ASSURED
        for node, answer in asked.items():
            try:
                while time.monotonic() < end and not ray.wait([answer], timeout=_LOOK_EVERY)[0]:
                    look()
                differences = ray.get(answer, timeout=_LOOK_EVERY)
            except Exception as error:
                if isinstance(error, (TimeoutError, *self.lost)):
                    continue  # it has gone, or is busy: its first task looks again
                raise _cannot_run(node, error) from error
            _refuse(node, differences)

    def submit(self, task: Any, order: AnyOrder, parameters: Mapping[str, Any]) -> PrefectFuture[Any]:
        from prefect_ray.context import remote_options

        wanted = dict(self.config.resources.get(order.stage, {}))
        options: dict[str, Any] = {"max_retries": self.config.retries_of_lost_workers, "num_cpus": wanted.pop("CPU", 1)}
        if gpus := wanted.pop("GPU", 0):
            options["num_gpus"] = gpus
        if wanted:
            options["resources"] = wanted
        with remote_options(**options):
            future = self.runner.submit(task, parameters=dict(parameters))
        self._given[future] = order, _title(order, parameters)
        return future

    def release(self, future: PrefectFuture[Any]) -> None:
        self._given.pop(future, None)

    def describe(self, worker_of: Callable[[AnyOrder], str | None]) -> list[dict[str, Any]]:
        import ray

        nodes = sum(node["Alive"] for node in ray.nodes())
        threads = int(ray.cluster_resources().get("CPU", 1))
        return by_worker(list(self._given.values()), worker_of, f"Ray, {counted(nodes, 'node')}", threads)


def by_worker(
    given: Sequence[tuple[AnyOrder, str]], worker_of: Callable[[AnyOrder], str | None], cluster: str, threads: int
) -> list[dict[str, Any]]:
    """As ``Workers.describe``, of a cluster that does not tell which of its workers has which task: those that have
    begun a shard, then the rest of its threads, with the tasks that nobody has begun.
    """
    busy: dict[str, list[str]] = {}
    others: list[str] = []
    for number, (order, title) in enumerate(given):
        worker = worker_of(order) if number < _TOLD else None
        (others if worker is None else busy.setdefault(worker, [])).append(title)
    left = max(threads - len(busy), 0)
    found = [{"worker": worker, "threads": 1, "tasks": tasks} for worker, tasks in sorted(busy.items())]
    return [*found, {"worker": cluster, "threads": left, "tasks": others}] if left or others else found


def _title(order: AnyOrder, parameters: Mapping[str, Any]) -> str:
    more = len(parameters.get("orders", [order])) - 1
    return f"{order.title} and {more} more" if more else order.title


def _compare(expected: Expectation, resources: Mapping[str, Mapping[str, float]]) -> list[str]:
    """On a worker of Dask: set it up, and say what it lacks for the stages that may be given to it."""
    from distributed import get_worker

    return _compare_with(expected, _placed(expected, resources, get_worker().state.total_resources))


def _compare_with(expected: Expectation, stages: tuple[str, ...]) -> list[str]:
    set_up_worker()
    return find_differences(expected, stages)


def _placed(
    expected: Expectation, resources: Mapping[str, Mapping[str, float]], own: Mapping[str, float]
) -> tuple[str, ...]:
    """The stages with needs that may be given to who has resources of its ``own``."""
    return tuple(
        stage
        for stage in expected.needs
        if all(own.get(name, 0) >= amount for name, amount in resources.get(stage, {}).items())
    )


def _cannot_run(who: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"the {who} cannot run the code of this build ({type(error).__name__}: {last_line(error)}): install "
        "talking-points there as it is here"
    )


def _refuse(who: str, differences: list[str]) -> None:
    if differences:
        raise ConfigError(f"the {who} cannot do the tasks of this build: {'; '.join(differences)}")


@contextmanager
def open_workers(config: RunnerConfig, workers: int) -> Iterator[Workers]:
    """What runs the tasks of a build, for its length. Raises ``ConfigError`` where it cannot be had."""
    check_runner(config)
    if config.kind == "dask":
        with _dask(config, workers) as opened:
            yield opened
    elif config.kind == "ray":
        with _ray(config, workers) as opened:
            yield opened
    else:
        pools = {"processes": ProcessPoolTaskRunner, "threads": ThreadPoolTaskRunner}
        runner: TaskRunner[Any] = pools[config.kind](max_workers=workers)
        with runner:
            yield Workers(config, workers, runner)


@contextmanager
def _dask(config: RunnerConfig, workers: int) -> Iterator[Workers]:
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
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            where = config.address or config.cluster_class or "this machine"
            raise ConfigError(f"runner: Dask on {where} cannot be used: {error}{advise('dask', error)}") from error
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


@contextmanager
def _ray(config: RunnerConfig, workers: int) -> Iterator[Workers]:
    import ray
    from prefect_ray import RayTaskRunner

    options: dict[str, Any] = {"log_to_driver": False}
    address = config.address
    if address is None:
        # One of its own, on this machine alone, which reports nothing to anybody.
        address = "local"
        options |= {"num_cpus": workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    runner: TaskRunner[Any] = RayTaskRunner(address=address, init_kwargs=options)
    is_ours = not ray.is_initialized()
    try:
        runner.__enter__()
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ConfigError(
            f"runner: Ray at {config.address or 'this machine'} cannot be used: {last_line(error)}"
            f"{advise('ray', error)}"
        ) from error
    try:
        yield RayWorkers(config, workers, runner)
    finally:
        runner.__exit__(None, None, None)
        if is_ours:
            ray.shutdown()  # Prefect leaves a connection by ray:// open, and the next build would take it for its own
