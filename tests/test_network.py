"""Nobody waits for what does not answer, at the end of the program neither."""

from __future__ import annotations

import subprocess
import sys

HANGING = """
import time
from talking_points.network import answer_within
try:
    answer_within(0.1, lambda: time.sleep(100))
except TimeoutError:
    print("given up")
print(answer_within(10, lambda: "answered"))
try:
    answer_within(10, lambda: 1 / 0)
except ZeroDivisionError:
    print("raised")
"""


def test_a_program_ends_without_what_it_gave_up() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["given", "up", "answered", "raised"]
