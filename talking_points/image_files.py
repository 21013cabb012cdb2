"""The one place that opens image files: which formats, how large, which way up, and which pixels come out.

Every image of the project, from a dataset, a published table or a user, is decoded here, so that all stages see the
same pixels: uint8 RGB, 16 bits a channel scaled and not clipped, the first frame of an animation, alpha and colour
profiles left out. Formats that start other programs or read other files (PostScript, PDF, vector formats) are refused,
whatever the name of the file says.
"""

from __future__ import annotations

import errno
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from talking_points.errors import InputError
from talking_points.image_headers import SCANS, StructureError, check_structure, count_scans, has_scans, most_pixels
from talking_points.regular_files import open_regular

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
"""What is decoded, in Pillow's names. "JPEG" includes the several-image JPEGs of phones (MPO): their first image."""

MAX_PIXELS = 178_956_970
"""Larger images are refused before they are decoded. It is where Pillow itself speaks of a decompression bomb: 0.5 GiB
of RGB, about 1.3 GiB while decoding."""

FILE_BYTES = 2 << 30
"""Largest file of an image: what the pixels that are decoded take without compression, and more."""

Orientation = Literal["stored", "displayed"]
"""``stored``: pixel order of the file, EXIF orientation ignored, as annotations of datasets mean it. ``displayed``: as
every viewer shows it, for a user's own image."""

Reason = Literal["missing", "unreadable", "truncated", "too_large"]

_ORIENTATION_TAG = 0x0112
_SAMPLES, _TILE_WIDTH, _TILE_LENGTH = 277, 322, 323
_BMP_HEADER = 64 << 10
_WIDE = ("I", "F")
"""Modes of 32 bits a pixel."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_AS_STORED = _UPRIGHT | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""Undoes what Pillow does to TIFF, the only format that it turns by itself."""

_FILE_ERRORS = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP} | {
    errno.EINVAL,
    errno.EFBIG,
}
"""System errors that speak of this file; all others say that the disk fails."""

_SIGNATURES = (
    (b"%!PS", "a PostScript file"),
    (b"%PDF", "a PDF"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the real file with 'git lfs pull'"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 image"),
    (b"PK\x03\x04", "a ZIP archive"),
)

# Damaged EXIF blocks are common and of no interest; the size of an image is checked here.
warnings.filterwarnings("ignore", message="Corrupt EXIF data", category=UserWarning)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageFileError(InputError):
    """An image that cannot be used; ``reason`` says in one word why."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says of itself: ``width`` and ``height`` in pixels as stored, its MIME type, Pillow's mode,
    the EXIF ``orientation`` (1: upright)."""

    width: int
    height: int
    mime: str
    mode: str
    orientation: int


def read_header(file: Path | bytes) -> ImageHeader:
    """The header of an image file or of its bytes, without decoding. Raises ``ImageFileError``."""
    try:
        with _open(file) as opened:
            mime = Image.MIME.get(opened.format or "", "application/octet-stream")
            return ImageHeader(opened.width, opened.height, mime, opened.mode, _orientation(opened))
    except Exception as error:
        raise _explain(error, file) from error


def read_rgb(
    file: Path | bytes,
    orientation: Orientation = "stored",
    *,
    max_pixels: int = MAX_PIXELS,
    draft: tuple[int, int] | None = None,
) -> Image.Image:
    """An image file, or its bytes, as an RGB image.

    The content decides the format, not the extension. ``draft`` lets a JPEG be decoded at a reduced size that is not
    smaller than (width, height), for thumbnails. Raises ``ImageFileError`` (missing, unreadable, truncated, too_large);
    errors of the disk itself pass as ``OSError``.
    """
    decoded = _decode(file, max_pixels, orientation, draft)
    try:
        return to_rgb(decoded)
    except Exception as error:
        raise _explain(error, file) from error


