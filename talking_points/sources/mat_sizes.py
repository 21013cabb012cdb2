"""How much a MATLAB file unpacks to, told before SciPy unpacks it: a thousandth of it may be in the file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from talking_points.regular_files import open_regular

MAT_BYTES = 64 << 20
UNPACKED = 256 << 20
"""Largest file, and what it may unpack to; those of PASCAL-Part are a hundredth of that."""

_HEADER, _COMPRESSED, _AT_ONCE = 128, 15, 1 << 20


def check_mat(path: Path) -> None:
    """Refuse a file that is none, or is too large. Raises ``OSError``, and ``ValueError`` for one that unpacks to more.

    What is damaged is left to SciPy.
    """
    with open_regular(path, MAT_BYTES) as file:
        order = ">" if file.read(_HEADER)[-2:] == b"MI" else "<"
        total = 0
        while len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            packed = file.read(size)
            unpacker = zlib.decompressobj()
            while kind == _COMPRESSED and packed and not unpacker.eof:
                try:
                    total += len(unpacker.decompress(packed, _AT_ONCE))
                except zlib.error:
                    return
                packed = unpacker.unconsumed_tail
                if total > UNPACKED:
                    raise ValueError(f"it unpacks to more than {UNPACKED:,} bytes")
