"""One output folder, one writer: a lock of the operating system, which ends with the process that holds it.

A process that is paused holds it still: whoever takes its place meanwhile is refused, so that it cannot wake up and
write into what the other has made.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from talking_points.config import ConfigError
from talking_points.errors import InputError, RunError
from talking_points.owners import refuse_closed
from talking_points.regular_files import find_foreign, open_regular, read_text
from talking_points.whole_files import write_json

LOCK, OWNER = ".lock", ".owner.json"
_A_LOOK = 0.5
"""Seconds: whoever looks whether a lock is held (``is_locked``) holds it for a moment."""


class FolderInUseError(InputError):
    """Somebody else is writing to the folder."""


@contextmanager
def only_writer(folder: str | Path, what: str) -> Iterator[None]:
    """Lock a folder, which is made where it is missing, for as long as this lasts.

    ``what`` says in the other's message who holds it ("a training"). Raises ``FolderInUseError`` where another process
    or thread holds it, and ``RunError`` where the folder cannot be written to.
    """
    folder = Path(folder)
    lock = FileLock(folder / LOCK, timeout=_A_LOOK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise FolderInUseError(
            f"{_owner(folder)} is writing to {folder}: wait for it, stop it, or choose another output"
        ) from None
    except OSError as error:
        refuse_closed(folder, LOCK)
        raise RunError(f"cannot write to {folder} ({error}): make it writable, or choose another output") from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(
            folder / OWNER, {"what": what, "process": os.getpid(), "machine": socket.gethostname(), "since": since}
        )
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def refuse_links(place: str | Path) -> None:
    """Raise ``ConfigError`` for a link, pipe or device at ``place`` or below it: writing would reach where it leads.

    A folder may have come from somebody else. The output that a person names may itself be a link.
    """
    found = find_foreign(place)
    if found is not None:
        kind = "a link" if found.is_symlink() else "no regular file"
        raise ConfigError(
            f"{found} is {kind}, and what is written there would go to where it leads: remove it, or name that place "
            "as output"
        )


def is_held(folder: str | Path) -> bool:
    """Whether somebody is writing to the folder right now."""
    return is_locked(Path(folder) / LOCK)


def is_locked(path: Path) -> bool:
    """Whether somebody holds a lock file right now, also one that this user may only read."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        import fcntl  # on systems whose locks these are; others do not come here

        with open_regular(path) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False


def _owner(folder: Path) -> str:
    try:
        known = json.loads(read_text(folder / OWNER))
        return f"{known['what']} (process {known['process']} on {known['machine']}, since {known['since']})"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # between its lock and its name
        return "another process"
