"""Files that somebody else may have put there, opened without waiting: a pipe or a device in their place is refused.

Opening a pipe waits for a writer and reading a device may never end. Links are followed; where they must not be, the
caller looks.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

_AT_ONCE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class IrregularFileError(OSError, ValueError):
    """What has the name of a file is a pipe, a device, a socket or a folder."""


def open_regular(path: str | Path) -> BufferedReader:
    """The regular file at ``path``, open for reading. Raises ``OSError``, of it ``IrregularFileError``."""
    _look(path, Path(path).stat().st_mode)  # opening some devices is an act by itself
    stream = os.fdopen(os.open(path, _AT_ONCE), "rb")
    try:
        _look(path, os.fstat(stream.fileno()).st_mode)
    except BaseException:
        stream.close()
        raise
    return stream


def read_bytes(path: str | Path) -> bytes:
    """The content of a regular file. Raises as ``open_regular``."""
    with open_regular(path) as stream:
        return stream.read()


def read_text(path: str | Path) -> str:
    """The text of a regular file in UTF-8, line ends as "\\n". Raises as ``open_regular``, or ``UnicodeError``."""
    return read_bytes(path).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def check_regular(path: str | Path) -> None:
    """Before a library opens ``path`` by its name: a regular file, or not there. Raises ``IrregularFileError``."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return
    _look(path, mode)


def find_foreign(place: str | Path) -> Path | None:
    """The first link, pipe or device at ``place`` or below it at any depth; None where there are but files and folders.

    Nothing is opened or followed, so it takes about a second for a million files. What is closed to this user or not
    there counts as nothing: whoever writes there will be told.
    """
    with suppress(OSError):
        mode = os.lstat(place).st_mode
        if stat.S_ISREG(mode):
            return None
        if not stat.S_ISDIR(mode):
            return Path(place)
        left = [str(place)]
        while left:
            with suppress(OSError), os.scandir(left.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        return Path(entry.path)
    return None


def _look(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise IrregularFileError(errno.EINVAL, f"expected a file, found {_kind(mode)}", str(path))


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((kind for test, kind in kinds if test(mode)), "a device")
