"""Files that somebody else may have put there, opened without waiting: a pipe or a device in their place is refused.

Opening a pipe waits for a writer and reading a device may never end. What is read as a whole has a limit: a file with
holes may say that it has terabytes. Links are followed; where they must not be, the caller looks.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

_AT_ONCE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)

WHOLE = 512 << 20
"""Largest file in bytes that is read as a whole."""

_BLOCK = 1 << 20

LINE = 64 << 20
"""Longest line in bytes of a file of rows; one may hold an image."""


class IrregularFileError(OSError, ValueError):
    """What has the name of a file is a pipe, a device, a socket or a folder, or is larger than any that is read."""


def open_regular(path: str | Path, limit: int | None = None) -> BufferedReader:
    """The regular file at ``path`` of at most ``limit`` bytes, open for reading.

    Raises ``OSError``, of it ``IrregularFileError``.
    """
    _look(path, Path(path).stat(), limit)  # opening some devices is an act by itself
    stream = os.fdopen(os.open(path, _AT_ONCE), "rb")
    try:
        _look(path, os.fstat(stream.fileno()), limit)
    except BaseException:
        stream.close()
        raise
    return stream


def read_bytes(path: str | Path, limit: int = WHOLE) -> bytes:
    """The content of a regular file. Raises as ``open_regular``."""
    with open_regular(path, limit) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(size + 1)  # not the limit: room is made for all that is asked for
        if len(content) > size:
            content += stream.read(limit - size)  # it grows
        _look(path, os.fstat(stream.fileno()), limit)
        return content


def read_text(path: str | Path) -> str:
    """The text of a regular file in UTF-8, line ends as "\\n". Raises as ``open_regular``, or ``UnicodeError``."""
    return read_bytes(path).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | Path) -> Iterator[bytes | None]:
    """The lines of a regular file; None for one that is longer than ``LINE``, which is left out.

    Raises as ``open_regular``, also for a line that goes on beyond ``WHOLE``.
    """
    held: list[bytes] = []
    length = 0
    with open_regular(path) as stream:
        while block := stream.read(_BLOCK):
            start = 0
            while end := block.find(b"\n", start) + 1:
                length += end - start
                yield b"".join([*held, block[start:end]]) if length <= LINE else None
                held, length, start = [], 0, end
            length += len(block) - start
            held = [*held, block[start:]] if length <= LINE else []
            if length > WHOLE:
                wanted = f"expected lines of at most {LINE:,} bytes, found one of more than {WHOLE:,}"
                raise IrregularFileError(errno.EFBIG, wanted, str(path))
    if length:
        yield b"".join(held) if length <= LINE else None


def check_regular(path: str | Path, limit: int | None = None) -> None:
    """Before a library opens ``path`` by its name: a regular file of at most ``limit`` bytes, or not there.

    Raises ``IrregularFileError``.
    """
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return
    _look(path, found, limit)


def homes(root: Path) -> list[Path]:
    """Folders in which the files of a dataset or model may lie when links are followed; ``root`` has none in it."""
    repository = root.parent.parent
    cached = root.parent.name == "snapshots" and re.fullmatch(r"(?:datasets|models)--.+", repository.name)
    return [root, repository / "blobs"] if cached else [root]


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


def _look(path: str | Path, found: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise IrregularFileError(errno.EINVAL, f"expected a file, found {_kind(found.st_mode)}", str(path))
    if limit is not None and found.st_size > limit:
        wanted = f"expected a file of at most {limit:,} bytes, found {found.st_size:,}"
        raise IrregularFileError(errno.EFBIG, wanted, str(path))


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((kind for test, kind in kinds if test(mode)), "a device")
