"""Processes that a command starts: out of reach of the terminal's Ctrl-C, and never left behind."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path | None = None,
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that a Ctrl-C in the terminal does not reach, and that is stopped when this one is killed."""
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdout=stdout, process_group=0, preexec_fn=_end_with_parent
    )


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


def _end_with_parent() -> None:
    """Linux: let the kernel send SIGTERM when the parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
