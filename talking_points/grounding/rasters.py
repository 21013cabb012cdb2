"""From outlines to masks and what is measured on them: one rasteriser for truth, reward, metric and figure.

Masks are COCO run lengths (pycocotools), whose areas and overlaps need no decoding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from talking_points.config import ConfigError
from talking_points.grounding.grammar import MAX_POINTS
from talking_points.grounding.outlines import Outlines, Point, Polygon, Ring
from talking_points.records import Box, Mask, Rle

FARTHEST = (-0.5, 1.5)
"""Unit coordinates beyond the image are cut off by the rasteriser; from here on they are no coordinates of it."""

LONGEST_WAY = 10_000_000
"""Pixels along an outline: pycocotools takes some 50 bytes for each, and ends the process where it gets none."""


def is_too_long(flat: Sequence[float], width: int, height: int) -> bool:
    """Whether an outline (x, y, x, y, ... in pixels) runs further than any border in the image can, or ``LONGEST_WAY``.

    The exact border of a region has four edges for each pixel at most; some outlines lie beyond the image.
    """
    points = np.asarray(flat, dtype=np.float64).reshape(-1, 2)
    way = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1, initial=0.0).sum()
    return bool(way > min(4 * width * height + 60 * max(width, height), LONGEST_WAY))


def rasterise(outlines: Outlines, width: int, height: int) -> Rle:
    """The union of the polygons, less their holes, as run lengths of an image of ``width`` x ``height`` pixels.

    An outline encloses by the even-odd rule. Raises ``ValueError`` for an outline of under three points, with a
    coordinate outside ``FARTHEST`` or longer than any border (``is_too_long``), ``ConfigError`` for an
    image of no size.
    """
    if width < 1 or height < 1:
        raise ConfigError(f"expected an image of at least 1 x 1, found {width} x {height}; is the dataset damaged?")
    regions = [_polygon_runs(polygon, width, height) for polygon in outlines.polygons if polygon]
    if not regions:
        return empty_mask(width, height)
    return regions[0] if len(regions) == 1 else coco_mask.merge(regions)


def _polygon_runs(polygon: Polygon, width: int, height: int) -> Rle:
    rings = coco_mask.frPyObjects([_pixels(ring, width, height) for ring in polygon], height, width)
    if len(rings) == 1:
        return rings[0]
    outer = decode_mask(rings[0])
    outer &= ~decode_mask(coco_mask.merge(rings[1:]))
    return encode_mask(outer)


def _pixels(ring: Ring, width: int, height: int) -> list[float]:
    """Flat pixel coordinates. pycocotools reads two points as a box and takes memory for every pixel of the way."""
    if len(ring) < 3:
        raise ValueError(f"expected an outline of at least three points, found {len(ring)}")
    flat: list[float] = []
    low, high = FARTHEST
    for point in ring:
        if len(point) != 2 or not all(low <= value <= high for value in point):
            raise ValueError(f"expected points (x, y) with coordinates from {low} to {high}, found {point!r}")
        flat += (point[0] * width, point[1] * height)
    if len(ring) > MAX_POINTS and is_too_long(flat, width, height):
        raise ValueError(f"expected an outline no longer than a border can be, found {len(ring)} points to and fro")
    return flat


def empty_mask(width: int, height: int) -> Rle:
    """Run lengths of an image without foreground."""
    return coco_mask.frPyObjects({"size": [height, width], "counts": [width * height]}, height, width)


def check_mask(mask: Mask) -> None:
    """Raise ``ValueError`` for what is no mask: an array of bool, (height, width)."""
    if isinstance(mask, np.ndarray) and mask.ndim == 2 and mask.dtype == np.bool_:
        return
    is_array = isinstance(mask, np.ndarray)
    found = f"{mask.dtype} of shape {mask.shape}" if is_array else f"a {type(mask).__name__}"
    raise ValueError(
        f"expected a mask of bool, (height, width); found {found}: make it one, as with np.asarray(mask) > 0"
    )


def encode_mask(mask: Mask) -> Rle:
    """Run lengths of a mask, bool (height, width). Raises ``ValueError`` for what is none."""
    check_mask(mask)
    return coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))


def decode_mask(rle: Rle) -> Mask:
    """The mask of run lengths, bool (height, width)."""
    return np.ascontiguousarray(coco_mask.decode(rle).view(np.bool_))


def area(rle: Rle) -> int:
    """Pixels of a mask."""
    return int(coco_mask.area(rle))


def overlap(first: Rle, second: Rle) -> tuple[int, int]:
    """Pixels of the intersection and of the union. Raises ``ValueError`` for masks of different sizes."""
    if list(first["size"]) != list(second["size"]):
        raise ValueError(f"expected two masks of one size, found {first['size']} and {second['size']}")
    shared = coco_mask.merge([first, second], intersect=True)
    both, *each = map(int, coco_mask.area([shared, first, second]))
    return both, sum(each) - both


def iou(first: Rle, second: Rle) -> float:
    """Intersection over union of two masks; 1 for two empty ones."""
    intersection, union = overlap(first, second)
    return intersection / union if union else 1.0


def centroid(rle: Rle) -> Point | None:
    """Mean of the centres (column + 0.5, row + 0.5) of a mask's pixels; None for an empty one."""
    left, top, width, height = map(int, mask_box(rle))
    if not width or not height:
        return None
    inside = coco_mask.decode(rle)[top : top + height, left : left + width]
    moments = cv2.moments(np.ascontiguousarray(inside), binaryImage=True)
    return moments["m10"] / moments["m00"] + left + 0.5, moments["m01"] / moments["m00"] + top + 0.5


def mask_box(rle: Rle) -> Box:
    """``[x, y, width, height]`` of a mask's pixels in the frame of pixel edges; all 0 for an empty one."""
    if not area(rle):  # pycocotools takes a run of no pixel in it for a place
        return 0.0, 0.0, 0.0, 0.0
    x, y, width, height = coco_mask.toBbox(rle).tolist()
    return x, y, width, height


def outlines_box(outlines: Outlines, width: int, height: int) -> Box | None:
    """``[x, y, width, height]`` in pixels of the outlines' points, cut at the image; None where there are none."""
    points = [point for ring in outlines.rings for point in ring]
    if not points:
        return None
    x, y = zip(*points, strict=True)
    left, right = (_inside(value) * width for value in (min(x), max(x)))
    top, bottom = (_inside(value) * height for value in (min(y), max(y)))
    return left, top, right - left, bottom - top


def _inside(value: float) -> float:
    return min(max(0.0, value), 1.0)


def box_iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes ``[x, y, width, height]``; 0 where neither has an area."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right = min(first[0] + first[2], second[0] + second[2])
    bottom = min(first[1] + first[3], second[1] + second[3])
    intersection = max(0.0, right - left) * max(0.0, bottom - top)
    union = first[2] * first[3] + second[2] * second[3] - intersection
    return intersection / union if union > 0 else 0.0


def round_trip_iou(mask: Mask | Rle, outlines: Outlines) -> float:
    """How much of a mask its outlines keep: the ceiling of what their text can reach."""
    truth: Any = encode_mask(mask) if isinstance(mask, np.ndarray) else mask
    height, width = truth["size"]
    return iou(truth, rasterise(outlines, width, height))


def diagonal(box: Sequence[float]) -> float:
    """Of a box ``[x, y, width, height]``."""
    return math.hypot(box[2], box[3])
