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

from talking_points.errors import InputError, RunError
from talking_points.whole_files import write_json

LOCK, OWNER = ".lock", ".owner.json"


class FolderInUseError(InputError):
    """Somebody else is writing to the folder."""


@contextmanager
def only_writer(folder: str | Path, what: str) -> Iterator[None]:
    """Lock a folder, which is made where it is missing, for as long as this lasts.

    ``what`` says in the other's message who holds it ("a training"). Raises ``FolderInUseError`` at once where another
    process or thread holds it, and ``RunError`` where the folder cannot be written to.
    """
    folder = Path(folder)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise FolderInUseError(
            f"{_owner(folder)} is writing to {folder}: wait for it, stop it, or choose another output"
        ) from None
    except OSError as error:
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


def _owner(folder: Path) -> str:
    try:
        known = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return f"{known['what']} (process {known['process']} on {known['machine']}, since {known['since']})"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # between its lock and its name
        return "another process"
