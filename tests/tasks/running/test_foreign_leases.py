"""Leases that are damaged, foreign or skewed, and requests to stop that came with them."""

from __future__ import annotations

import json
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from talking_points.errors import InputError
from tasks.running import lease as leases
from tasks.running.lease import (
    LEASES,
    FolderInUse,
    check_fence,
    find_holder,
)
from tasks.running.storage import Storage
from tests.tasks.running.test_lease import take


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.1)
    monkeypatch.setattr(leases, "EXPIRES", 0.6)


def of_another(lease: int, **changes: object) -> dict[str, object]:
    """A lease that was held on another machine long ago, as its file has it."""
    owner = replace(leases.this_process(), boot="another", machine="elsewhere", user="somebody")
    return asdict(leases.LeaseFile(lease, owner)) | changes


OWNER = asdict(leases.this_process()) | {"boot": "another"}
WRONG: list[dict[str, Any]] = [
    *({"time": value} for value in (float("nan"), float("inf"), "now", None)),
    *({"takeovers": value} for value in (float("nan"), 1.5, -3, 42, 10**4000, True, "1")),
    *({"owner": OWNER | {"process": value}} for value in (-1, 10**3000, 1.5, True)),
    *({"owner": OWNER | {"machine": value}} for value in (None, [1], {"a": 1})),
    *({"number": value} for value in (42, -41, 10**30)),
    {"state": ["held"]},
]


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", "[" * 10_000, '{"number": 1}', '{"number": "x", "owner": {"process": []}}'),
        json.dumps(of_another(41)).replace('"time": 0.0', f'"time": 1{"0" * 400}'),
        *(json.dumps(of_another(41, **changes)) for changes in WRONG),
    ],
)
def test_a_damaged_lease_is_followed_by_the_next_one(content: str, tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write_bytes(f"{LEASES}/00000041.json", content.encode())
    storage.write_bytes(f"{LEASES}/²²²²²²²²foo", b"")
    held = take(storage)
    assert held.number == 42
    assert held.content.takeovers == 41, "files of its attempts have no name of those before, however many these were"
    check_fence(storage, held.fence(shared=True))
    held.release()


def test_a_lease_of_a_later_release_is_one(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write_json(f"{LEASES}/00000041.json", of_another(41, time=time.time(), state="ending", zone="b"))
    with pytest.raises(FolderInUse, match="somebody on elsewhere"):
        take(storage)


def test_numbers_do_not_end_at_eight_digits(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write_bytes(f"{LEASES}/99999999.json", b"")
    held = take(storage)
    check_fence(storage, held.fence())
    held.release()
    storage.write_bytes(f"{LEASES}/{'9' * 15}.json", b"")
    with pytest.raises(InputError, match="a number that no build gives: delete it"):
        take(storage)


def test_who_holds_a_lease_is_said_on_one_line() -> None:
    held = replace(leases.this_process(), user="a\nerror: b\x1b[2J", machine="m" * 10**6)
    assert str(held).isprintable()
    assert len(str(held)) < 300


def test_a_request_to_stop_that_came_with_a_copy_stops_nothing(tmp_path: Path) -> None:
    storage, told = Storage(tmp_path), threading.Event()
    for number in (1, 2):
        storage.write_bytes(f"{LEASES}/{number:08d}.stop", b"")
    held = take(storage, told.set)
    assert not told.wait(0.4)
    held.release()


def test_a_store_whose_answer_came_too_late_has_given_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client repeats what was not answered, and is refused for what it has written itself."""
    storage = Storage(tmp_path)
    real = storage.create
    monkeypatch.setattr(storage, "create", lambda name, content: real(name, content) and real(name, content))
    held = take(storage)
    assert held.number == 1
    held.release()


@pytest.mark.parametrize("conflicts", [1, 3, 4])
def test_a_store_that_asks_for_another_try_gets_it(conflicts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 409 where another request for the same name was under way: neither need have succeeded."""
    storage = Storage(f"memory://conflicts-{conflicts}")
    real, left = storage.fs.pipe_file, [OSError(5, "(ConditionalRequestConflict) when calling PutObject")] * conflicts

    def put(*given: Any, **more: Any) -> None:
        if left:
            raise left.pop()
        real(*given, **more)

    monkeypatch.setattr(storage.fs, "pipe_file", put)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(OSError, match="Conflict") if conflicts > 3 else nullcontext():
        assert storage.create("x", b"")
        assert not storage.create("x", b"")


def test_leases_that_no_build_wrote(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    path = tmp_path / leases.LEASES / "00000001.json"
    path.parent.mkdir(parents=True)
    held = asdict(leases.LeaseFile(1, leases.this_process(), time=time.time()))
    for change in ({"time": 10**400}, {"takeovers": 1.5}, {"beat": -1}, {"state": None}, {"owner": {"process": 1}}):
        path.write_text(json.dumps(held | change))
        assert find_holder(storage) is None
