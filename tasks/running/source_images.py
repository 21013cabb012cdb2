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
from talking_points.whole_files import file_sha256
from tasks.running.claims import this_worker
from tasks.running.shards import Environment
from tasks.running.worker_checks import WorkerDiffers


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


def check_listed(environment: Environment, path: Path, sha256: str) -> None:
    """On a worker that may be on another machine: is this the file that was listed? Raises ``WorkerDiffers``.

    What its own copy of a source lacks, or has otherwise, would be left out, or described, as if it were the source's.
    """
    if not environment.is_shared or not sha256:  # one that was not there when it was listed
        return
    try:
        found = file_sha256(path, FILE_BYTES)
    except OSError as error:
        found = error.strerror or type(error).__name__
    if found != sha256:
        what = "is not the file" if len(found) == len(sha256) else f"cannot be read ({found}), but is one"
        raise WorkerDiffers(
            f"{path}, as the worker {this_worker()} sees it, {what} that the build has listed: every worker has to see "
            "the same sources, which do not change while a build runs"
        )


def check_listed_image(candidate: Candidate, environment: Environment) -> None:
    """As ``check_listed``, of a row's image."""
    path = inside(Path(environment.roots[candidate.source]), candidate.image_path)
    check_listed(environment, path, candidate.image_sha256)


def image_pixels(candidate: Candidate, roots: Mapping[str, str]) -> NDArray[np.uint8]:
    """The decoded image, uint8 RGB (height, width, 3). Raises ``SkippedImage``."""
    return decode_rgb(inside(Path(roots[candidate.source]), candidate.image_path))


def listed_pixels(candidate: Candidate, environment: Environment) -> NDArray[np.uint8]:
    """As ``image_pixels``, of the file that was listed. Raises ``WorkerDiffers``."""
    check_listed_image(candidate, environment)
    return image_pixels(candidate, environment.roots)


class ImagesInTurn:
    """The decoded images of rows, asked for one after another: what follows an image is often a row of the same one.

    Such rows get one and the same array, so that a backend encodes it once.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._last: tuple[tuple[str, str], NDArray[np.uint8]] | None = None

    def pixels(self, candidate: Candidate) -> NDArray[np.uint8]:
        """As ``listed_pixels``."""
        place = candidate.source, candidate.image_path
        if self._last is None or self._last[0] != place:
            self._last = place, listed_pixels(candidate, self._environment)
        return self._last[1]
