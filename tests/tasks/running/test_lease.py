"""One output, one build: leases with growing numbers, on folders and on an object store, and attempts at shards."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest
from prefect.filesystems import LocalFileSystem
from rich.console import Console

from talking_points.config import ConfigError
from talking_points.descriptions.asking import WholesaleFailure
from talking_points.errors import InputError, RunError
from tasks.running import lease as leases
from tasks.running import prefect_tasks, shards
from tasks.running.build_folder import BuildStorage
from tasks.running.claims import Overtaken, begin_attempt
from tasks.running.lease import (
    LEASES,
    Fence,
    FolderInUse,
    Lease,
    LeaseLost,
    Owner,
    ask_to_stop,
    check_fence,
    find_holder,
    read_lease,
    take_lease,
)
from tasks.running.manifests import Manifest, add_seal
from tasks.running.progress import STATUS_FILE, BuildProgress
from tasks.running.shards import Environment, Inputs, Order, ShardWriter, _made_by_another, order_key, shard_task
from tasks.running.storage import Storage
from tests.flows.serving import REPOSITORY
from tests.object_store import bucket
from tests.patience import wait_for
from tests.tasks.running.test_runner import Settings

MACHINES = """
import sys, threading
from tasks.running import lease
from tasks.running.storage import Storage

output, machine, user = sys.argv[1:4]
real = lease.this_process
lease.this_process = lambda: lease.replace(real(), machine=machine, user=user, boot=machine)
lease.BEAT, lease.EXPIRES = 0.3, 2.0
try:
    held = lease.take_lease(Storage(output), threading.Event().set, alone_here=True)
except lease.FolderInUse as error:
    sys.exit(f"refused: {error}")
print(held.number, flush=True)
sys.stdin.read()
held.release()
"""


@pytest.fixture(scope="module", params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Makes names of outputs: in a folder, and in a bucket of an S3-compatible store."""
    folder = tmp_path_factory.mktemp("outputs")
    if request.param == "folder":
        yield lambda name: str(folder / name)
        return
    with bucket(folder.name) as url:
        yield lambda name: f"{url}/{name}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.1)
    monkeypatch.setattr(leases, "EXPIRES", 0.6)


def take(storage: Storage, on_stop: Callable[[], None] = lambda: None) -> Lease:
    return take_lease(storage, on_stop, alone_here=False)


def elsewhere(storage: Storage, held: Lease, **changes: object) -> None:
    """Let a lease be that of another machine, whose processes nothing is known of here."""
    held._ended.set()
    held._thread.join()
    owner = replace(held.content.owner, boot="another", machine="elsewhere", user="somebody")
    content = replace(held.content, owner=owner, **changes)  # type: ignore[arg-type]
    storage.write_json(f"{LEASES}/{held.number:08d}.json", asdict(content))


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_a_list_that_is_seconds_old_loses_and_doubles_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    """As a machine may see the folder of another one over NFS."""
    storage, told = Storage(tmp_path), threading.Event()
    for _ in range(2):
        take(storage).release()
    real = storage.names
    monkeypatch.setattr(storage, "names", lambda folder="": [name for name in real(folder) if name[7:8] <= f"{behind}"])
    monkeypatch.setattr(leases, "EXPIRES", 30.0)
    held = take(storage, told.set)
    assert held.number == 3
    assert not told.wait(0.5), "it is not taken for lost"
    check_fence(storage, held.fence())
    with pytest.raises(FolderInUse, match=f"another build is writing .*process {os.getpid()} "):
        take(storage)
    Storage(tmp_path).create(f"{LEASES}/00000004.json", b"{}")
    with pytest.raises(LeaseLost, match="number 4"):
        check_fence(storage, held.fence())
    assert told.wait(10)
    held.release()


def test_one_of_many_who_begin_at_once_gets_the_lease(
    place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRES", 30.0)
    held: list[Lease] = []
    refused: list[FolderInUse] = []
    start = threading.Barrier(6)

    def begin() -> None:
        storage = Storage(place("race"))
        start.wait()
        try:
            held.append(take(storage))
        except FolderInUse as error:
            refused.append(error)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)
    assert str(os.getpid()) in str(refused[0]), "it says who"
    held[0].release()
    again = take(Storage(place("race")))
    assert again.number == held[0].number + 1
    again.release()


def test_a_lease_that_is_not_heard_of_is_taken_over_and_its_owner_refused(place: Callable[[str], str]) -> None:
    storage = Storage(place("paused"))
    first = take(storage)
    fence = first.fence()
    check_fence(storage, fence)
    elsewhere(storage, first, time=time.time())
    with pytest.raises(FolderInUse, match="somebody on elsewhere"):
        take(storage)
    elsewhere(storage, first, time=time.time() - 60)
    assert find_holder(storage) is None
    second = take(storage)
    assert (second.number, second.content.takeovers) == (first.number + 1, 1)
    with pytest.raises(LeaseLost, match="number 1"):
        check_fence(storage, fence)
    second.release()


