"""The images that rows refer to, read again from their source with their content checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talking_points.image_files import FILE_BYTES
from talking_points.records import Candidate
from talking_points.regular_files import IrregularFileError, read_bytes
from talking_points.sources.images import decode_rgb
from talking_points.sources.layout import inside
from talking_points.sources.protocol import SkippedImage


def image_bytes(candidate: Candidate, roots: Mapping[str, str]) -> bytes:
    """The file's own bytes. Raises ``SkippedImage`` (missing_image, image_changed)."""
    return read_source_image(roots[candidate.source], candidate.image_path, candidate.image_sha256)


def read_source_image(root: str, image_path: str, sha256: str) -> bytes:
    """As ``image_bytes``, for the image at ``image_path`` below ``root``."""
    path = inside(Path(root), image_path)
    try:
        content = read_bytes(path, FILE_BYTES)
    except (FileNotFoundError, IrregularFileError) as error:
        raise SkippedImage("missing_image", str(path)) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise SkippedImage("image_changed", f"{path} is not the file that was indexed; run the build again")
    return content


def image_pixels(candidate: Candidate, roots: Mapping[str, str]) -> NDArray[np.uint8]:
    """The decoded image, uint8 RGB (height, width, 3). Raises ``SkippedImage``."""
    return decode_rgb(inside(Path(roots[candidate.source]), candidate.image_path))


class ImagesInTurn:
    """The decoded images of rows, asked for one after another: what follows an image is often a row of the same one.

    Such rows get one and the same array, so that a backend encodes it once.
    """

    def __init__(self, roots: Mapping[str, str]) -> None:
        self._roots = roots
        self._last: tuple[tuple[str, str], NDArray[np.uint8]] | None = None

    def pixels(self, candidate: Candidate) -> NDArray[np.uint8]:
        """As ``image_pixels``."""
        place = candidate.source, candidate.image_path
        if self._last is None or self._last[0] != place:
            self._last = place, image_pixels(candidate, self._roots)
        return self._last[1]
