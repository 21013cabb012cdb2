"""From a mask to outlines: exact ones along pixel edges, and shorter ones for texts.

``findContours`` joins the centres of a mask's outermost pixels, which loses half a pixel on every side. Here outlines
run along the edges of pixels, so that the area they enclose is the mask's. Foreground is 8-connected: two pixels that
touch at a corner share one outline, which visits that corner twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from talking_points.config import ConfigError
from talking_points.grounding.outlines import Outlines, Polygon, Ring
from talking_points.grounding.rasters import check_mask
from talking_points.grounding.simplification import (
    Corners,
    after_each,
    approximate,
    area,
    before_each,
    fit_budget,
    is_drawable,
)
from talking_points.records import Mask

SMALL_MASK = 16
"""Pixels. Smaller masks keep their exact outline: no tolerance is fine enough for them."""

FEWEST_POINTS = 4
"""A budget of points holds at least a box."""

_CHOICES = {
    "tolerance_of": ("area", "length"),
    "contour": ("mid_edge", "edge", "centres"),
    "direction": ("clockwise", "counterclockwise"),
}


@dataclass(frozen=True)
class Tracing:
    """How a mask becomes outlines. Raises ``ConfigError`` for values out of range.

    ``tolerance`` is how far a simplified outline may stray, relative to the square root of the outline's area or to
    its length; 0 keeps every corner. ``points`` is a budget instead: the smallest tolerance, the same for all
    outlines, with at most so many points in all. ``balanced``: corners are moved so that no edge loses or gains area.
    ``contour`` "mid_edge" joins the middles of the pixel edges, which cuts corners without losing a pixel centre;
    "edge" is the exact outline; "centres", through the centres of the border's pixels, is there to be compared with.
    ``components``: how many outlines at most, the largest; None: all.
    """

    tolerance: float = 0.03
    tolerance_of: Literal["area", "length"] = "area"
    points: int | None = None
    balanced: bool = True
    contour: Literal["mid_edge", "edge", "centres"] = "mid_edge"
    direction: Literal["clockwise", "counterclockwise"] = "clockwise"
    components: int | None = 8
    holes: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 0.5:
            raise ConfigError(f"expected a tolerance from 0 to below 0.5, found {self.tolerance!r}")
        if self.points is not None and self.points < FEWEST_POINTS:
            raise ConfigError(f"expected a budget of at least {FEWEST_POINTS} points, found {self.points!r}")
        if self.components is not None and self.components < 1:
            raise ConfigError(f"expected at least one component, or None for all; found {self.components!r}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"expected {name} of {', '.join(known)}; found {getattr(self, name)!r}")


def trace(mask: Mask, tracing: Tracing | None = None) -> Outlines:
    """Outlines of a mask, bool (height, width), in unit coordinates, the one with the largest area first.

    Each begins at its topmost, then leftmost point and runs in ``tracing.direction`` on the screen, holes the other
    way. An empty mask has none. Raises ``ValueError`` for an array that is no bool matrix.
    """
    tracing = tracing or Tracing()
    check_mask(mask)
    if not mask.any():
        return Outlines()
    traced = _trace(mask, tracing)
    smooth = tracing.contour == "mid_edge" and int(mask.sum()) >= SMALL_MASK
    drawn = [[(ring, _mid_edges(ring) if smooth else ring) for ring in rings] for rings in traced]
    if tracing.points is not None:
        simplified = fit_budget(drawn, tracing.points, tracing.balanced and smooth)
    elif tracing.contour == "mid_edge" and not smooth:
        simplified = traced
    else:
        simplified = [[_simplify(ring, exact, tracing) for exact, ring in rings] for rings in drawn]
    height, width = mask.shape
    return Outlines(tuple(_polygon(rings, width, height, tracing.direction) for rings in simplified))


def _trace(mask: Mask, tracing: Tracing) -> list[list[Corners]]:
    """The largest components, by the area that their outer outline encloses, then from the top: exact, in half pixels,
    each an outer outline, clockwise on the screen, and its holes, which run the other way."""
    mask, centres = np.ascontiguousarray(mask), tracing.contour == "centres"
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    inside = np.pad(mask[top : top + height, left : left + width].view(np.uint8), 1)
    if not centres:
        # Pixels twice as large tell the two sides of a border pixel apart.
        inside = inside.repeat(2, axis=0).repeat(2, axis=1)
    contours, tree = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    points = np.concatenate(contours)[:, 0]
    points = 2 * ((points if centres else (points + 1) // 2) + np.array([left - 1, top - 1], np.int32))
    rings = np.split(points, np.cumsum([len(contour) for contour in contours])[:-1])
    parents = tree[0, :, 3].tolist()
    components = [number for number, parent in enumerate(parents) if parent < 0]
    components.sort(key=lambda number: (-cv2.contourArea(rings[number]), *rings[number][0, ::-1].tolist()))
    kept = {number: [_corners(rings[number])[::-1]] for number in components[: tracing.components]}
    for number, parent in enumerate(parents):
        if tracing.holes and parent in kept:
            kept[parent].append(_corners(rings[number])[::-1])
    return list(kept.values())


def _corners(points: Corners) -> Corners:
    """An outline without repeated points and points on a straight line."""
    points = points[(points != before_each(points)).any(axis=1)] if len(points) > 1 else points
    before = (points - before_each(points)).astype(np.int64)
    after = (after_each(points) - points).astype(np.int64)
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return points[turns] if turns.sum() > 2 else points


def _mid_edges(corners: Corners) -> Corners:
    """The outline through the middles of the unit edges of an exact one."""
    steps = after_each(corners) - corners
    lengths = np.abs(steps).max(axis=1) // 2
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    middles = np.repeat(corners, lengths, axis=0) + np.repeat(np.sign(steps), lengths, axis=0) * (
        2 * within[:, None] + 1
    )
    return _corners(middles.astype(np.int32))


def _simplify(ring: Corners, exact: Corners, tracing: Tracing) -> Corners:
    length = math.sqrt(abs(area(ring))) if tracing.tolerance_of == "area" else cv2.arcLength(ring[:, None], True) / 2
    simplified = approximate(ring, tracing.tolerance * length, tracing.balanced and tracing.contour == "mid_edge")
    return simplified if is_drawable(simplified, exact) else exact


def _polygon(rings: list[Corners], width: int, height: int, direction: str) -> Polygon:
    size = np.array([2 * width, 2 * height])
    polygon: list[Ring] = []
    for ring in rings:
        turned = np.clip(ring if direction == "clockwise" else ring[::-1], 0, size)
        first = np.lexsort((turned[:, 0], turned[:, 1]))[0]
        polygon.append(tuple((x, y) for x, y in (np.roll(turned, -int(first), axis=0) / size).tolist()))
    return tuple(polygon)
