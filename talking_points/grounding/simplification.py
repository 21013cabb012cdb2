"""Outlines with fewer points: Douglas-Peucker, then corners moved so that no area is lost.

Rings are (n, 2) in half pixels, x and y, clockwise on the screen (holes the other way): integers as traced, floats once
their corners have moved.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Corners = NDArray[Any]

NEARLY_STRAIGHT = 0.2
"""Sine of the turn under which the lines of two edges meet too far away to be a corner."""


def before_each(values: NDArray[Any]) -> NDArray[Any]:
    """The value before each one around a ring: what ``np.roll`` gives, at a tenth of its cost for short rings."""
    return np.concatenate((values[-1:], values[:-1]))


def after_each(values: NDArray[Any]) -> NDArray[Any]:
    """The value after each one around a ring."""
    return np.concatenate((values[1:], values[:1]))


def area(ring: Corners) -> float:
    """Signed, in pixels: positive for clockwise on the screen."""
    x, y = ring.T if ring.dtype.kind == "f" else ring.astype(np.int64).T
    return float((x * after_each(y) - after_each(x) * y).sum()) / 8


def is_drawable(ring: Corners, like: Corners) -> bool:
    """Whether a simplified outline still encloses something, on the same side as the exact one."""
    return len(ring) >= 3 and area(ring) * area(like) > 0


def approximate(ring: Corners, epsilon: float, balanced: bool) -> Corners:
    """The fewest corners of a ring that it strays from by at most ``epsilon`` pixels (Douglas and Peucker 1973).

    ``balanced`` also moves them, by as much at most, so that every edge gains as much area as it loses: corners on a
    curved border lie too far in. The ring may visit no point twice then.
    """
    if epsilon <= 0 or len(ring) <= 3:
        return ring
    kept = cv2.approxPolyDP(ring[:, None], 2 * epsilon, True)[:, 0]
    if not balanced or not 3 <= len(kept) < len(ring):
        return kept
    moved = _balance(ring, kept, 2 * epsilon)
    return moved if is_drawable(moved, ring) else kept


def _balance(ring: Corners, kept: Corners, most: float) -> NDArray[np.float64]:
    """Shift every edge between kept corners outward by the area it cuts off over its length; the corners move to where
    neighbouring edges then meet, by ``most`` half pixels at most."""
    codes, wanted = (points.astype(np.int64) @ [1 << 32, 1] for points in (ring, kept))
    order = np.argsort(codes)
    start = order[np.searchsorted(codes, wanted, sorter=order)]
    corners, whole = kept.astype(np.float64), ring.astype(np.float64)
    shifts, normals = _edge_shifts(corners, whole, start)
    before, shifts_before = before_each(normals), before_each(shifts)
    turn = before[:, 0] * normals[:, 1] - before[:, 1] * normals[:, 0]
    meets = np.abs(turn) > NEARLY_STRAIGHT
    turn = np.where(meets, turn, 1.0)
    at_x = (shifts_before * normals[:, 1] - shifts * before[:, 1]) / turn
    at_y = (before[:, 0] * shifts - normals[:, 0] * shifts_before) / turn
    halfway = (normals * shifts[:, None] + before * shifts_before[:, None]) / 2
    move = np.where(meets[:, None], np.stack([at_x, at_y], axis=1), halfway)
    length = np.maximum(np.hypot(*move.T), 1e-9)
    return corners + move * np.minimum(1.0, most / length)[:, None]


def _edge_shifts(
    corners: NDArray[np.float64], whole: NDArray[np.float64], start: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For the edge from each corner to the next: how far outward it belongs, and the unit normal that points there.

    ``start``: the places of the corners in the ``whole`` ring.
    """
    follow, end = after_each(whole), after_each(start)
    sums = np.concatenate(([0.0], np.cumsum(whole[:, 0] * follow[:, 1] - follow[:, 0] * whole[:, 1])))
    along_ring = sums[end] - sums[start] + np.where(end <= start, sums[-1], 0.0)
    ends = after_each(corners)
    cut_off = (along_ring + ends[:, 0] * corners[:, 1] - corners[:, 0] * ends[:, 1]) / 2
    steps = ends - corners
    lengths = np.hypot(*steps.T)
    return cut_off / lengths, np.stack([steps[:, 1], -steps[:, 0]], axis=1) / lengths[:, None]


Drawn = list[list[tuple[Corners, Corners]]]
"""For every outline, the outer one first and then its holes: as traced, and as it is to be simplified."""


def fit_budget(drawn: Drawn, budget: int, balanced: bool) -> list[list[Corners]]:
    """All outlines at the smallest common tolerance in pixels that leaves at most ``budget`` points.

    What a tolerance leaves without an area is left out. The number of points does not fall evenly with the tolerance,
    so that bisection finds a tolerance about as small, and the box of the first outline where it finds none.
    """

    def simplified(epsilon: float) -> tuple[list[list[Corners]], int]:
        kept = []
        for rings in drawn:
            outer, *holes = [(exact, approximate(ring, epsilon, balanced)) for exact, ring in rings]
            if is_drawable(outer[1], outer[0]):
                kept.append([outer[1], *(hole for exact, hole in holes if is_drawable(hole, exact))])
        return kept, sum(len(ring) for rings in kept for ring in rings)

    whole, count = simplified(0.0)
    if count <= budget:
        return whole
    outermost = drawn[0][0][0]
    (left, top), (right, bottom) = outermost.min(axis=0).tolist(), outermost.max(axis=0).tolist()
    best = [[np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.int32)]]
    low, high = 0.0, float(max(right - left, bottom - top))
    for _ in range(16):
        middle = (low + high) / 2
        kept, count = simplified(middle)
        if count > budget:
            low = middle
        else:
            high = middle
            best = kept or best
    return best
