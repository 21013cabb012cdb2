"""One output, one build, on however many machines: a lease in the output itself, with a number that grows.

A lease is a file ``.work/leases/NUMBER.json`` that only its owner writes after it was created, which one of several
succeeds in (``Storage.create``). The highest number is the one that counts. Its owner tells every few seconds that it
is there; a lease that was given back, whose owner is known to be dead or has not been heard of for ``EXPIRES`` seconds
is followed by one with the next number. From then on whoever writes under a lower number is refused.

A request to stop is a file beside the lease, which its owner and all its workers look for.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, with_config

from talking_points.config import ConfigError, Section
from talking_points.errors import InputError, RunError
from talking_points.escaping import in_one_line
from tasks.running.storage import Storage

LEASES = ".work/leases"
BEAT = 5.0
"""Seconds between two signs of life."""
EXPIRES = 30.0
"""Seconds without one after which a lease can be taken over."""

_NAME = re.compile(r"([0-9]{8,15})\.json")
_OF_LEASE = re.compile(r"([0-9]{8,15})\.")
_KEPT = 3
"""Leases that are kept, the current one included, for people to look at."""


class FolderInUse(ConfigError):
    """Another build is writing to the same output."""


class LeaseLost(RunError):
    """Another build has taken the output over: nothing more is written to it."""


Word = Annotated[str, Field(max_length=300)]
Count = Annotated[int, Field(ge=0, le=10**15)]


# What a later release says beside these is nothing to this one.
@with_config(ConfigDict(strict=True, extra="ignore"))
@dataclass(frozen=True)
class Owner:
    """Who holds a lease: a process of a user on a machine. ``boot`` and ``space`` tell whether its id means anything
    here; ``started`` tells the process from a later one with the same id.
    """

    process: Annotated[int, Field(ge=0, lt=1 << 32)]
    machine: Word
    user: Word
    since: Word
    boot: Word = ""
    space: Word = ""
    started: Word = ""

    def __str__(self) -> str:
        user, machine, since = (in_one_line(text)[:80] for text in (self.user, self.machine, self.since))
        return f"process {self.process} of {user} on {machine}, since {since}"


# What a later release says beside these is nothing to this one.
@with_config(ConfigDict(strict=True, extra="ignore"))
@dataclass(frozen=True)
class LeaseFile:
    """What a lease says. ``takeovers``: how many before it were taken from an owner that may still be alive."""

    number: Count
    owner: Owner
    state: Word = "held"
    beat: Count = 0
    time: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    takeovers: Count = 0

    @property
    def age(self) -> float:
        """Seconds since the last sign of life, by this machine's clock; for ever where that lies far ahead of it, as in
        a folder from elsewhere: whoever wants the lease then listens whether there is life.
        """
        since = time.time() - self.time
        return max(0.0, since) if since > -EXPIRES else float("inf")


_FORM: TypeAdapter[LeaseFile] = TypeAdapter(LeaseFile)
"""Whoever may write to the output may have written it."""


class Fence(Section):
    """What a task carries of the lease that it works under. ``shared``: its worker may be on another machine."""

    number: int
    takeovers: int = 0
    shared: bool = False
    token: str = ""


def this_process() -> Owner:
    """The owner that this process would be."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    pid = os.getpid()
    return Owner(
        process=pid,
        machine=socket.gethostname(),
        user=user,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        boot=_read("/proc/sys/kernel/random/boot_id"),
        space=_link("/proc/self/ns/pid"),
        started=_started(pid),
    )


class Lease:
    """A lease that this process holds. Signs of life are given by a thread of its own until it is released."""

    def __init__(self, storage: Storage, content: LeaseFile, on_stop: Callable[[], None]) -> None:
        self.storage = storage
        self.content = content
        self.lost = False
        self._on_stop = on_stop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._thread.start()

    @property
    def number(self) -> int:
        return self.content.number

    def fence(self, *, shared: bool = False, token: str = "") -> Fence:
        """What tasks are given of it."""
        return Fence(number=self.number, takeovers=self.content.takeovers, shared=shared, token=token)

    def release(self) -> None:
        """Give the lease back. An output that cannot be written to any more loses it by its age."""
        self._ended.set()
        self._thread.join(BEAT)
        if not self.lost:
            with suppress(Exception):
                _write(self.storage, replace(self.content, state="released", time=time.time()))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self.content = replace(self.content, beat=self.content.beat + 1, time=time.time())
            try:
                if _why_lost(self.storage, self.number):
                    self.lost = True
                    self._on_stop()
                    return
                if stop_asked(self.storage, self.number):
                    self._on_stop()
                if not self._ended.is_set():
                    _write(self.storage, self.content)
            except Exception:  # a full disk, a store that does not answer: the tasks say so
                continue


