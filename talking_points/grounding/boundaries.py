"""How well two boundaries agree, whatever lies inside them."""

from __future__ import annotations

import math

import cv2
import numpy as np

from talking_points.grounding.rasters import area, decode_mask, mask_box, overlap
from talking_points.records import Box, Mask, Rle

BOUNDARY_TOLERANCE = 0.01
"""Of the image's diagonal: how far apart two boundaries may be and still agree."""


def boundary_f(truth: Rle, prediction: Rle | None, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """F measure of two boundaries (Perazzi et al. 2016), in [0, 1]: 1 for two empty masks, 0 for one.

    A boundary pixel is found when the other boundary lies within ``tolerance`` of the image's diagonal.
    Raises ``ValueError`` for masks of different sizes.
    """
    if prediction is None:
        return 0.0 if area(truth) else 1.0
    overlap(truth, prediction)  # checks the sizes
    if not area(truth) or not area(prediction):
        return float(area(truth) == area(prediction))
    height, width = truth["size"]
    reach = max(1.0, tolerance * math.hypot(height, width))
    window = _window(mask_box(truth), mask_box(prediction))
    true, found = (_boundary(decode_mask(rle)[window]) for rle in (truth, prediction))
    precision, recall = _share_near(found, true, reach), _share_near(true, found, reach)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _window(first: Box, second: Box) -> tuple[slice, slice]:
    """Rows and columns that hold both boxes."""
    left, top = min(first[0], second[0]), min(first[1], second[1])
    right, bottom = max(first[0] + first[2], second[0] + second[2]), max(first[1] + first[3], second[1] + second[3])
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _boundary(mask: Mask) -> Mask:
    """Foreground pixels beside background or the window's border."""
    inside = np.pad(mask.view(np.uint8), 1)
    core = cv2.erode(inside, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return (inside > core)[1:-1, 1:-1]


def _share_near(boundary: Mask, other: Mask, reach: float) -> float:
    distance = cv2.distanceTransform((~other).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distance[boundary] <= reach).mean())
