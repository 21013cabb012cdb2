"""The task of a stage, whose results are kept as records: Prefect is imported when a shard is to be made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tasks.running.kept_records import RefusedRecord, judge_record

if TYPE_CHECKING:
    from tasks.running.prefect_tasks import PrefectTask

__all__ = ["RefusedRecord", "ShardTask", "judge_record"]


class ShardTask:
    """``run`` as a task called ``name``; ``options`` are Prefect's. Whether all its shards are kept is found without.

    Called, it runs as Prefect's tasks do.
    """

    def __init__(self, run: Callable[..., Any], *, name: str, **options: Any) -> None:
        self.name = name
        self.run = run
        self._options = options
        self._task: PrefectTask | None = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.as_prefect()(*arguments, **options)

    def as_prefect(self) -> PrefectTask:
        """The task itself, the same one every time."""
        from tasks.running.prefect_tasks import PrefectTask

        if self._task is None:
            self._task = PrefectTask(self.run, name=self.name, **self._options)
        return self._task
