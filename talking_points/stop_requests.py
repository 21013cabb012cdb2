"""A request to stop, seen by every shard of a build: in this process, its threads and its worker processes.

The request is a file whose name worker processes inherit in their environment. A shard that is asked to stop leaves
nothing behind (it writes only when complete), so stopping costs at most one shard per worker; it is quick because
shards look between rows, and because a model that takes its time is not waited for.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TypeVar

_FILE = "TALKING_POINTS_STOP_FILE"
_PATIENCE = 2.0
"""Seconds that a running model call gets to end by itself."""
_LOOK_EVERY = 0.2

Result = TypeVar("Result")

_left_alone: list[threading.Thread] = []
"""Threads in a model's call that did not end in time."""


class Stopped(RuntimeError):
    """The build was asked to stop while this shard was running."""


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Inside the block SIGTERM does what Ctrl-C does: everything that was started is stopped on the way out."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def clear_stop() -> None:
    """Forget an earlier request; called when a build starts, before its worker processes do."""
    path = Path(_private_folder().name, "stop")
    os.environ[_FILE] = str(path)
    path.unlink(missing_ok=True)


@cache
def _private_folder() -> tempfile.TemporaryDirectory[str]:
    """One that no other user can look into, with a name that nobody knows before; it goes with this process."""
    return tempfile.TemporaryDirectory(prefix="talking-points-")


def forget_stop() -> None:
    """Remove this process's folder for requests, where it has one: for a process that ends without its last rites."""
    if _private_folder.cache_info().currsize:
        _private_folder().cleanup()


def request_stop() -> None:
    """Ask every shard of this build to end at its next row."""
    if _FILE in os.environ:
        with suppress(FileNotFoundError):  # the process of the build has ended, and its folder with it
            Path(os.environ[_FILE]).touch(mode=0o600)


def watch_for_stop(look: Callable[[], bool]) -> None:
    """Ask ``look`` as well whether the build is to stop: in a worker that may be on another machine than the build.

    It is asked every few seconds at most; the one of the last task counts.
    """
    global _look, _looked, _found
    _look, _looked, _found = look, float("-inf"), False


_look: Callable[[], bool] | None = None
_looked, _found = float("-inf"), False
_REMOTE_LOOK_EVERY = 2.0


def stop_requested() -> bool:
    """Whether the build was asked to stop."""
    if _FILE in os.environ and Path(os.environ[_FILE]).exists():
        return True
    return _look is not None and _looked_for()


def _looked_for() -> bool:
    global _looked, _found
    if _look is not None and time.monotonic() - _looked >= _REMOTE_LOOK_EVERY:
        _looked = time.monotonic()
        with suppress(OSError):
            _found = _look()
    return _found


def stop_if_requested() -> None:
    """Raise ``Stopped`` when the build was asked to stop."""
    if stop_requested():
        raise Stopped("the build was stopped; run it again to go on from the last finished shard")


def stoppable(call: Callable[[], Result]) -> Result:
    """The result of ``call``, unless the build is asked to stop and the call does not end soon: then ``Stopped``.

    The call runs in a thread of its own; one that is left alone ends with the process.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while not ended.wait(_LOOK_EVERY):
        if stop_requested() and not ended.wait(_PATIENCE):
            _left_alone.append(thread)
            stop_if_requested()
    if errors:
        raise errors[0]
    return results[0]


def end_at_once(code: int) -> None:
    """End the process now, if a thread is still in a model's call: an engine that runs on while the interpreter takes
    itself apart aborts the process, with an exit code of its own.
    """
    if any(thread.is_alive() for thread in _left_alone):
        _private_folder().cleanup()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