def take_lease(storage: Storage, on_stop: Callable[[], None], *, alone_here: bool) -> Lease:
    """The next lease of an output. ``alone_here``: nobody else on this machine writes to it, as its lock says.

    Raises ``FolderInUse``, which names the owner, at once where one was heard of lately. Where the last one was not,
    it is listened for a little longer, in case the clocks differ.
    """
    for _ in range(5):
        number, last = _read_patiently(storage)
        # Of a damaged lease it is not known how many there were: never more than leases.
        takeovers = last.takeovers if last else number
        if last is not None and not _is_over(last, storage, alone_here):
            if last.age < EXPIRES or _is_heard_of(storage, last):
                raise refuse(storage, last)
            takeovers += 1
        # The number that follows the one that was judged: what was created since then has it, and is not followed.
        content = LeaseFile(number + 1, this_process(), time=time.time(), takeovers=takeovers)
        if not _NAME.fullmatch(_path(content.number).rpartition("/")[2]):
            raise InputError(
                f"{storage.path(_path(number))} has a number that no build gives: delete it while no build is running"
            )
        storage.remove(_stop_path(content.number))  # nobody can have asked this build yet: it came with a copy
        if storage.create(_path(content.number), _dump(content)) or _is_ours(storage, content):
            if storage.create(_path(content.number), _dump(content)):
                raise InputError(
                    f"the store of {storage.output} overwrites objects that are put on condition that there is none: "
                    "two builds could write to one output. Choose a store with conditional writes (S3 itself, MinIO "
                    "and Ceph have them in recent releases), or a folder"
                )
            _forget_old(storage, content.number)
            return Lease(storage, content, on_stop)
    raise FolderInUse(f"several builds begin to write to {storage.output} at once: start one of them")


def _is_ours(storage: Storage, content: LeaseFile) -> bool:
    """Whether a lease that could not be created is there because its first request was answered too late: clients of
    object stores repeat a request without an answer, and are then refused for what they have written themselves.
    """
    try:
        return storage.read_bytes(_path(content.number)) == _dump(content)
    except (OSError, InputError):
        return False


def find_holder(storage: Storage, *, alone_here: bool = False) -> LeaseFile | None:
    """The lease of a build that is writing to the output right now, as far as it was heard of lately."""
    last = read_lease(storage)
    return None if last is None or _is_over(last, storage, alone_here) or last.age >= EXPIRES else last


def listen_for_holder(storage: Storage) -> LeaseFile | None:
    """As ``find_holder``, also of a build whose machine has another time: it is listened whether there is life."""
    last = read_lease(storage)
    if last is None or _is_over(last, storage, alone_here=False):
        return None
    return last if last.age < EXPIRES or _is_heard_of(storage, last) else None


def refuse(storage: Storage, held: LeaseFile) -> FolderInUse:
    """What is said of an output that somebody else writes to."""
    return FolderInUse(
        f"another build is writing to {storage.output} ({held.owner}): wait for it, stop it with "
        f"'talking-points stop {storage.output}', or choose another output"
    )


def check_fence(storage: Storage, fence: Fence | None) -> None:
    """Raise ``LeaseLost`` where the lease that somebody works under is not the last one any more."""
    if fence is None:
        return
    found = _why_lost(storage, fence.number)
    if found:
        raise LeaseLost(
            f"this build has lost its lease (number {fence.number}) of {storage.output}: {found}; nothing more is "
            "written by this one"
        )


def _why_lost(storage: Storage, number: int) -> str:
    """What has become of a lease that does not count any more, or nothing. Both names are asked for, as the list of a
    folder on a network file system may be older than either of them.
    """
    if storage.exists(_path(number + 1)):
        return f"number {number + 1} is another build's"
    return "" if storage.exists(_path(number)) else "it has been removed"


