"""Attempts at a shard: where a task may be run again while its first worker only seems to be lost.

A worker that was paused, or cut off from the network, comes back and goes on with a shard that another one has made
meanwhile. Every attempt at a shard takes the next number of it (a file that only one of them can create), writes files
that are called after it, and looks before and after it has written whether a later attempt has begun.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass

from talking_points.errors import RunError
from tasks.running.lease import Fence, check_fence
from tasks.running.storage import Storage

CLAIMS = ".work/claims"
_MOST = 10_000
"""Attempts at a shard."""


class Overtaken(RunError):
    """A later attempt at the same shard has begun: what this one has made does not count."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a shard under a lease; ``number`` 0 where nobody else can make the same shard."""

    storage: Storage
    fence: Fence | None
    shard: str
    number: int = 0

    @property
    def ending(self) -> str:
        """What its files' names end with before their extension: nothing for the first attempt of an untaken lease."""
        takeovers = self.fence.takeovers if self.fence else 0
        return f"-{takeovers}-{self.number}" if takeovers or self.number > 1 else ""

    def check(self) -> None:
        """Raise ``LeaseLost`` or ``Overtaken`` where the output, or the shard, is somebody else's by now."""
        check_fence(self.storage, self.fence)
        if self.number and self.storage.exists(_path(self.shard, self.number + 1)):
            raise Overtaken(
                f"{self.shard} was given to another worker while {this_worker()} did not answer: its result is not used"
            )

    def remove_earlier(self, folder: str, number: int) -> None:
        """Delete the shard's files of earlier attempts in a folder."""
        if not self.ending:
            return
        stem = f"{number:05d}"
        for name in self.storage.names(folder):
            if name.startswith((f"{stem}.", f"{stem}-")) and not name.startswith(f"{stem}{self.ending}."):
                with suppress(OSError):
                    self.storage.remove(f"{folder}/{name}")


def begin_attempt(storage: Storage, fence: Fence | None, stage: str, shard: int) -> Attempt:
    """An attempt at a shard; numbered where its worker may be on another machine, or was so in an earlier build."""
    name = f"{stage}/{shard:05d}"
    check_fence(storage, fence)
    if fence is None or not (fence.shared or was_begun(storage, stage, shard)):
        return Attempt(storage, fence, name)
    for number in range(1, _MOST):
        if storage.create(_path(name, number), f"{this_worker()}\n".encode()):
            return Attempt(storage, fence, name, number)
    raise RunError(f"{name} was begun {_MOST} times: delete {storage.path(CLAIMS)} while no build is running")


def was_begun(storage: Storage, stage: str, shard: int, attempts: int = 1) -> bool:
    """Whether there were so many attempts at a shard by workers that may be on another machine."""
    return storage.exists(_path(f"{stage}/{shard:05d}", attempts))


def latest_worker(storage: Storage, stage: str, shard: int) -> str | None:
    """Who has begun the latest attempt at a shard, as ``this_worker`` called itself; None where nobody has."""
    found = None
    for number in range(1, _MOST):
        try:
            found = storage.read_bytes(_path(f"{stage}/{shard:05d}", number)).decode(errors="replace").strip()
        except (OSError, ValueError):  # of somebody else's making
            break
    return found


def this_worker() -> str:
    """How this process is called in messages."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _path(shard: str, number: int) -> str:
    return f"{CLAIMS}/{shard}.{number}"