def test_a_clock_that_is_wrong_takes_no_lease_away(
    place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(place("clocks"))
    first = take(storage)
    elsewhere(storage, first, time=time.time() - 3600)
    monkeypatch.setattr(leases, "BEAT", 2.0)
    over = threading.Event()

    def beat() -> None:
        number = 0
        while not over.wait(0.1):
            number += 1
            elsewhere(storage, first, time=time.time() - 3600, beat=number)

    alive = threading.Thread(target=beat)
    alive.start()
    try:
        with pytest.raises(FolderInUse):
            take(storage)
    finally:
        over.set()
        alive.join()


def test_an_owner_that_has_lost_its_lease_is_told_and_gives_nothing_back(place: Callable[[str], str]) -> None:
    storage, told = Storage(place("lost")), threading.Event()
    first = take(storage, told.set)
    storage.create(f"{LEASES}/00000002.json", b"{}")
    assert told.wait(10)
    assert first.lost
    first.release()
    assert storage.read_bytes(f"{LEASES}/00000002.json") == b"{}"
    assert read_lease(storage) is None, "one that cannot be read"
    third = take(storage)
    assert third.number == 3
    third.release()


def test_a_request_to_stop_reaches_the_owner(place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "EXPIRES", 30.0)
    storage, told = Storage(place("stop")), threading.Event()
    assert ask_to_stop(storage) is None
    held = take(storage, told.set)
    assert ask_to_stop(Storage(place("stop"))) is not None
    assert told.wait(10)
    held.release()
    told.clear()
    following = take(storage, told.set)
    assert not told.wait(0.4), "the next build is not stopped by it"
    following.release()


OWNER = asdict(leases.this_process()) | {"boot": "another"}


@pytest.mark.parametrize("skew", [-7200, 7200])
def test_a_build_whose_machine_has_another_time_is_found_and_stopped(
    place: Callable[[str], str], skew: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT", 1.0)  # on a busy machine a store hears of it late
    monkeypatch.setattr(leases, "EXPIRES", 5.0)
    storage, told = Storage(place(f"skew{skew}")), threading.Event()
    real = time.time
    monkeypatch.setattr(leases, "this_process", lambda: replace(Owner(**OWNER), machine="elsewhere"))
    monkeypatch.setattr(time, "time", lambda: real() + skew * (threading.current_thread().name == "lease"))
    held = take(storage, told.set)
    try:
        wait_for(lambda: find_holder(storage) is None, 20, "by its time alone it is none")
        assert ask_to_stop(storage) is not None
        assert told.wait(10)
    finally:
        held.release()
    assert ask_to_stop(storage) is None


def test_a_build_that_has_lost_its_output_leaves_the_status_to_its_successor(tmp_path: Path) -> None:
    storage = BuildStorage(tmp_path)
    storage.lease = take(storage)
    with BuildProgress(storage, console=Console(quiet=True), on_page=False) as progress:
        progress.begin("index", 1, 1)
        storage.create(f"{LEASES}/00000002.json", b"{}")
        storage.write_bytes(STATUS_FILE, b"the successor's")
        progress.end("index")
    assert storage.read_bytes(STATUS_FILE) == b"the successor's"
    storage.lease.release()


def test_a_storage_that_does_not_answer_takes_no_lease_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = take(Storage(tmp_path))
    storage = Storage(tmp_path)
    answers: list[bytes | OSError] = [OSError("timed out"), b"", b"{"]
    real = storage.read_bytes

    def read(name: str) -> bytes:
        answer = answers.pop() if answers else real(name)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(leases, "EXPIRES", 30.0)
    monkeypatch.setattr(leases, "BEAT", 1.0)
    monkeypatch.setattr(storage, "read_bytes", read)
    with pytest.raises(FolderInUse, match=str(os.getpid())):
        take(storage)
    monkeypatch.setattr(leases, "BEAT", 0.1)
    answers += [OSError("timed out")] * 100
    with pytest.raises(OSError, match="timed out"):
        take(storage)
    held.release()


def test_a_store_without_conditions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path)

    def create(name: str, content: bytes) -> bool:
        storage.write_bytes(name, content)
        return True

    monkeypatch.setattr(storage, "create", create)
    with pytest.raises(InputError, match="conditional writes"):
        take(storage)


def test_a_lease_from_the_future_does_not_close_an_output_for_ever(tmp_path: Path) -> None:
    """A folder from elsewhere may say anything; a live owner would be heard of."""
    storage = Storage(str(tmp_path))
    owner = Owner(process=1, machine="elsewhere", user="somebody", since="2999-01-01", boot="another")
    storage.create(leases._path(3), leases._dump(leases.LeaseFile(3, owner, time=time.time() + 1e9)))
    assert find_holder(storage) is None
    taken = take_lease(storage, lambda: None, alone_here=True)
    assert taken.number == 4
    taken.release()


def test_a_killed_process_of_this_machine_needs_no_waiting(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    first = take(storage)
    first._ended.set()
    gone = Owner(**asdict(first.content.owner) | {"started": "1"})
    storage.write_json(
        f"{LEASES}/{first.number:08d}.json", asdict(replace(first.content, owner=gone, time=time.time()))
    )
    second = take(storage)
    assert second.content.takeovers == 0
    second.release()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["bucket"], indirect=True)
def test_two_machines_on_one_output(place: Callable[[str], str]) -> None:
    output = place("machines")

    def driver(machine: str, user: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", MACHINES, output, machine, user]
        return subprocess.Popen(
            command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    first = driver("north", "ann")
    assert first.stdout is not None
    assert first.stdout.readline().strip() == "1"
    second = driver("south", "bob")
    _, said = second.communicate(timeout=60)
    assert "refused" in said
    assert "of ann on north" in said

    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    found: list[subprocess.Popen[str]] = []

    def takes_over() -> bool:
        third = driver("south", "bob")
        found.append(third)
        assert third.stdout is not None
        return third.stdout.readline().strip() == "2"

    wait_for(takes_over, 60, "the second takes over")
    for process in found:
        process.communicate("", timeout=60)


def order(output: str, fence: Fence | None, shard: int = 3) -> Order[Settings, Inputs]:
    environment = Environment(output=output, sources={}, cache="", max_rejected_share=1, fence=fence)
    return Order("verify", 1, shard, "verify 3", Inputs(), Settings(place="x"), environment)


def test_what_was_made_before_its_worker_was_lost_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster runs a task again whose result it has lost, after the driver has gone on with the first one's files."""
    records = LocalFileSystem(basepath=str(tmp_path / "records"))
    monkeypatch.setattr(prefect_tasks, "_default_storage", lambda: records)
    storage = Storage(tmp_path / "out")
    held = take(storage)
    given = order(str(tmp_path / "out"), held.fence(shared=True))
    assert _made_by_another(given) is None
    made = add_seal(ShardWriter(given).commit(pa.table({"id": ["first"]})))
    assert _made_by_another(given) is None, "it has not ended"
    prefect_tasks.keep_manifest(order_key(given), made)
    assert _made_by_another(given) == made
    assert _made_by_another(order(str(tmp_path / "out"), held.fence())) is None, "the driver knows of its own"
    storage.remove(made["path"])
    assert _made_by_another(given) is None
    held.release()


@pytest.mark.parametrize(
    ("error", "said", "kept"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "OSError: .*No space left on device", RunError),
        (
            WholesaleFailure("set the environment variable A_KEY"),
            "set the environment variable A_KEY",
            WholesaleFailure,
        ),
    ],
)
def test_whose_disk_is_full_and_who_has_no_key_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str, kept: type[Exception]
) -> None:
    monkeypatch.setattr(shards, "watch_for_stop", lambda look: None)

    @shard_task("verify")
    def fill(given: Order[Settings, Inputs]) -> Manifest:
        raise error

    with pytest.raises(kept, match=rf"on the worker process \d+ on .*: {said}"):
        fill.run(order(str(tmp_path), Fence(number=1, shared=True)))
    with pytest.raises(type(error), match=rf"^{error}$".replace("[", r"\[")):
        fill.run(order(str(tmp_path), None))


def test_a_writer_that_wakes_up_writes_nothing(place: Callable[[str], str]) -> None:
    output = place("attempts")
    storage = Storage(output)
    held = take(storage)
    fence = held.fence(shared=True)
    old = ShardWriter(order(output, fence))
    new = ShardWriter(order(output, fence))
    made = new.commit(pa.table({"id": ["new"]}))
    assert made["path"] == ".work/verify/00003-0-2.parquet"
    old.reject({"id": "old"}, "reason")
    with pytest.raises(Overtaken, match=r"verify/00003 was given to another worker"):
        old.commit(pa.table({"id": ["old"]}))
    assert storage.names(".work/verify") == ["00003-0-2.parquet"]

    # The next attempt takes the place of the one before; a build without a cluster does so as well.
    third = ShardWriter(order(output, held.fence())).commit(pa.table({"id": ["third"]}))
    assert storage.names(".work/verify") == [Path(third["path"]).name]
    plain = ShardWriter(order(output, held.fence(), shard=4)).commit(pa.table({"id": ["plain"]}))
    assert plain["path"] == ".work/verify/00004.parquet"

    # Under a lease that was taken over nothing is written at all, not even the first file.
    late = ShardWriter(order(output, fence, shard=5))
    elsewhere(storage, held, time=time.time() - 60)
    following = take(storage)
    with pytest.raises(LeaseLost):
        late.commit(pa.table({"id": ["late"]}))
    with pytest.raises(LeaseLost):
        begin_attempt(storage, fence, "verify", 6)
    assert not [name for name in storage.names(".work/verify") if name.startswith(("00005", "00006"))]
    named = ShardWriter(order(output, following.fence(), shard=5)).commit(pa.table({"id": ["now"]}))
    assert named["path"] == ".work/verify/00005-1-2.parquet", "no name that the old writer would use"
    following.release()


def test_stopping_where_nothing_runs_says_so(tmp_path: Path) -> None:
    from commands.status import stop_build

    with pytest.raises(ConfigError, match="no build is writing"):
        stop_build(Storage(tmp_path))
