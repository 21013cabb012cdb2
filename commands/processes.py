"""Processes that a command starts: out of reach of the terminal's Ctrl-C, and never left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from talking_points.parents import request_parent_signal
from talking_points.stop_requests import forget_stop

STOPPED = 130
"""Exit code of a command that was stopped by Ctrl-C or SIGTERM."""


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path | None = None,
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that a Ctrl-C in the terminal does not reach, and that Linux stops when this one is killed.

    It hears SIGINT, with which Prefect's worker is stopped, even where this one was started to ignore it.
    """
    if sys.platform == "win32":
        apart = subprocess.CREATE_NEW_PROCESS_GROUP
        return subprocess.Popen(command, env=environment, cwd=folder, stdout=stdout, creationflags=apart)
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=stdout, process_group=0, preexec_fn=_prepare)


def stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """End a process: politely first, after so many seconds by force."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def stop_with_descendants(process: subprocess.Popen[bytes], patience: float) -> None:
    """As ``stop``; then, on Linux, in the same way all that the process had started and left behind.

    The topmost of these are asked to end and end their own; what is left after ``patience`` seconds is killed.
    """
    below = _descendants(process.pid)
    stop(process, patience)
    left = {pid: one for pid, one in below.items() if _identity(pid) == one}
    inner = {child for pid in left for child in _descendants(pid)}
    for pid in left.keys() - inner:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while any(_identity(pid) == one for pid, one in left.items()):
        if time.monotonic() > deadline:
            left |= {child: one for pid in left for child, one in _descendants(pid).items()}
            for pid, one in left.items():
                if _identity(pid) == one:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.1)


def _descendants(ancestor: int) -> dict[int, str]:
    """Living processes that ``ancestor`` started, and those that these did, each with its identity; Linux only."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir() if sys.platform == "linux" else ():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    found = [ancestor]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return {pid: one for pid in found[1:] if (one := _identity(pid))}


def _identity(pid: int) -> str:
    """When the process was started, which no other of its number was; empty where there is none, or its end is near."""
    fields = _fields(pid)
    return fields[19] if fields and fields[0] not in "ZX" else ""


def _fields(pid: int) -> list[str]:
    """State, parent and so on of a process, after its name in ``/proc``; see proc(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


@contextmanager
def keep_what_is_made() -> Iterator[None]:
    """Around imports that take seconds: what they make stays, and nothing looks through it for what could be freed.

    That search takes a tenth of the time of the imports, and as much again of each later search.
    """
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if searched:
            gc.enable()


_ended_too: list[subprocess.Popen[bytes]] = []
"""Of all blocks of ``end_at_once`` that are open."""


@contextmanager
def end_at_once(
    process: subprocess.Popen[bytes] | None = None, said: str = "stopped; nothing was begun"
) -> Iterator[None]:
    """Around imports and what else leaves nothing behind: Ctrl-C and SIGTERM end this process, and ``process``.

    No exception is raised: in the middle of an import one is swallowed by libraries that try this and that while they
    load, and from code that they compile it would make a SIGINT of the exit code.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        for started in _ended_too:
            started.kill()
        print(said, file=sys.stderr, flush=True)
        os._exit(STOPPED)

    # One that is ignored, as Ctrl-C is in the background of a shell, stays so.
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heard}
    own = [process] if process is not None else []
    _ended_too.extend(own)
    try:
        yield
    finally:
        for started in own:
            _ended_too.remove(started)
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_at_once(code: int) -> NoReturn:
    """End this process without waiting for what libraries do at the end of theirs.

    Prefect would talk for seconds to a server that is gone, and threads of compiled code that were in the middle of
    something would end the process with "terminate called without an active exception" (exit code 134).
    """
    forget_stop()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _prepare() -> None:
    """Hear SIGINT, and on Linux end with the parent, however it dies."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    request_parent_signal()
