"""The request to stop lies where no other user can make it, or keep it from being made."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from talking_points.stop_requests import clear_stop, request_stop, stop_requested


def test_it_is_in_a_folder_of_this_user_alone() -> None:
    clear_stop()
    assert not stop_requested()
    request_stop()
    path = Path(os.environ["TALKING_POINTS_STOP_FILE"])
    assert stop_requested()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert str(os.getpid()) not in str(path), "nobody can guess the name"
    clear_stop()
    assert not stop_requested()


def test_it_goes_with_the_process(tmp_path: Path) -> None:
    code = "from talking_points.stop_requests import clear_stop, request_stop; clear_stop(); request_stop()"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}, check=True)
    assert not list(tmp_path.iterdir())


def test_a_call_that_does_not_end_does_not_change_the_exit_code(tmp_path: Path) -> None:
    code = (
        "import threading, time\n"
        "from talking_points import stop_requests as stopping\n"
        "stopping._PATIENCE = 0.1\n"
        "stopping.clear_stop(); stopping.request_stop()\n"
        "try: stopping.stoppable(lambda: time.sleep(60))\n"
        "except stopping.Stopped: print('stopped')\n"
        "stopping.end_at_once(130)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "stopped\n", "")
    assert not list(tmp_path.iterdir())
