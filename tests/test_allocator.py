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


AT_A_STAGES_END = """
import threading
from pathlib import Path
import pyarrow as pa
from talking_points.allocator import keep_freed_memory
from talking_points.runner_config import RunnerConfig
from tasks.running.workers import Workers

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

def caption():
    blocks = [b"x" * 340_000 for _ in range(150)]  # crops of a stage
    filled.append(resident())
    kept.append(blocks[-1])  # what came last stays: glibc keeps the end of a thread's heap

keep_freed_memory()
assert pa.default_memory_pool().backend_name == "system"  # what it frees is there for all
before, filled, kept = resident(), [], []
for _ in range(3):
    thread = threading.Thread(target=caption)
    thread.start()
    thread.join()
Workers(RunnerConfig(), 2, None).end_stage()
print(max(filled) - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_a_stage_leaves_none_of_its_images_to_the_next() -> None:
    """The memory of a build is that of its largest stage, and not of all of them together."""
    done = subprocess.run([sys.executable, "-c", AT_A_STAGES_END], capture_output=True, text=True, check=True)
    filled, left = map(int, done.stdout.split())
    assert filled > 40
    assert left < 15
