"""What runs tasks, behind one small face; how workers of clusters are compared with the build."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any

from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

from talking_points.allocator import give_back_memory
from talking_points.config import ConfigError
from talking_points.errors import RunError
from talking_points.runner_config import RunnerConfig
from tasks.running.lost_workers import why_lost
from tasks.running.runner_checks import last_line
from tasks.running.shards import AnyOrder
from tasks.running.worker_checks import Expectation, find_differences, set_up_worker

ASSURED = 60.0
"""Seconds that all workers together get to import the code and to look around."""
LOOK_EVERY = 0.5
"""Seconds between two looks whether a build is to stop while it waits for workers."""

_NAMED = 5
"""Workers that lack the same of which the names are said."""


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

    def why_lost(self, outcome: BaseException) -> str:
        """Which workers a task was lost with that ended so, and why, as far as it is known."""
        return why_lost((), "")

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
        # Threads free what they have filled, images above all, into heaps of their own, where the next stage's others
        # do not look.
        give_back_memory()

    def replace_lost(self) -> None:
        """Start workers in the place of those that have ended, where only the build does so."""

    def machines(self) -> int:
        """How many machines the workers run on, as far as it is known."""
        return 1

    def waits_for(self, stage: str) -> str:
        """Who has to come before a task of a stage can be done, in words; nothing where somebody there can do it."""
        return ""

    def describe(self, worker_of: Callable[[AnyOrder], str | None]) -> list[dict[str, Any]]:
        """The workers, as far as they are known: name, threads, titles of their tasks.

        ``worker_of`` tells by what the output says which worker has begun a shard.
        """
        return []


def title_of(order: AnyOrder, parameters: Mapping[str, Any]) -> str:
    """What a task is called: its shard, or the first of several."""
    more = len(parameters.get("orders", [order])) - 1
    return f"{order.title} and {more} more" if more else order.title


def compare_with(expected: Expectation, stages: tuple[str, ...]) -> list[str]:
    """On a worker of any cluster: set it up, and say what it lacks for these stages."""
    set_up_worker()
    return find_differences(expected, stages)


def placed(
    expected: Expectation, resources: Mapping[str, Mapping[str, float]], own: Mapping[str, float]
) -> tuple[str, ...]:
    """The stages with needs that may be given to who has resources of its ``own``."""
    return tuple(stage for stage in expected.needs if offers(own, resources.get(stage, {})))


def cannot_run(who: str, error: Exception) -> ConfigError:
    """What to say of a worker on which even the comparison has failed."""
    return ConfigError(
        f"the {who} cannot run the code of this build ({type(error).__name__}: {last_line(error)}): install "
        "talking-points there as it is here"
    )


def refuse_different(found: Mapping[str, Sequence[str]]) -> None:
    """Raise ``ConfigError`` that names everyone who lacks something, and what; those that lack the same together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for who, differences in found.items():
        if differences:
            alike.setdefault(tuple(differences), []).append(f"the {who}")
    if alike:
        raise ConfigError(
            "\n".join(
                f"{_listed(who)} cannot do the tasks of this build: {'; '.join(differences)}"
                for differences, who in alike.items()
            )
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def wanted_of(wanted: Mapping[str, float]) -> str:
    """Resources as people write them: ``GPU: 1, RAM: 8``."""
    return ", ".join(f"{name}: {amount:g}" for name, amount in wanted.items())


def offers(own: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    """Whether one worker has all that a task takes: what two have together does no task any good."""
    return all(own.get(name, 0) >= amount for name, amount in wanted.items())
