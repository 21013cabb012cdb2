"""How a build says that it failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from talking_points.errors import RunError


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
