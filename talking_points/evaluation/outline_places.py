"""Points out of outlines, against those of the Localizer: one answer to "where?" judged as another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from talking_points.evaluation.pck import TALKING_POINTS, PckDefinition, distances, mpck, pck
from talking_points.examples.points import Floats
from talking_points.grounding.outlines import Outlines
from talking_points.grounding.rasters import centroid, decode_mask, rasterise


def find_places(outlines: Sequence[Outlines], sizes: Sequence[tuple[int, int]]) -> dict[str, Floats]:
    """Two points of each region, (N, 2) in pixels, integers being pixel centres; NaN where it has no pixel.

    ``sizes``: width and height of each image. "centroid" is the mean of the region's pixels, which may lie outside it;
    "innermost" is the pixel farthest from its border, the topmost, then leftmost of several.
    """
    places: dict[str, list[tuple[float, float]]] = {"centroid": [], "innermost": []}
    for region, (width, height) in zip(outlines, sizes, strict=True):
        runs = rasterise(region, width, height)
        middle = centroid(runs)
        if middle is None:
            for found in places.values():
                found.append((np.nan, np.nan))
            continue
        places["centroid"].append((middle[0] - 0.5, middle[1] - 0.5))
        padded = np.pad(decode_mask(runs).view(np.uint8), 1)
        depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        # Roots of whole numbers, which OpenCV rounds in more than one way.
        row, column = np.unravel_index(int(np.argmax(np.rint(depth.astype(np.float64) ** 2))), depth.shape)
        places["innermost"].append((float(column), float(row)))
    return {name: np.array(found, dtype=np.float64).reshape(-1, 2) for name, found in places.items()}


def score_places(
    places: Mapping[str, Floats],
    truth: Floats,
    sizes: Sequence[tuple[int, int]],
    definition: PckDefinition = TALKING_POINTS,
) -> dict[str, dict[str, float]]:
    """mPCK, and PCK at every threshold, of each way to find a point; a place that is NaN is never right."""
    scores = {}
    for name, found in places.items():
        away = distances(found, truth, np.array(sizes, dtype=np.float64).reshape(-1, 2))
        scores[name] = {"mPCK": mpck(away, definition)} | {
            f"PCK@{threshold:g}": pck(away, threshold) for threshold in definition.thresholds
        }
    return scores
