"""Image files without their EXIF orientation: every decoder then shows the pixel order that annotations mean.

Viewers, and ``datasets.Image`` with them, turn an image by tag 0x0112 of its EXIF block when they decode it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator

from talking_points.image_files import ImageFileError, read_header, read_rgb

_TAG = 0x0112
_SIZES = {3: "H", 4: "I"}
"""Field types of EXIF that an orientation comes in, as ``struct`` names them: SHORT and, though wrong, LONG."""
_EXIF = b"Exif\0\0"


def neutralise_orientation(data: bytes) -> tuple[bytes, str | None]:
    """The bytes of an image file with EXIF orientation 1, and the file's new extension where its format changed.

    A file that has no other orientation is returned as it is. In JPEG, PNG, WebP and TIFF the value alone is
    overwritten. Where it cannot be found (in text chunks, in XMP) the decoded pixels are written as PNG.
    """
    if not _is_turned(data):
        return data, None
    patched = bytearray(data)
    for block in _exif_blocks(data):
        _overwrite(patched, block)
    if data.startswith(b"\x89PNG"):
        _renew_checksums(patched)
    if not _is_turned(bytes(patched)):
        return bytes(patched), None
    encoded = io.BytesIO()
    read_rgb(data).save(encoded, format="PNG", exif=b"", icc_profile=None)
    return encoded.getvalue(), ".png"


def _is_turned(data: bytes) -> bool:
    try:
        return read_header(data).orientation != 1
    except ImageFileError:  # nobody can decode it, so nobody turns it
        return False


def _exif_blocks(data: bytes) -> Iterator[int]:
    """Where TIFF structures with an orientation of the image start."""
    blocks: Iterable[tuple[int, bytes]] = [(0, b"")]
    if data[:2] == b"\xff\xd8":
        blocks = ((start, b"Exif") for marker, start, _ in _jpeg_segments(data) if marker == 0xE1)
    elif data.startswith(b"\x89PNG"):
        blocks = ((start, b"eXIf") for kind, start, _ in _png_chunks(data) if kind == b"eXIf")
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        blocks = ((start, b"EXIF") for kind, start, _ in _webp_chunks(data) if kind == b"EXIF")
    for start, name in blocks:
        headed = data[start : start + len(_EXIF)] == _EXIF
        if headed or name != b"Exif":  # other APP1 segments of a JPEG hold XMP
            yield start + len(_EXIF) * headed


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            position += 1
            continue
        if marker == 0xDA:
            return
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield marker, position + 4, length - 2
        position += 2 + length


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        yield data[position + 4 : position + 8], position + 8, length
        position += 12 + length


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    position = 12
    while position + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, position + 4)
        yield data[position : position + 4], position + 8, length
        position += 8 + length + length % 2


def _overwrite(data: bytearray, start: int) -> None:
    """Set the orientation in the first directory of the TIFF structure at ``start`` to 1, where there is one."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(data[start : start + 4]))
    try:
        if order is None:
            return
        directory = start + struct.unpack_from(f"{order}I", data, start + 4)[0]
        (entries,) = struct.unpack_from(f"{order}H", data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(f"{order}HHI", data, entry)
            if tag == _TAG and kind in _SIZES and count == 1:
                struct.pack_into(order + _SIZES[kind], data, entry + 8, 1)
    except struct.error:  # a damaged block
        return


def _renew_checksums(data: bytearray) -> None:
    for kind, start, length in list(_png_chunks(bytes(data))):
        if kind == b"eXIf" and start + length + 4 <= len(data):
            struct.pack_into(">I", data, start + length, zlib.crc32(data[start - 4 : start + length]))
