"""Why workers were lost, in words, by what a cluster knows of them: they cannot say it any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from talking_points.errors import RunError
from talking_points.units import format_size

_NAMED = 5
"""Workers of which the names are said."""
_MUCH = 0.7
"""The share of its limit from which on memory is what a worker was probably lost for."""


class WorkersLost(RunError):
    """A shard whose workers were lost more often than it is to be run again."""


@dataclass(frozen=True)
class LostWorker:
    """One that is gone. ``held``, of the ``limit`` that it had: bytes when it was last heard of, or when it was
    ``ended`` for them; None where nothing is known.
    """

    name: str
    held: int | None = None
    limit: int | None = None
    ended: bool = False

    @property
    def lacked_memory(self) -> bool:
        return self.ended or bool(self.held and self.limit and self.held >= _MUCH * self.limit)

    def describe(self) -> str:
        if self.held is None:
            return self.name
        of = f" of the {format_size(self.limit)} that it is allowed" if self.limit else ""
        what = "was ended for its memory at" if self.ended else "held, when last heard of,"
        return f"{self.name}, which {what} {format_size(self.held)}{of}"


def why_lost(lost: Sequence[LostWorker], remedy: str) -> str:
    """Who was lost, and why as far as it is known; ``remedy``: what gives such workers more memory."""
    # Those that lacked memory first: the names of all may be too many.
    known = sorted(lost, key=lambda worker: not worker.lacked_memory)
    names = "; ".join(worker.describe() for worker in known[:_NAMED])
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    if known and known[0].lacked_memory:
        cause = "memory did not suffice" if known[0].ended else "memory probably did not suffice"
        return f"lost with {names}{more}: {cause}; {remedy}, or put fewer rows into a shard (shard_size)"
    who = f"lost with {names}{more}: " if names else ""
    return f"{who}their logs may say why, and that of the machine's kernel (dmesg) where it ran out of memory"
