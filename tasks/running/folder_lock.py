"""The lock that says whether a build is writing to an output folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.running.lease import find_holder
from tasks.running.stages import WORK
from tasks.running.storage import Storage


def in_use(storage: Storage) -> bool:
    """Whether a build is writing to this folder right now, on this machine or on another one."""
    path = lock_file(storage)
    if path.exists():
        try:
            with FileLock(path, timeout=0):
                return find_holder(storage, alone_here=True) is not None
        except Timeout:
            return True
        except OSError:
            if _is_locked(path):
                return True
    return find_holder(storage, alone_here=storage.is_local) is not None


def _is_locked(path: Path) -> bool:
    """Whether somebody holds a lock file that this user may only read."""
    import fcntl  # on systems whose locks these are; others do not come here

    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def lock_file(storage: Storage) -> Path:
    """The file that a build locks: in its output, or in the user's cache for a remote one."""
    if storage.is_local:
        return Path(storage.path(WORK), "lock")
    name = hashlib.sha256(storage.path().encode()).hexdigest()[:16]
    return Path.home() / ".cache" / "talking-points" / "locks" / f"{name}.lock"
