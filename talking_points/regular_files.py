"""Files that somebody else may have put there, opened without waiting: a pipe or a device in their place is refused.

Opening a pipe waits for a writer and reading a device may never end. Links are followed; where they must not be, the
caller looks.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_AT_ONCE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class IrregularFileError(OSError, ValueError):
    """What has the name of a file is a pipe, a device, a socket or a folder."""


def open_regular(path: str | Path) -> BinaryIO:
    """The regular file at ``path``, open for reading. Raises ``OSError``, of it ``IrregularFileError``."""
    _look(path, Path(path).stat().st_mode)  # opening some devices is an act by itself
    stream = os.fdopen(os.open(path, _AT_ONCE), "rb", closefd=True)
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
    """The text of a regular file in UTF-8, line ends as "\\n". Raises as ``open_regular``, and ``UnicodeDecodeError``."""
    return read_bytes(path).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def check_regular(path: str | Path) -> None:
    """Before a library opens ``path`` by its name: it is a regular file, or not there. Raises ``IrregularFileError``."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return
    _look(path, mode)


def _look(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise IrregularFileError(errno.EINVAL, f"expected a file, found {_kind(mode)}", str(path))


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((kind for test, kind in kinds if test(mode)), "a device")
