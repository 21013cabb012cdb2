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
