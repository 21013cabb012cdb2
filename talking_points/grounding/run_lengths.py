"""COCO's run lengths, looked at before pycocotools decodes them, which trusts whatever it is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fills(runs: NDArray[np.int64] | NDArray[np.float64] | None, width: int, height: int) -> bool:
    """Whether run lengths fill an image exactly: pycocotools leaves memory uninitialised when they do not."""
    if runs is None or not runs.size:
        return False
    pixels = width * height
    return bool(((runs >= 0) & (runs <= pixels) & (runs % 1 == 0)).all() and runs.sum() == pixels)


def decompress(counts: str) -> NDArray[np.int64] | None:
    """Run lengths of a compressed COCO string (``rleFrString``): 5 bits a character, least significant first,
    0x20 = more follows, 0x10 in the last = negative; from the fourth run on, differences to the run two before.
    """
    try:
        codes = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return None
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
        return None
    ends = np.flatnonzero(~codes & 0x20)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if (ends - starts).max() > 5:  # six hold 29 bits and a sign; pycocotools misreads that of longer ones
        return None
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, ends - starts + 1))
    runs = np.add.reduceat((codes & 0x1F) << shifts, starts)
    runs -= np.where(codes[ends] & 0x10, np.int64(1) << (shifts[ends] + 5), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