def read_pixels(
    file: Path | bytes, orientation: Orientation = "stored", max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """As ``read_rgb``: uint8 (height, width, 3)."""
    return np.asarray(read_rgb(file, orientation, max_pixels=max_pixels))


def read_labels(file: Path | bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.integer]:
    """A label map (height, width) with the stored values: uint8 (grey or palette index), uint16 or int32.

    Raises ``ImageFileError``, also for more than one channel.
    """
    labels = np.asarray(_decode(file, max_pixels, "stored"))
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        shape = "x".join(map(str, labels.shape))
        raise ImageFileError("unreadable", f"{_name(file)}: expected one channel of integers, found {shape}")
    return labels


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded image of any mode as RGB: 16 bits are scaled to 8, alpha is left out, colours stay as stored.

    Raises ``ImageFileError`` for 32 bits a channel: nothing says which value is white.
    """
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        if image.mode == "I" and 0 <= values.min() <= values.max() < 1 << 16:  # 16 bits, read into a wider type
            return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
        found = "integers" if image.mode == "I" else "floats"
        raise ImageFileError(
            "unreadable", f"expected 8 or 16 bits a channel, found 32-bit {found}, of which nothing says what is white"
        )
    return image.convert("RGB")


def _open(file: Path | bytes) -> ImageFile.ImageFile:
    if isinstance(file, bytes):
        check_structure(io.BytesIO(file))
        return Image.open(io.BytesIO(file), formats=FORMATS)
    with open_regular(file, FILE_BYTES) as stream:
        check_structure(stream)
    return Image.open(file, formats=FORMATS)


def _refuse_large(opened: ImageFile.ImageFile, max_pixels: int, file: Path | bytes) -> None:
    """Raise ``DecompressionBombError`` where decoding takes more memory or time than ``max_pixels`` of RGB do."""
    decoder = opened.tile[0][0] if opened.tile else ""
    # Wide values are copied several times before they are narrow.
    most = most_pixels(max_pixels // 3 if opened.mode in _WIDE else max_pixels, opened.format or "", decoder)
    if decoder == "jpeg":
        with io.BytesIO(file) if isinstance(file, bytes) else open_regular(file) as stream:
            scans = _count_scans(stream) if has_scans(stream) else 1
        if scans * opened.width * opened.height > SCANS * MAX_PIXELS:
            raise Image.DecompressionBombError(f"{scans:,} scans of {opened.width}x{opened.height} pixels")
    if decoder == "bmp_rle" and _length(file) > 2 * opened.width * opened.height + 4 * opened.height + _BMP_HEADER:
        raise Image.DecompressionBombError("more runs than it has pixels")
    sizes = [(opened.width, opened.height)]
    tags = getattr(opened, "tag_v2", None) or {}
    if _TILE_WIDTH in tags:  # a tile is decoded as a whole, however little of it is in the image
        samples = max(1, -(-int(tags.get(_SAMPLES, 1)) // 4))
        sizes.append((int(tags[_TILE_WIDTH]), int(tags.get(_TILE_LENGTH, 1)) * samples))
    for width, height in sizes:
        if width * height > most:
            raise Image.DecompressionBombError(f"{width}x{height} exceeds {most:,} pixels")


def _count_scans(stream: BinaryIO) -> int:
    stream.seek(0)
    return count_scans(stream.read())


def _length(file: Path | bytes) -> int:
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def _decode(
    file: Path | bytes, max_pixels: int, orientation: Orientation, draft: tuple[int, int] | None = None
) -> Image.Image:
    try:
        with _open(file) as opened:
            _refuse_large(opened, max_pixels, file)
            turned_by_pillow = opened.format == "TIFF"
            value = _orientation(opened) if turned_by_pillow or orientation == "displayed" else 1
            if draft is not None:
                opened.draft("RGB", draft)
            opened.load()
            if value == 1 or turned_by_pillow == (orientation == "displayed"):
                return opened
            return opened.transpose((_UPRIGHT if orientation == "displayed" else _AS_STORED)[value])
    except Exception as error:  # on damaged files Pillow raises nearly anything: OSError, SyntaxError, struct.error
        raise _explain(error, file) from error


def _explain(error: Exception, file: Path | bytes) -> Exception:
    """The error as a message about the file; an error of the disk or of the memory as it is."""
    name = _name(file)
    if isinstance(error, MemoryError):
        return error
    if isinstance(error, StructureError):
        return ImageFileError("too_large", f"{name} takes too long to be decoded, save it anew first: {error}")
    if isinstance(error, ImageFileError):
        return ImageFileError(error.reason, f"{name}: {error}")
    if isinstance(error, FileNotFoundError):
        return ImageFileError("missing", f"no file {name}")
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, UnidentifiedImageError):
        if error.errno not in _FILE_ERRORS:
            return error
        return ImageFileError("unreadable", f"cannot read {name}: {error.strerror}")
    if isinstance(error, Image.DecompressionBombError):
        return ImageFileError("too_large", f"{name} is too large to be decoded, reduce it first: {error}")
    if isinstance(error, UnidentifiedImageError):
        return ImageFileError("unreadable", f"{name}: expected {_list_formats()}, found {_kind(file)}")
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return ImageFileError("truncated", f"{name} ends too early: {error}")
    return ImageFileError("unreadable", f"{name} is damaged: {error}")


def _list_formats() -> str:
    return f"an image ({', '.join(FORMATS)})".replace("WEBP", "WebP")


def _kind(file: Path | bytes) -> str:
    """What the first bytes of a file that is none of our formats look like."""
    if isinstance(file, bytes):
        start = file[:32]
    else:
        with open_regular(file) as stream:
            start = stream.read(32)
    if not start:
        return "an empty file"
    if start[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file: export it as JPEG or PNG"
    return next((kind for signature, kind in _SIGNATURES if start.lstrip().startswith(signature)), "another format")


def _name(file: Path | bytes) -> str:
    return "the image" if isinstance(file, bytes) else str(file)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a damaged EXIF block
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