def read_lease(storage: Storage, number: int | None = None) -> LeaseFile | None:
    """The last lease of an output, or the one with a number; None where there is none, or one that is damaged.

    Raises ``OSError`` where the storage does not answer, which says nothing about the lease.
    """
    number = _highest(storage) if number is None else number
    if number is None:
        return None
    try:
        found = _FORM.validate_json(storage.read_bytes(_path(number)))
    except (FileNotFoundError, ValueError):
        return None
    return found if found.number == number and found.takeovers <= number else None


def _read_patiently(storage: Storage) -> tuple[int, LeaseFile | None]:
    """The highest number, 0 where there is none, and its lease, None where it is damaged.

    A lease that cannot be read is read again for one and a half beats: its owner may be writing it in this moment.
    """
    end = time.monotonic() + 1.5 * BEAT
    while True:
        try:
            number = _highest(storage)
            if number is None:
                return 0, None
            last = read_lease(storage, number)
            if last is not None or time.monotonic() >= end:
                return number, last
        except OSError:
            if time.monotonic() >= end:
                raise
        time.sleep(min(0.2, BEAT))


def ask_to_stop(storage: Storage) -> LeaseFile | None:
    """Ask the build that is writing to the output to stop. Returns its lease; None where there is none."""
    held = listen_for_holder(storage)
    if held is not None:
        leave_stop(storage, held.number)
    return held


def leave_stop(storage: Storage, number: int) -> None:
    """Ask whoever works under a lease to stop."""
    storage.write_bytes(_stop_path(number), f"{this_process()}\n".encode())


def stop_asked(storage: Storage, number: int) -> bool:
    """Whether the build with a lease was asked to stop."""
    return storage.exists(_stop_path(number))


def _is_over(last: LeaseFile, storage: Storage, alone_here: bool) -> bool:
    """Whether the owner of a lease has given it back, or is known to be dead."""
    if last.state == "released":
        return True
    me, owner = this_process(), last.owner
    if not owner.boot or owner.boot != me.boot:
        return False
    if alone_here and storage.is_local:
        return True  # the lock of a local output is one for the whole machine
    return owner.space == me.space and _started(owner.process) != owner.started


def _is_heard_of(storage: Storage, last: LeaseFile) -> bool:
    """Whether a sign of life comes while somebody listens for one and a half beats."""
    end = time.monotonic() + 1.5 * BEAT
    while time.monotonic() < end:
        time.sleep(min(0.5, BEAT))
        if read_lease(storage) != last:
            return True
    return False


def _highest(storage: Storage) -> int | None:
    found = [_NAME.fullmatch(name) for name in storage.names(LEASES)]
    number = max((int(match[1]) for match in found if match), default=0)
    while storage.exists(_path(number + 1)):  # what the list of a folder may not show yet on a network file system
        number += 1
    return number or None


def _forget_old(storage: Storage, number: int) -> None:
    found = [match for name in storage.names(LEASES) if (match := _OF_LEASE.match(name))]
    # From the first: of a lease that is still there, the next one is too, by which its holder knows that it is lost.
    for match in sorted(found, key=lambda match: int(match[1])):
        if int(match[1]) <= number - _KEPT:
            with suppress(OSError):
                storage.remove(f"{LEASES}/{match.string}")


def _write(storage: Storage, content: LeaseFile) -> None:
    storage.write_bytes(_path(content.number), _dump(content))


def _dump(content: LeaseFile) -> bytes:
    value: dict[str, Any] = asdict(content)
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _path(number: int) -> str:
    return f"{LEASES}/{number:08d}.json"


def _stop_path(number: int) -> str:
    return f"{LEASES}/{number:08d}.stop"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return f"{sys.platform}-{socket.gethostname()}" if path.endswith("boot_id") else ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process of this machine was started, as its system counts; nothing where it is not there any more."""
    status = _read(f"/proc/{process}/stat")
    fields = status.rpartition(")")[2].split()
    if len(fields) > 19:
        return "" if fields[0] == "Z" else fields[19]
    if Path("/proc/self/stat").exists():
        return ""
    if os.name != "posix":
        return "unknown"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "alive"
