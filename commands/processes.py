"""Processes that a command starts: out of reach of the terminal's Ctrl-C, and never left behind."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from talking_points.stop_requests import forget_stop

_PR_SET_PDEATHSIG = 1
STOPPED = 130
"""Exit code of a command that was stopped by Ctrl-C or SIGTERM."""


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path | None = None,
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that a Ctrl-C in the terminal does not reach, and that Linux stops when this one is killed."""
    if sys.platform == "win32":
        apart = subprocess.CREATE_NEW_PROCESS_GROUP
        return subprocess.Popen(command, env=environment, cwd=folder, stdout=stdout, creationflags=apart)
    prepare = _end_with_parent if sys.platform == "linux" else None
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=stdout, process_group=0, preexec_fn=prepare)


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


@contextmanager
def end_at_once(process: subprocess.Popen[bytes] | None = None) -> Iterator[None]:
    """Around imports that take seconds: Ctrl-C and SIGTERM end this process, and ``process``, without an exception.

    One that is raised in the middle of an import is swallowed by libraries that try this and that while they load.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        if process is not None:
            process.kill()
        print("stopped; nothing was begun", file=sys.stderr, flush=True)
        os._exit(STOPPED)

    # One that is ignored, as Ctrl-C is in the background of a shell, stays so.
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
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


def _end_with_parent() -> None:
    """Linux: let the kernel send SIGTERM when the parent dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
