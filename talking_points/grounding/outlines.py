"""Regions as outlines, and the frame that their coordinates live in.

The frame of texts is that of pixel edges: pixel i covers [i, i + 1], the image is [0, width] x [0, height], x to the
right, y down, both divided by the image's size. COCO polygons and boxes are in this frame; the project's points are
pixel centres, so a point moves by half a pixel on its way in and out, an outline or a box does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from talking_points.config import ConfigError
from talking_points.records import Box

Point = tuple[float, float]
Ring = tuple[Point, ...]
"""A closed outline in unit coordinates; its first point is not repeated."""

Polygon = tuple[Ring, ...]
"""An outer outline and the holes in it."""


@dataclass(frozen=True)
class Outlines:
    """A region: the union of polygons, each an outer outline less its holes. Nothing where there is none."""

    polygons: tuple[Polygon, ...] = ()

    @property
    def rings(self) -> Iterator[Ring]:
        """All outlines, holes included."""
        return (ring for polygon in self.polygons for ring in polygon)

    @property
    def point_count(self) -> int:
        return sum(map(len, self.rings))

    @property
    def without_holes(self) -> Outlines:
        return Outlines(tuple(polygon[:1] for polygon in self.polygons))


def signed_area(ring: Sequence[Point]) -> float:
    """Shoelace area, positive for outlines that run clockwise as seen on the screen."""
    ends = (*ring[1:], *ring[:1])
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in zip(ring, ends, strict=True)) / 2


def is_clockwise(ring: Sequence[Point]) -> bool:
    """Whether an outline runs clockwise as seen on the screen (y down)."""
    return signed_area(ring) > 0


def drop_repeats(points: Iterable[Point]) -> list[Point]:
    """A ring without points that repeat the one before, the first one counting as after the last."""
    kept: list[Point] = []
    for point in points:
        if not kept or point != kept[-1]:
            kept.append(point)
    while len(kept) > 1 and kept[-1] == kept[0]:
        kept.pop()
    return kept


def crosses_itself(ring: Sequence[Point]) -> bool:
    """Whether two edges of an outline that are no neighbours touch or cross. Time and memory: points squared."""
    starts = np.asarray(ring, dtype=np.float64)
    count = len(starts)
    if count < 4:
        return False
    ends = np.roll(starts, -1, axis=0)

    def sides(points: NDArray[np.float64]) -> NDArray[np.float64]:
        """On which side of every edge (rows) every point (columns) lies: -1, 0 or 1."""
        along, to = (ends - starts)[:, None], points[None] - starts[:, None]
        return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])

    of_starts, of_ends = sides(starts), sides(ends)
    parted = of_starts * of_ends <= 0
    low, high = np.minimum(starts, ends), np.maximum(starts, ends)
    near = ((low[:, None] <= high[None]) & (low[None] <= high[:, None])).all(axis=2)
    meet = parted & parted.T & near
    numbers = np.arange(count)
    apart = np.abs(numbers[:, None] - numbers[None])
    return bool((meet & (apart > 1) & (apart < count - 1)).any())


Coordinates = Literal["unit", "thousand", "pixels"]
"""What a model writes: shares of the image's size (ours), thousandths of it, or pixels of the image it was shown."""


def scale_of(coordinates: Coordinates, width: int, height: int) -> Point:
    """What the x and y of a text in other coordinates are divided by to become unit ones.

    ``width`` and ``height`` are those of the image as the model was shown it. Raises ``ConfigError`` for another name.
    """
    scales = {"unit": (1.0, 1.0), "thousand": (1000.0, 1000.0), "pixels": (float(width), float(height))}
    if coordinates not in scales:
        raise ConfigError(f"expected coordinates of {', '.join(scales)}; found {coordinates!r}")
    return scales[coordinates]


def point_to_unit(x: float, y: float, width: int, height: int) -> Point:
    """A pixel-centre point of an image as written in texts."""
    return (x + 0.5) / width, (y + 0.5) / height


def point_to_pixels(point: Point, width: int, height: int) -> Point:
    """A written point as the project's points are: integers are pixel centres."""
    return point[0] * width - 0.5, point[1] * height - 0.5


def box_to_unit(box: Box, width: int, height: int) -> Box:
    """``[x, y, width, height]`` in pixels as the corners ``(x1, y1, x2, y2)`` that texts give."""
    x, y, w, h = box
    return x / width, y / height, (x + w) / width, (y + h) / height


def box_to_pixels(corners: Box, width: int, height: int) -> Box:
    """Written corners ``(x1, y1, x2, y2)`` as ``[x, y, width, height]`` in pixels."""
    left, top, right, bottom = corners
    return left * width, top * height, (right - left) * width, (bottom - top) * height
