"""Processes that a command starts: they hear signals that it ignores itself, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands.processes import start, stop_with_descendants
from tests.patience import patient, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")

HEARS = "import signal; print(signal.getsignal(signal.SIGINT) is not signal.SIG_IGN)"
LEAVES_BEHIND = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
time.sleep(60)
"""
CHILD = """
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, {handler})
pathlib.Path({file!r}).write_text(str(os.getpid()))
time.sleep(60)
"""


def test_a_process_hears_ctrl_c_where_its_parent_ignores_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start([sys.executable, "-c", HEARS], os.environ, stdout=subprocess.PIPE)
        assert process.communicate(timeout=60)[0].strip() == b"True"
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("handler", "patience"), [("signal.SIG_DFL", 20.0), ("signal.SIG_IGN", 0.5)])
def test_what_a_stopped_process_leaves_behind_is_ended(tmp_path: Path, handler: str, patience: float) -> None:
    file = tmp_path / "pid"
    code = CHILD.format(handler=handler, file=str(file))
    process = start([sys.executable, "-c", LEAVES_BEHIND, code], os.environ)
    wait_for(lambda: file.exists() and bool(file.read_text()), 60, "the child has begun")
    child = int(file.read_text())
    began = time.monotonic()
    stop_with_descendants(process, patience)
    assert time.monotonic() - began < patient(10)
    assert process.poll() is not None
    state = Path(f"/proc/{child}/stat")
    wait_for(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z", 10, "no child")
