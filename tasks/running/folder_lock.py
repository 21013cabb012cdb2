"""The lock that says whether a build is writing to an output folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from talking_points.locks import is_locked
from tasks.running.lease import find_holder
from tasks.running.stages import WORK
from tasks.running.storage import Storage


def in_use(storage: Storage) -> bool:
    """Whether a build is writing to this folder right now, on this machine or on another one."""
    path = lock_file(storage)
    return is_locked(path) or find_holder(storage, alone_here=storage.is_local or path.exists()) is not None


def lock_file(storage: Storage) -> Path:
    """The file that a build locks: in its output, or in the user's cache for a remote one."""
    if storage.is_local:
        return Path(storage.path(WORK), "lock")
    name = hashlib.sha256(storage.path().encode()).hexdigest()[:16]
    return Path.home() / ".cache" / "talking-points" / "locks" / f"{name}.lock"
