"""A SQLite file from somebody else, and what lies beside it, touches nothing."""

from __future__ import annotations

import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from talking_points.sqlite_files import COMPANIONS, ForeignDatabaseError, check_pages, open_database

TABLE = "CREATE TABLE IF NOT EXISTS notes (number INTEGER PRIMARY KEY, text TEXT UNIQUE)"
MAGIC = bytes.fromhex("d9d505f920a163d7")
PAGE = 4096


def plant_journal(path: Path, victim: Path) -> None:
    """A journal beside the database that SQLite takes for one of a transaction over several: it names ``victim``."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS planted (a)")
    name = os.fsencode(victim)
    head = MAGIC + struct.pack(">5I", 0, 1, path.stat().st_size // PAGE, 512, PAGE)
    record = struct.pack(">I", 0x40000000 // PAGE + 1) + name + struct.pack(">2I", len(name), sum(name)) + MAGIC
    Path(f"{path}-journal").write_bytes(head.ljust(512, b"\0") + record)


def test_the_file_that_a_journal_names_stays(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "notes.sqlite"
    victim.write_text("mine")
    plant_journal(path, victim)
    with pytest.raises(ForeignDatabaseError, match="names another file"):
        open_database(path, TABLE, patience=1)
    assert victim.exists()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT * FROM planted")
    assert not victim.exists(), "what SQLite alone does"


def test_a_value_of_hundreds_of_megabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(TABLE)
        connection.execute("INSERT INTO notes VALUES (1, zeroblob(?))", (65 << 20,))
        connection.commit()
    with closing(open_database(path, TABLE, patience=1)) as connection, pytest.raises(sqlite3.Error, match="too big"):
        connection.execute("SELECT * FROM notes").fetchall()


def test_a_journal_of_ours_is_played_back(tmp_path: Path) -> None:
    """A process that dies while it writes leaves one."""
    path, copy = tmp_path / "notes.sqlite", tmp_path / "copy.sqlite"
    with closing(open_database(path, TABLE, patience=1)) as connection:
        connection.execute("INSERT INTO notes VALUES (1, 'kept')")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO notes VALUES (?, ?)", ((n, f"{n}" * 900) for n in range(2, 200)))
        journal = Path(f"{path}-journal").read_bytes()
        assert journal.startswith(MAGIC)
        copy.write_bytes(path.read_bytes())
        Path(f"{copy}-journal").write_bytes(journal)
        connection.execute("ROLLBACK")
    with closing(open_database(copy, TABLE, patience=1)) as connection:
        assert connection.execute("SELECT * FROM notes").fetchall() == [(1, "kept")]


@pytest.mark.parametrize("ending", ["", *COMPANIONS])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_only_regular_files_are_opened(tmp_path: Path, ending: str, kind: str) -> None:
    path, outside = tmp_path / "notes.sqlite", tmp_path / "outside"
    planted = Path(f"{path}{ending}")
    if kind == "folder":
        planted.mkdir()
    elif kind == "pipe":
        os.mkfifo(planted)
    else:
        planted.symlink_to(outside)
    if kind == "link":
        outside.write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ForeignDatabaseError, match="no regular file" if kind in ("pipe", "folder") else "a link"):
        open_database(path, TABLE, patience=1)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("wal", [False, True])
def test_a_file_of_ours_is_opened_again(tmp_path: Path, wal: bool) -> None:
    for number in range(2):
        with closing(open_database(tmp_path / "notes.sqlite", TABLE, patience=1, wal=wal)) as connection:
            connection.execute("INSERT INTO notes VALUES (?, ?)", (number, str(number)))
            check_pages(connection, tmp_path / "notes.sqlite")
            assert connection.execute("SELECT count(*) FROM notes").fetchone() == (number + 1,)


def test_a_page_that_many_lead_to_is_refused_before_the_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    with closing(open_database(path, TABLE, patience=1)) as connection:
        connection.executemany("INSERT INTO notes VALUES (?, ?)", ((n, f"{n}" * 500) for n in range(1, 99)))
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'notes'").fetchone()[0]
    content = bytearray(path.read_bytes())
    start = (root - 1) * PAGE
    assert content[start] == 5, "the root leads to other pages"
    cells = struct.unpack_from(">2H", content, start + 12)
    content[start + cells[1] : start + cells[1] + 4] = content[start + cells[0] : start + cells[0] + 4]
    path.write_bytes(content)
    with closing(open_database(path, TABLE, patience=1)) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone()[0] > 0, "SQLite alone reads it"
        with pytest.raises(ForeignDatabaseError, match="it is damaged"):
            check_pages(connection, path)
