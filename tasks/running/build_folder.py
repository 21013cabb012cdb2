"""One output folder, one build, one configuration: the lock and the checks before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from filelock import FileLock, Timeout

from talking_points.config import ConfigError, fingerprint, list_changes
from talking_points.locks import refuse_links
from talking_points.owners import refuse_closed
from talking_points.stop_requests import clear_stop, request_stop
from talking_points.whole_files import TEMPORARY
from tasks.running.folder_lock import in_use, lock_file
from tasks.running.lease import LEASES, Fence, FolderInUse, Lease, find_holder, refuse, take_lease
from tasks.running.progress import STATUS_FILE
from tasks.running.stages import WORK
from tasks.running.storage import Storage

if TYPE_CHECKING:
    from tasks.running.worker_checks import Expectation

SETTINGS_FILE = f"{WORK}/settings.json"
_RESERVE = 200 * 2**20
"""Bytes that must be free before a build starts."""
_NO_CONTENT = ("lock", LEASES.rpartition("/")[2])
"""What a build leaves in ``WORK`` before it has made anything."""
_BEFORE_SHARDS = {SETTINGS_FILE.rpartition("/")[2], STATUS_FILE.rpartition("/")[2]}
"""What it leaves there when it ends before the first shard: its runner could not be used, say."""
_A_LOOK = 0.5
"""Seconds: whoever looks whether a build is running (``in_use``) holds the lock for a moment."""


class OutputConfig(Protocol):
    """What a configuration says of its output, whatever is built there."""

    @property
    def output(self) -> str: ...

    @property
    def resume(self) -> str: ...

    def dataset_settings(self) -> dict[str, Any]:
        """The settings that can change a row, without secrets, as plain JSON values."""
        ...


class BuildStorage(Storage):
    """The output of a build that holds its lease."""

    lease: Lease
    expected: Expectation | None = None

    def fence(self) -> Fence:
        """What the tasks of the build carry of its lease."""
        return self.lease.fence(shared=self.expected is not None)


@contextmanager
def build_folder(config: OutputConfig) -> Iterator[BuildStorage]:
    """Lock and check the output folder for the length of a build.

    The lock is the operating system's, so a killed build does not leave it behind; it keeps out the builds of this
    machine, and the lease in the output those of all others. Raises ``FolderInUse`` for a second build into one folder
    and ``ConfigError`` for a folder that holds something else.
    """
    storage = BuildStorage(config.output)
    _refuse_links(storage)
    path = lock_file(storage)
    lock = FileLock(path, timeout=_A_LOOK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise _refuse_shared_use(storage) from error
    except OSError as error:
        _refuse_closed(storage)
        raise ConfigError(f"cannot write to the output {config.output}: {error}") from error
    try:
        if held := find_holder(storage, alone_here=True):
            raise refuse(storage, held)
        _check_content(storage, config)
        clear_stop()
        storage.lease = take_lease(storage, request_stop, alone_here=True)
        try:
            storage.remove_temporaries()
            settings = config.dataset_settings()
            storage.write_json(SETTINGS_FILE, {"fingerprint": fingerprint(settings), "settings": settings})
            yield storage
        finally:
            storage.lease.release()
    finally:
        lock.release()


def check_folder(storage: Storage, config: OutputConfig) -> None:
    """Refuse now what ``build_folder`` would refuse, and write nothing. Raises what it raises."""
    _refuse_links(storage)
    if in_use(storage):
        raise _refuse_shared_use(storage)
    _check_content(storage, config)


def _refuse_links(storage: Storage) -> None:
    """Refuse an output inside which a link stands where a build writes: it may have come from somebody else.

    The output itself may be one.
    """
    if not storage.is_local:
        return
    for name in (WORK, "data", "rejected", "figures"):
        refuse_links(Path(storage.root, name))


def _refuse_shared_use(storage: Storage) -> FolderInUse:
    held = find_holder(storage)
    if held is not None:
        return refuse(storage, held)
    return FolderInUse(f"another build is writing to {storage.output}: wait for it, stop it, or choose another output")


def _check_content(storage: Storage, config: OutputConfig) -> None:
    """Refuse a folder that this configuration must not write to, with the way out. Raises ``ConfigError``."""
    _refuse_closed(storage)
    free = storage.free_bytes()
    if free is not None and free < _RESERVE:
        raise ConfigError(
            f"only {free / 2**20:.0f} MiB free at {config.output}, expected at least {_RESERVE // 2**20} MiB: make "
            "room, or choose another output"
        )
    work = [name for name in storage.names(WORK) if name not in _NO_CONTENT and not name.endswith(TEMPORARY)]
    names = [name for name in storage.names() if name != WORK]
    if not names and not set(work) - _BEFORE_SHARDS:
        return
    if not work:
        raise ConfigError(
            f"{config.output} holds files that no build wrote ({', '.join(names[:5])}): choose an empty or new folder"
        )
    if config.resume == "never":
        raise ConfigError(
            f"{config.output} holds a build and resume is 'never': choose another output or resume=always"
        )
    if config.resume == "if_possible":
        return
    try:
        recorded = storage.read_json(SETTINGS_FILE)["settings"]
        differences = list_changes(recorded, config.dataset_settings())
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{config.output} holds a build, but {SETTINGS_FILE} is missing or damaged ({error}): "
            "set resume=if_possible to go on with this configuration and reuse what is valid"
        ) from error
    if differences:
        raise ConfigError(
            f"{config.output} holds a build with another configuration:\n  " + "\n  ".join(differences) + "\n"
            "choose another output, or set resume=if_possible to reuse what stays valid and make the rest anew"
        )


def _refuse_closed(storage: Storage) -> None:
    if storage.is_local:
        refuse_closed(storage.root, WORK, f"{WORK}/lock", "data")


def request_cache_folder(storage: Storage) -> Path:
    """Where finished model answers are kept: beside the shards, or in the user's cache for a remote output."""
    if storage.is_local:
        return Path(storage.path(WORK), "requests")
    return Path.home() / ".cache" / "talking-points" / "requests"
