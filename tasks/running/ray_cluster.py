"""Workers of Ray: of one that exists, or one that is started on this machine for the build."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

from talking_points.config import ConfigError
from talking_points.runner_config import RunnerConfig
from talking_points.units import counted
from tasks.running.runner_checks import advise, last_line
from tasks.running.shards import AnyOrder
from tasks.running.worker_checks import Expectation
from tasks.running.workers import (
    ASSURED,
    LOOK_EVERY,
    Workers,
    cannot_run,
    compare_with,
    offers,
    placed,
    refuse_different,
    title_of,
    wanted_of,
)

_LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""This machine alone: for 127.0.0.1 Ray takes, on Linux, an address that others reach."""
_REMEDY = "let fewer tasks run on a node at once, as by runner.resources: {STAGE: {CPU: 2}}, or give it more memory"
_TOLD = 50
"""Tasks of which it is looked who does them: each takes a file or two to read."""


class RayWorkers(Workers):
    """A cluster of Ray: one that exists, or one that is started on this machine for the build."""

    def __init__(self, config: RunnerConfig, workers: int, runner: TaskRunner[Any]) -> None:
        super().__init__(config, workers, runner)
        import ray

        short = ray.exceptions.OutOfMemoryError
        self.lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, short)
        self._given: dict[PrefectFuture[Any], tuple[AnyOrder, str]] = {}

    def window(self) -> int:
        import ray

        if self.config.address is None or self.config.workers:
            return self.wanted
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def count_losses(self, outcome: BaseException) -> int:
        # Ray has run it again already, as often as each task tells it.
        return 1 + (self.config.retries_of_lost_workers if isinstance(outcome, self.lost) else 0)

    def why_lost(self, outcome: BaseException) -> str:
        import ray

        said = str(outcome).strip().partition("\n")[0]
        if isinstance(outcome, ray.exceptions.OutOfMemoryError):
            return f"{said}; {_REMEDY}"
        return f"{said.removesuffix('.')}: {super().why_lost(outcome)}"

    def check(self, expected: Expectation, say: Callable[[str], None], look: Callable[[], None]) -> None:
        self._check_resources()
        if self.config.address is not None:
            self._check_nodes(expected, say, look)

    def _check_resources(self) -> None:
        import ray

        # Of several nodes on one machine each has resources of its own.
        offered = [(node["NodeManagerHostname"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
        for stage, wanted in self.config.resources.items():
            if not any(offers(own, wanted) for _, own in offered):
                has = ((node, {name: own.get(name, 0) for name in wanted}) for node, own in offered)
                found = ", ".join(f"{node}: {wanted_of(own)}" for node, own in has)
                raise ConfigError(
                    f"runner.resources.{stage}: no node of the cluster has {wanted_of(wanted)} (found {found}): start "
                    "one with it, as in 'ray start --address=... --num-gpus=1'"
                )

    def machines(self) -> int:
        import ray

        return len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]})

    def _check_nodes(self, expected: Expectation, say: Callable[[str], None], look: Callable[[], None]) -> None:
        """Compare one worker of every node with this process."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = {}
        for node in (node for node in ray.nodes() if node["Alive"]):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            compare = ray.remote(compare_with).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            stages = placed(expected, self.config.resources, node["Resources"])
            asked[f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"] = compare.remote(
                expected, stages
            )
        say(f"{len(asked)} node(s) connected: looking what they run and see")
        end = time.monotonic() + ASSURED
        different = {}
        for node, answer in asked.items():
            try:
                while time.monotonic() < end and not ray.wait([answer], timeout=LOOK_EVERY)[0]:
                    look()
                different[node] = ray.get(answer, timeout=LOOK_EVERY)
            except Exception as error:
                if isinstance(error, (TimeoutError, *self.lost)):
                    continue  # it has gone, or is busy: its first task looks again
                raise cannot_run(node, error) from error
        refuse_different(different)

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
        self._given[future] = order, title_of(order, parameters)
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


@contextmanager
def open_ray(config: RunnerConfig, workers: int) -> Iterator[Workers]:
    if config.address is None and "RAY_AUTH_MODE" not in os.environ:
        # Whatever address it has, some of its processes listen to other machines. Ray reads this when it begins.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray
    from prefect_ray import RayTaskRunner

    options: dict[str, Any] = {"log_to_driver": False}
    address = config.address
    if address is None:
        # One of its own, of this machine alone, which reports nothing to anybody.
        address = "local"
        options |= {"num_cpus": workers, "include_dashboard": False, "_node_ip_address": _LOOPBACK}
        # Else it runs a task that is killed for memory again and again without a word.
        options["_system_config"] = {"task_oom_retries": config.retries_of_lost_workers}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    runner: TaskRunner[Any] = RayTaskRunner(address=address, init_kwargs=options)
    is_ours = not ray.is_initialized()
    try:
        runner.__enter__()
    except Exception as error:  # of a node that did not start in time, as on a busy machine, a plain one
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
