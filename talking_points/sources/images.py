"""Decoding images and label maps without the conversions that break annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talking_points.image_files import ImageFileError, read_labels, read_pixels
from talking_points.records import AnnotatedObject, ImageRecord
from talking_points.sources.layout import inside
from talking_points.sources.protocol import SkippedImage, SourceEntry

_SKIPPED_IMAGE = {
    "missing": "missing_image",
    "unreadable": "unreadable_image",
    "truncated": "truncated_image",
    "too_large": "image_too_large",
}


def decode_rgb(path: Path) -> NDArray[np.uint8]:
    """An image as uint8 RGB (height, width, 3), in stored pixel order: EXIF orientation is ignored.

    Raises ``SkippedImage`` (missing_image, unreadable_image, truncated_image, image_too_large).
    """
    try:
        return read_pixels(path)
    except ImageFileError as error:
        raise SkippedImage(_SKIPPED_IMAGE[error.reason], str(error)) from error


def decode_labels(path: Path) -> NDArray[np.integer]:
    """A label map (height, width) with the stored values: uint8 (grey or palette index), uint16 or int32.

    Raises ``SkippedImage`` (missing_label_map, unreadable_label_map).
    """
    try:
        return read_labels(path)
    except ImageFileError as error:
        reason = "missing_label_map" if error.reason == "missing" else "unreadable_label_map"
        raise SkippedImage(reason, str(error)) from error


def check_label_size(labels: NDArray[np.integer], pixels: NDArray[np.uint8], path: str) -> None:
    """Raise ``SkippedImage`` unless label map and image have the same size."""
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


def open_image(root: Path, entry: SourceEntry, links: Sequence[Path] = ()) -> tuple[Path, NDArray[np.uint8]]:
    """Absolute path and pixels of an entry's image, its path checked again: entries may come from a file."""
    path = inside(root, entry.image_path, links)
    return path, decode_rgb(path)


def open_listed_image(root: Path, entry: SourceEntry, links: Sequence[Path] = ()) -> tuple[Path, NDArray[np.uint8]]:
    """As ``open_image``, for an entry whose annotation says its ``width`` and ``height``, which are compared."""
    path, pixels = open_image(root, entry, links)
    check_listed_size(entry.annotation["width"], entry.annotation["height"], pixels, entry.image_path)
    return path, pixels


def image_record(
    source: str,
    entry: SourceEntry,
    path: Path,
    pixels: NDArray[np.uint8],
    objects: Sequence[AnnotatedObject],
    annotation_path: str,
) -> ImageRecord:
    """The record of a decoded image; ``annotation_path``: the file of its labels, from the source's root."""
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
    """A label map of the image ``pixels``; sizes are compared."""
    labels = decode_labels(inside(root, relative))
    check_label_size(labels, pixels, relative)
    return labels
