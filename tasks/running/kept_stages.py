"""The stages of a build that is finished already: what is kept is looked at, by the rule of the runner, and no more.

Knows no Prefect, so that a build in which nothing is to be done need not start it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.running.kept_records import find_kept
from tasks.running.manifests import Manifest, holds
from tasks.running.progress import BuildProgress
from tasks.running.result_records import ShardTask
from tasks.running.shards import AnyOrder, count_rows, order_key
from tasks.running.storage import Storage


class NotKept(Exception):
    """A shard has to be made, so that this build has to be run."""


class KeptStages:
    """Gives the shards of every stage as they are kept in a folder of records. Raises ``NotKept`` for the first that
    is not kept under its order's key, or whose files are not what they were.
    """

    def __init__(self, storage: Storage, records: Path) -> None:
        self.storage = storage
        self.records = records
        self._found: list[tuple[str, int, dict[int, Manifest]]] = []

    def run(self, task: ShardTask, orders: Sequence[AnyOrder]) -> dict[int, Manifest]:
        kept = {order.shard: self._find(order) for order in orders}
        self._found.append((task.name, sum(count_rows(order) for order in orders), kept))
        return dict(sorted(kept.items()))

    complete = run

    def _find(self, order: AnyOrder) -> Manifest:
        manifest = find_kept(self.records, order_key(order))
        if manifest is None or not holds(self.storage, manifest):
            raise NotKept(order.title)
        return manifest

    def tell(self, progress: BuildProgress) -> None:
        """What was found, as a run tells it that reuses every shard."""
        for stage, rows, kept in self._found:
            progress.begin(stage, len(kept), rows)
            for manifest in kept.values():
                progress.finish_shard(stage, manifest, reused=True)
            progress.end(stage)
