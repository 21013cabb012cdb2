"""The keeper of a model server: a small process between a build and the server that it started.

It ends the server when the build closes the pipe on its standard input, which a build does whichever way it ends, a
SIGKILL included, and ends with the server's exit code when that ends by itself. What the server prints goes into a
log file, without secrets. Started as ``python -m talking_points.server_guard LOG PATIENCE [--stop=WORD...] COMMAND``;
the words of ``--stop`` are a command that ends what a signal does not reach, such as a container.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from talking_points.redaction import protect_environment, redact

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LINE = 4000
"""Characters of a line that are kept."""
_MOST = 20 * 2**20
"""Bytes of a log; a longer one is put aside once, as ``NAME.1``, and begun anew."""


def main(arguments: Sequence[str]) -> int:
    """Run the command until it ends or the pipe on standard input closes; returns the exit code."""
    log, patience, *command = arguments
    stop = [word.removeprefix("--stop=") for word in itertools.takewhile(lambda w: w.startswith("--stop="), command)]
    command = command[len(stop) :]
    protect_environment()
    if sys.platform == "linux":
        # What the server started and left behind becomes a child of this process, which ends it too.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    lines = _Log(Path(log))
    lines.write(f"started: {' '.join(command)}")
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=_end_with_parent,
        )
    except OSError as error:
        lines.write(f"cannot be started: {error}")
        return 127
    lines.write(f"pid {server.pid}")
    assert server.stdout is not None
    copier = threading.Thread(target=lines.copy, args=(server.stdout,), daemon=True)
    copier.start()
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    threading.Thread(target=_watch, args=(over,), daemon=True).start()
    while server.poll() is None and not over.wait(0.1):
        pass
    code = _end(server, float(patience)) if server.poll() is None else server.returncode
    if stop:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(stop, stdin=subprocess.DEVNULL, capture_output=True, timeout=float(patience))
    _kill_left_behind(server)
    copier.join(2)
    lines.write(f"ended with exit code {code}")
    return code if code >= 0 else 128 - code


class _Log:
    """Appends lines to a file of bounded size. May be used from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # a full disk is no reason to end the server
            if self._path.exists() and self._path.stat().st_size > _MOST:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(f"{redact(line)[:_LINE]}\n")

    def copy(self, stream: BinaryIO) -> None:
        for line in stream:
            self.write(line.decode("utf-8", "replace").rstrip())


def _watch(over: threading.Event) -> None:
    """Standard input ends when every holder of the pipe's other side is gone."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    over.set()


def _end(server: subprocess.Popen[bytes], patience: float) -> int:
    """Politely first, after ``patience`` seconds by force; the whole process group."""
    _signal(server.pid, signal.SIGTERM)
    try:
        return server.wait(patience)
    except subprocess.TimeoutExpired:
        _signal(server.pid, signal.SIGKILL)
        return server.wait()


def _kill_left_behind(server: subprocess.Popen[bytes]) -> None:
    """End what the server started: its group, then what left the group and was handed to this process."""
    _signal(server.pid, signal.SIGKILL)
    for _ in range(20):
        children = _children()
        if not children:
            return
        for child in children:
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(OSError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)


def _children() -> list[int]:
    """Processes whose parent this one is (Linux; elsewhere none are known)."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _end_with_parent() -> None:
    """Linux: the server ends with this process, even where that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
