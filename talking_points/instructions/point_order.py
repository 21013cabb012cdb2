"""The points of outlines in another order than along the border: an ablation, since such texts draw no region."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

from talking_points.records import derive_seed

PointOrder = Literal["outline", "rows", "random"]

_POINT = re.compile(r"\[([^\[\],]+), ([^\[\]]+)\]")
_RING = re.compile(rf"(?<=\[){_POINT.pattern}(?:, {_POINT.pattern})+(?=\])")


def order_points(text: str, order: PointOrder, seed: int, row: str) -> str:
    """Outlines as ``write_outlines`` writes them, the points of each from top to bottom and left to right (``rows``),
    or drawn by seed; ``outline`` leaves them as they are."""
    random = np.random.default_rng(derive_seed(seed, row, "order"))

    def ordered(ring: re.Match[str]) -> str:
        points = [point.groups() for point in _POINT.finditer(ring[0])]
        if order == "rows":
            points.sort(key=lambda point: (float(point[1]), float(point[0])))
        else:
            points = [points[number] for number in random.permutation(len(points))]
        return ", ".join(f"[{x}, {y}]" for x, y in points)

    return text if order == "outline" else _RING.sub(ordered, text)
