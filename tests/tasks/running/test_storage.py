from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import pyarrow as pa
import pytest

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
