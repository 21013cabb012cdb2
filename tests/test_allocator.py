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


GIVEN_BACK = """
from pathlib import Path
from talking_points.allocator import give_back_memory, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

keep_freed_memory()
blocks = [bytearray(2**20) for _ in range(200)]
full = resident()
del blocks
kept = resident()
assert give_back_memory()
print((full - kept) * 4096 >> 20, (kept - resident()) * 4096 >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_what_is_kept_can_be_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True)
    freed, given_back = map(int, done.stdout.split())
    assert freed < 50
    assert given_back > 150
