"""How an image file is built, looked at before a library reads it: how many pieces it has, and what each says it holds.

Libraries walk through every piece of a file. A small one can have millions of them, or one image drawn over thousands
of times, and each takes a worker minutes. Honest files have few.
"""

from __future__ import annotations

import os
import re
import struct
from typing import BinaryIO

PIECES = 10_000
"""Segments of a JPEG and chunks of a PNG beside those that hold pixels, entries of a TIFF, blocks of a GIF before its
first image: each holds at most 255 bytes."""

DESCRIBED = 64 << 20
"""Bytes that a JPEG has before its pixels: EXIF, profiles, previews."""

STRIPS = 100_000
"""Strips or tiles of a TIFF."""

SCANS = 16
"""Times that the pixels of the largest JPEG may be drawn over; a progressive one has about ten scans."""

_BLOCK = 4096
"""Bytes of a PNG's pixels in a chunk, on average at least: writers take 8 KiB or more."""

_RUNS = 16
"""An RLE-packed BMP, which is read one run at a time, may have so many times fewer pixels than other images."""


class StructureError(ValueError):
    """A file with more pieces than any image has: how many of what."""


def check_structure(stream: BinaryIO) -> None:
    """Look at the beginning of an image file, whatever its format. Raises ``StructureError``.

    What is damaged or of another format is left to the library that reads it.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    start = stream.read(8)
    try:
        if start.startswith(b"\xff\xd8"):
            _check_jpeg(stream)
        elif start == b"\x89PNG\r\n\x1a\n":
            _check_png(stream, size)
        elif start.startswith(b"GIF8"):
            _check_gif(stream)
        elif start[:2] in (b"II", b"MM"):
            _check_tiff(stream, start)
    except StructureError:
        raise
    except (struct.error, IndexError, ValueError, OverflowError, OSError):
        return  # it ends too early, or names a place beyond every end


def has_scans(stream: BinaryIO) -> bool:
    """Whether a JPEG that was checked comes in several scans, which have to be counted."""
    try:
        return _check_jpeg(stream)
    except (struct.error, IndexError, OSError):
        return True


def count_scans(content: bytes) -> int:
    """How often a JPEG's pixels are drawn over, until its first image ends."""
    if (few := content.count(b"\xff\xda")) <= SCANS:
        return few  # also counts what only looks like one
    found, place = 0, 2
    for _ in range(1 << 24):
        mark = _MARK.search(content, place)
        if mark is None or mark[0] == b"\xff\xd9":
            break
        found += mark[0] == b"\xff\xda"
        place = mark.start() + 2 + int.from_bytes(content[mark.end() : mark.end() + 2], "big")
    return found


def most_pixels(most: int, kind: str, decoder: str) -> int:
    """Of ``most`` pixels, those that an image of this format and decoder may have, for the time and memory it takes."""
    if decoder == "bmp_rle":
        return most // _RUNS
    return most // 2 if kind == "WEBP" else most  # three copies, two of them with alpha


_MARK = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


def _check_jpeg(stream: BinaryIO) -> bool:
    """Whether the pixels come in several scans."""
    place, progressive, components = 2, False, 0
    for _ in range(PIECES):
        stream.seek(place)
        mark, length = struct.unpack(">HH", stream.read(4))
        if mark == 0xFFDA:
            return progressive or stream.read(1)[0] < components
        if mark >> 4 == 0xFFC and mark not in (0xFFC4, 0xFFC8, 0xFFCC):
            progressive, components = mark & 2 != 0, stream.read(6)[5]
        if mark >> 8 != 0xFF:
            place += 1  # filling, or damage
            continue
        place += 2 + length
        if place > DESCRIBED:
            raise StructureError(f"it holds more than {DESCRIBED >> 20} MiB beside its pixels")
    raise StructureError(f"it has more than {PIECES:,} segments before its pixels")


def _check_png(stream: BinaryIO, size: int) -> None:
    place, others, chunks = 8, 0, 0
    while place < size:
        stream.seek(place)
        length, kind = struct.unpack(">I4s", stream.read(8))
        chunks += 1
        others += kind != b"IDAT"
        if others > PIECES or chunks > PIECES + size // _BLOCK:
            raise StructureError(f"it has more than {PIECES:,} chunks that hold no pixels, or next to none")
        if kind == b"IEND":
            return
        place += 12 + length


def _check_gif(stream: BinaryIO) -> None:
    stream.seek(10)
    colours = stream.read(1)[0]
    stream.seek(13 + (6 << (colours & 7) if colours & 128 else 0))
    inside = False
    for _ in range(PIECES):
        length = stream.read(1)
        if inside:
            inside = length[0] > 0
            stream.seek(length[0], os.SEEK_CUR)
        elif length in (b",", b";", b""):  # the image, or the end
            return
        elif inside := length == b"!":  # an extension, of any kind
            stream.read(1)
    raise StructureError(f"it has more than {PIECES:,} blocks before its first image")


def _check_tiff(stream: BinaryIO, start: bytes) -> None:
    order = "<" if start[:2] == b"II" else ">"
    big = struct.unpack(order + "H", start[2:4])[0] == 43
    number, entry = ("Q", "HHQ8x") if big else ("H", "HHI4x")
    stream.seek(8 if big else 4)
    stream.seek(*struct.unpack(order + ("Q" if big else "I"), stream.read(8 if big else 4)))
    (entries,) = struct.unpack(order + number, stream.read(struct.calcsize(number)))
    if entries > PIECES:
        raise StructureError(f"it has {entries:,} entries, more than {PIECES:,}")
    for _ in range(entries):
        tag, _kind, count = struct.unpack(order + entry, stream.read(struct.calcsize("=" + entry)))
        if tag in (273, 279, 324, 325) and count > STRIPS:
            raise StructureError(f"it has {count:,} strips or tiles, more than {STRIPS:,}")
