"""Processes that end with the one that started them, however that one ends: a killed run leaves nobody who writes."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from multiprocessing import parent_process
from threading import Thread

_PR_SET_PDEATHSIG = 1
_GRACE = 10.0
"""Seconds from SIGTERM to the end of a process that does not heed it."""


def end_with_parent() -> None:
    """In a process of ``multiprocessing``: end it once its parent has ended, by SIGTERM and at last without it."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def request_parent_signal() -> None:
    """As ``preexec_fn`` of a program, on Linux: the kernel sends it SIGTERM when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
