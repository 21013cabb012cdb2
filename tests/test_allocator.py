"""The allocator's setting: memory that was freed is not asked for again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from talking_points.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory() and keep_freed_memory()
for number in range(100):
    blocks = [np.ones(2**20) for _ in range(4)]  # 8 MiB each
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_blocks_are_used_again() -> None:
    assert page_faults("keep") < 1000
    # Otherwise the four blocks of every round come fresh from the system.
    assert page_faults("leave") > 10 * page_faults("keep")
