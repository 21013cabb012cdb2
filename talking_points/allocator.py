"""Asks the C library to keep freed memory for reuse.

Every image takes and frees megabytes: a scale space to find keypoints in, the features of a batch. glibc hands such
blocks back to the system, which fills them with zeros when they are asked for again: a fifth of the time that finding
keypoints takes. Arrow keeps freed memory too, in a pool of its own that nothing else can use: a few tables of images
leave 60 MiB there.
"""

from __future__ import annotations

import ctypes
import functools
import sys

MIB = 2**20

MMAP_THRESHOLD, TRIM_THRESHOLD = (-3, 32 * MIB), (-1, 512 * MIB)
"""Parameters of ``mallopt(3)``: blocks up to 32 MiB come from the heap, of which 512 MiB may lie unused."""


@functools.cache
def keep_freed_memory() -> bool:
    """Set both thresholds for this process, once; returns whether the C library took them (only glibc does).

    Arrow takes its memory there from then on.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not all(mallopt(*parameter) for parameter in (MMAP_THRESHOLD, TRIM_THRESHOLD)):
        return False
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    return True


def give_back_memory() -> bool:
    """Return to the system what is freed and kept; returns whether there was any (only glibc knows)."""
    if sys.platform != "linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
