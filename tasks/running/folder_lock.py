"""The lock that says whether a build is writing to an output folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.running.stages import WORK
from tasks.running.storage import Storage


def in_use(storage: Storage) -> bool:
    """Whether a build is writing to this folder right now."""
    path = lock_file(storage)
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return _is_locked(path)


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
