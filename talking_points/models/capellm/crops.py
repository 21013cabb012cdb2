"""From a box in an image to the square crop that the model sees, and back.

Points are (x to the right, y down). A crop's own points are (u, v) in pixels of the crop, [0, size).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray


class BoxError(ValueError):
    """A box that shows nothing of its image."""


@dataclass(frozen=True)
class Crop:
    """A square of an image, turned about its centre and resized.

    centre, side: in image pixels; rotation: degrees, clockwise for whoever looks at the image, as in the official
    augmentation; size: side of the crop in its own pixels.
    """

    centre: tuple[float, float]
    side: float
    size: int
    rotation: float = 0.0

    @classmethod
    def of_box(
        cls, box: Sequence[float], size: int, padding: float = 1.25, scale: float = 1.0, rotation: float = 0.0
    ) -> Crop:
        """The square about the centre of a box [x, y, width, height], ``padding`` times its longer side."""
        x, y, width, height = map(float, box)
        return cls((x + width / 2, y + height / 2), max(width, height) * padding * scale, size, rotation)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Image to crop, float64 (2, 3)."""
        scale = self.size / self.side
        cosine = scale * math.cos(math.radians(self.rotation))
        sine = scale * math.sin(math.radians(self.rotation))
        turn = np.array([[cosine, sine], [-sine, cosine]])
        return np.concatenate([turn, (self.size / 2 - turn @ np.array(self.centre))[:, None]], axis=1)

    def forward(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points (N, 2) of the image to points of the crop."""
        turn = self.matrix[:, :2]
        # About the centre, for whose surroundings the difference is exact where the matrix's offset is not.
        return (np.asarray(points, np.float64) - self.centre) @ turn.T + self.size / 2

    def inverse(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points (N, 2) of the crop to points of the image."""
        turn = np.linalg.inv(self.matrix[:, :2])
        return (np.asarray(points, np.float64) - self.size / 2) @ turn.T + self.centre

    def warp(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The crop of an image (height, width, 3): uint8 (size, size, 3), bilinear, black outside the image."""
        return np.asarray(cv2.warpAffine(pixels, self.matrix, (self.size, self.size), flags=cv2.INTER_LINEAR), np.uint8)

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Which points (N, 2) of the image lie in the crop, bool (N,)."""
        inside = self.forward(points)
        return np.asarray(((inside >= 0) & (inside < self.size)).all(-1))


def clip_box(box: Sequence[float] | None, width: int, height: int) -> tuple[float, float, float, float]:
    """A box [x, y, width, height] cut to an image of ``width`` x ``height``; None is the whole image.

    Raises ``BoxError`` for a box that is not four finite numbers, has no area, or lies outside.
    """
    if box is None:
        return (0.0, 0.0, float(width), float(height))
    try:
        x, y, w, h = (float(value) for value in box)
    except (TypeError, ValueError) as error:
        raise BoxError(f"expected a box [x, y, width, height] of four numbers, found {box!r}") from error
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0 or right <= left or bottom <= top:
        raise BoxError(
            f"expected a box [x, y, width, height] with an area inside an image of {width} x {height} pixels, "
            f"found {[x, y, w, h]}: give the object's box in pixels of this image, or none for the whole image"
        )
    return (left, top, right - left, bottom - top)


def normalise(
    crops: Sequence[NDArray[np.uint8]], mean: Sequence[float], deviation: Sequence[float]
) -> NDArray[np.float32]:
    """Crops uint8 (size, size, 3) as the vision model takes them: float32 (B, 3, size, size)."""
    stacked = np.stack(crops).astype(np.float32) / np.float32(255)
    scaled = (stacked - np.asarray(mean, np.float32)) / np.asarray(deviation, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
