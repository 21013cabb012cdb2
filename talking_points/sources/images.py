"""Decoding photographs and label maps without the conversions that break annotations."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from talking_points.records import AnnotatedObject, ImageRecord
from talking_points.sources.layout import inside
from talking_points.sources.protocol import SkippedImage, SourceEntry

# ImageNet photographs carry broken EXIF blocks; EXIF is never used here.
warnings.filterwarnings("ignore", message="Corrupt EXIF data", category=UserWarning)

_FILE_ERRORS = {errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


def _decode(path: Path, mode: str | None, missing: str, unreadable: str, truncated: str) -> NDArray[np.integer]:
    try:
        with Image.open(path) as image:
            image.load()
            if mode is None or image.mode == mode:
                return np.asarray(image)
            if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip at 255
                grey = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                return np.asarray(grey.convert(mode))
            return np.asarray(image.convert(mode))
    except FileNotFoundError as error:
        raise SkippedImage(missing, str(path)) from error
    except MemoryError:
        raise
    except Exception as error:  # on damaged files Pillow raises nearly anything: OSError, SyntaxError, struct.error
        if isinstance(error, OSError) and error.errno is not None and error.errno not in _FILE_ERRORS:
            raise  # the disk fails, not the image
        early = "truncated" in str(error).lower() or isinstance(error, EOFError)
        raise SkippedImage(truncated if early else unreadable, f"{path.name}: {error}") from error


def decode_rgb(path: Path) -> NDArray[np.uint8]:
    """A photograph as uint8 RGB (height, width, 3), in stored pixel order: EXIF orientation is ignored.

    The content decides the format, not the extension; grey, palette, CMYK and RGBA pictures become RGB.
    Raises ``SkippedImage`` (missing_image, unreadable_image, truncated_image).
    """
    pixels = _decode(path, "RGB", "missing_image", "unreadable_image", "truncated_image")
    return pixels.astype(np.uint8, copy=False)  # what mode RGB already is


def decode_labels(path: Path) -> NDArray[np.integer]:
    """A label map (height, width) with the stored values: uint8 (grey or palette index), uint16 or int32.

    Raises ``SkippedImage`` (missing_label_map, unreadable_label_map).
    """
    labels = _decode(path, None, "missing_label_map", "unreadable_label_map", "unreadable_label_map")
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        shape = "x".join(map(str, labels.shape))
        raise SkippedImage("unreadable_label_map", f"{path.name}: expected one channel of integers, got {shape}")
    return labels


def check_label_size(labels: NDArray[np.integer], pixels: NDArray[np.uint8], path: str) -> None:
    """Raise ``SkippedImage`` unless label map and photograph have the same size."""
    _check_size(labels.shape[1], labels.shape[0], pixels, "label_", path)


def check_listed_size(width: int | None, height: int | None, pixels: NDArray[np.uint8], path: str) -> None:
    """Raise ``SkippedImage`` unless the size in the annotation file (if it gives one) is the decoded one."""
    if width is not None and height is not None:
        _check_size(width, height, pixels, "", path)


def _check_size(width: int, height: int, pixels: NDArray[np.uint8], prefix: str, path: str) -> None:
    decoded = (pixels.shape[1], pixels.shape[0])
    if (width, height) != decoded:
        kind = "size_transposed" if (height, width) == decoded else "size_mismatch"
        raise SkippedImage(prefix + kind, f"{path}: {width}x{height} for an image of {decoded[0]}x{decoded[1]}")


def open_photograph(root: Path, entry: SourceEntry) -> tuple[Path, NDArray[np.uint8]]:
    """Absolute path and pixels of an entry's image, its path checked again: entries may come from a file."""
    path = inside(root, entry.image_path)
    return path, decode_rgb(path)


def image_record(
    source: str,
    entry: SourceEntry,
    path: Path,
    pixels: NDArray[np.uint8],
    objects: Sequence[AnnotatedObject],
    annotation_path: str,
) -> ImageRecord:
    """The record of a decoded photograph; ``annotation_path``: the file of its labels, from the source's root."""
    height, width = pixels.shape[:2]
    return ImageRecord(
        source,
        entry.image_id,
        path,
        entry.image_path,
        width,
        height,
        entry.split,
        tuple(objects),
        annotation_path,
        lambda: pixels,
    )


def open_labels(root: Path, relative: str, pixels: NDArray[np.uint8]) -> NDArray[np.integer]:
    """A label map of the photograph ``pixels``; sizes are compared."""
    labels = decode_labels(inside(root, relative))
    check_label_size(labels, pixels, relative)
    return labels
