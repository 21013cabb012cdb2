"""The one way to open a SQLite file: it may come with a folder that somebody else made.

SQLite itself trusts what lies there: it plays back a journal beside the file and deletes the file that the journal
names, follows links, and runs what the schema says. Nothing is opened before the file and its companions are looked
at, and nothing is used whose schema is not the program's own.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

from talking_points.errors import InputError

COMPANIONS = ("-journal", "-wal", "-shm")
"""Endings of the files that SQLite keeps beside its own."""
LONGEST = 64 << 20
"""Bytes of a value or a row that is read or written; SQLite's own limit is a thousand million."""
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
"""A journal that names another file, which belongs to a transaction over several databases, ends with it."""
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class ForeignDatabaseError(InputError):
    """A SQLite file, or one beside it, is not as this program writes it: names the file and the way on."""

    def __init__(self, path: Path | str, found: str) -> None:
        super().__init__(f"{path} is not as this program writes it ({found}): move the file away, then run this again")


def open_database(path: Path, table: str, *, patience: float, wal: bool = False) -> sqlite3.Connection:
    """A connection that commits every statement at once and may be used from several threads, one at a time.

    ``table`` is the one CREATE TABLE IF NOT EXISTS statement of the file's whole schema, ``patience`` how many seconds
    to wait for others that use the file. With ``wal`` a write-ahead log is turned on, which does not wait for other
    processes: hold a lock of the file. Raises ``ForeignDatabaseError``, and ``sqlite3.Error`` for a file that is
    damaged or cannot be opened.
    """
    for ending in ("", *COMPANIONS):
        _check_file(f"{path}{ending}")
    with suppress(OSError):  # SQLite would close it to a group that the umask lets write
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        found = _schema(connection)
        if found and found != _own_schema(table):
            raise ForeignDatabaseError(path, "its tables are others")
        if wal:
            connection.execute("PRAGMA journal_mode = WAL")
        # A log may lose its last entries to a power loss, never its order; a journal waits for the disk.
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if wal else 'FULL'}")
        if not found:
            connection.execute(table)
    except BaseException:
        connection.close()
        raise
    return connection


def check_pages(connection: sqlite3.Connection, path: Path) -> None:
    """Before a table is read as a whole: a page that many others lead to would be read over and over, without end.

    Takes as long as reading the file. Raises ``ForeignDatabaseError``.
    """
    if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise ForeignDatabaseError(path, "it is damaged")


def _check_file(name: str) -> None:
    """Only a regular file that is no link, or none, and no journal that names another file."""
    try:
        mode = os.lstat(name).st_mode
        if not stat.S_ISREG(mode):
            raise ForeignDatabaseError(name, "it is a link" if stat.S_ISLNK(mode) else "it is no regular file")
        if name.endswith("-journal"):
            with open(os.open(name, _OPEN), "rb") as stream:  # noqa: PTH123  # a descriptor, not a path
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - len(_JOURNAL_MAGIC)))
                if stream.read() == _JOURNAL_MAGIC:
                    raise ForeignDatabaseError(name, "it names another file, which SQLite would delete")
    except FileNotFoundError:
        # Not there, or another process has just finished with it.
        return


@cache
def _own_schema(table: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(table)
        return _schema(connection)


def _schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
