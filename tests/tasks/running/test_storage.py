from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pytest

from talking_points.errors import InputError
from tasks.running import storage as storage_file
from tasks.running.storage import Storage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A local folder, and an object store without folders or renames."""
    return Storage(tmp_path / "out" if request.param == "local" else f"memory://{uuid.uuid4()}")


def test_round_trip(storage: Storage) -> None:
    storage.write_bytes("a/b.bin", b"content")
    assert storage.read_bytes("a/b.bin") == b"content"
    assert storage.exists("a/b.bin")
    assert storage.size("a/b.bin") == 7
    assert storage.sha256("a/b.bin") == hashlib.sha256(b"content").hexdigest()
    assert storage.names("a") == ["b.bin"]
    assert storage.names("nothing") == []
    storage.write_json("c.json", {"ä": [1, 2]})
    assert storage.read_json("c.json") == {"ä": [1, 2]}
    table = pa.table({"x": [1, 2], "y": ["a", "b"]})
    storage.write_table("t.parquet", table)
    assert storage.read_table("t.parquet", columns=["y"]) == table.select(["y"])
    storage.move("a", "moved")
    assert storage.names("moved") == ["b.bin"]
    assert not storage.exists("a")
    storage.remove("moved")
    storage.remove("moved")
    assert not storage.exists("moved")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(storage: Storage) -> None:
    storage.write_bytes("x/file", b"old")

    def fill_the_disk() -> None:
        with storage.writing("x/file") as path:
            path.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fill_the_disk()
    assert storage.read_bytes("x/file") == b"old"
    assert storage.names("x") == ["file"]


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write_bytes("x/file", b"kept")
    (tmp_path / "x" / ".file.abc123.part").write_bytes(b"half")
    storage.remove_temporaries()
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["file"]


def test_a_missing_file_is_an_error(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.sha256("missing")


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    storage = Storage(tmp_path)
    for name in ("pipe", "folder"):
        for read in (storage.read_bytes, storage.read_json, storage.read_table):
            with pytest.raises(InputError, match=f"/{name} cannot be read .expected a file, found a {name}"):
                read(name)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("missing")


def test_what_is_put_in_the_place_of_a_file_in_the_last_moment_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    storage = Storage(tmp_path)
    monkeypatch.setattr(Path, "is_file", lambda self, **_: True)  # as it was when somebody looked
    for read in (storage.read_bytes, storage.read_json, storage.read_table):
        with pytest.raises(InputError, match="found a pipe"):
            read("pipe")
    with pytest.raises(FileNotFoundError):
        storage.sha256("pipe")


def test_an_empty_object_of_which_a_store_gives_no_range(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(f"memory://{uuid.uuid4()}")
    storage.write_bytes("empty", b"")
    monkeypatch.setattr(storage.fs, "cat_file", Mock(side_effect=OSError("416")))
    assert storage.read_bytes("empty") == b""
    storage.write_bytes("empty", b"x")
    with pytest.raises(OSError, match="416"):
        storage.read_bytes("empty")


def test_a_file_that_is_too_large_is_not_read(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_file, "_LARGEST", 10)
    storage.write_bytes("small", b"x" * 10)
    storage.write_bytes("large", b"x" * 11)
    assert storage.read_bytes("small") == b"x" * 10
    with pytest.raises(InputError, match="large has more than the 10 bytes"):
        storage.read_bytes("large")


@pytest.mark.parametrize("depth", [50, 900, 3000, 100_000])
def test_nested_values_are_refused(storage: Storage, depth: int) -> None:
    storage.write_bytes("x.json", b"[" * depth + b"]" * depth)
    with pytest.raises(ValueError, match="nested"):
        storage.read_json("x.json")
