"""Limits in seconds that hold on an idle machine, and on a busy one in proportion to how slowly it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

_WORK = 0.3
"""Seconds of a core that the machine's pace is measured with."""


def patient(seconds: float) -> float:
    """``seconds`` of an idle machine, in seconds of this one as busy as it is, or was over the last minute."""
    wall, work = time.monotonic(), time.process_time()
    while time.process_time() - work < _WORK:
        pass
    waiting = (time.monotonic() - wall) / _WORK
    queued = os.getloadavg()[0] / (os.cpu_count() or 1)
    return seconds * max(1.0, waiting, queued)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until the condition holds; fails after ``seconds``, or later where the machine is busy."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < seconds or waited < patient(seconds), f"not within {seconds:.0f} s: {what}"
        time.sleep(0.25)
