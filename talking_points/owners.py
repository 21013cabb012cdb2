"""Whose folder it is: what this user cannot write to is refused before any work, with the name of its owner."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from talking_points.config import ConfigError

CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""System errors that say: there, but not for you."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC})
"""System errors that say: no room."""


class ClosedError(ConfigError):
    """A place that this user may not write to: whose it is, and what to do."""


def refuse_closed(place: str | Path, *inside: str) -> None:
    """Raise ``ClosedError`` where this user cannot make ``place``, a file or a folder, or write to it.

    ``inside``: names of folders below it that are written to as well. Nothing is made.
    """
    closed = find_closed(place, *inside)
    if closed is not None:
        raise ClosedError(f"cannot write to {place}: {_why(closed)}")


def _why(closed: Path) -> str:
    """Whose it is, and what to do; on a disk that is mounted for reading its owner could not write either."""
    flags = getattr(os, "statvfs", None) and os.statvfs(closed).f_flag
    if flags and flags & os.ST_RDONLY:
        return f"{closed} is on a file system that is mounted read-only; choose another place"
    return (
        f"{closed} belongs to {owner_of(closed)} and is closed to this user; choose another place, or run this as its "
        "owner"
    )


def find_closed(place: str | Path, *inside: str) -> Path | None:
    """The file or folder that keeps this user from writing to ``place`` or to what is ``inside``; None without one."""
    for path in (Path(place).absolute(), *(Path(place, name).absolute() for name in inside)):
        # What is there but hidden behind a closed folder counts as that folder.
        there = next(found for found in (path, *path.parents) if os.path.lexists(found))
        needed = os.W_OK | os.X_OK if there.is_dir() else os.W_OK
        if not os.access(there, needed):
            return there
    return None


def owner_of(path: Path) -> str:
    """The name of a file's owner, or its number where there is no name."""
    try:
        return path.owner()
    except (KeyError, NotImplementedError):
        return f"the user with the number {path.stat().st_uid}"
    except OSError:
        return "somebody else"


def explain(error: OSError) -> str | None:
    """What to tell of a system error about a file that is closed to this user or has no room; None for all others."""
    if error.errno in FULL:
        place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else "the output"
        return f"cannot write {place} ({error.strerror}): make room on its disk, or write to another one"
    if error.errno not in CLOSED or not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    path = Path(os.fsdecode(error.filename))
    there = find_closed(path) or next(found for found in (path, *path.parents) if os.path.lexists(found))
    return f"{path} is closed to this user ({error.strerror}): {_why(there)}"
