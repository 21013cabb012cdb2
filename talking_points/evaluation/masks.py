"""How well regions were found: masks (referring expression segmentation) and boxes (comprehension).

One sample is one expression with one true region. Masks are run lengths at the size of the image itself. An answer that
could not be read is None: its region is empty, and it stays in every mean. All figures are percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talking_points.examples.points import Floats
from talking_points.grounding.rasters import area, box_iou, overlap
from talking_points.records import Box, Rle

PRECISION_AT = (0.5, 0.6, 0.7, 0.8, 0.9)

Counts = NDArray[np.int64]


def _percent_of(hits: NDArray[Any]) -> float:
    return 100 * float(np.mean(hits)) if len(hits) else math.nan


@dataclass(frozen=True)
class MaskScores:
    """Pixels of the intersection and the union of every sample, int64 (N,)."""

    intersections: Counts
    unions: Counts

    @property
    def iou(self) -> Floats:
        """Intersection over union of every sample, (N,), in [0, 1]; 1 where both masks are empty."""
        return np.where(self.unions > 0, self.intersections / np.maximum(self.unions, 1), 1.0)

    @property
    def ciou(self) -> float:
        """Cumulative (or overall) IoU: the sum of all intersections over that of all unions. Large objects dominate."""
        total = int(self.unions.sum())
        if not len(self.unions):
            return math.nan
        return 100 * int(self.intersections.sum()) / total if total else 100.0

    @property
    def giou(self) -> float:
        """Mean IoU over samples, as LISA calls it; this is not the generalised IoU of boxes."""
        return _percent_of(self.iou)

    def precision(self, threshold: float) -> float:
        """Share of samples with at least this IoU."""
        return _percent_of(self.iou >= threshold)


def score_masks(truths: Sequence[Rle], predictions: Sequence[Rle | None]) -> MaskScores:
    """Compare predicted masks with true ones, pair by pair.

    Raises ``ValueError`` for lists of different lengths and for a mask that has not the size of its truth.
    """
    pairs = [
        (0, area(truth)) if prediction is None else overlap(truth, prediction)
        for truth, prediction in zip(truths, predictions, strict=True)
    ]
    counts = np.array(pairs, np.int64).reshape(-1, 2)
    return MaskScores(counts[:, 0], counts[:, 1])


@dataclass(frozen=True)
class BoxScores:
    """IoU of the continuous boxes of every sample, (N,), in [0, 1]; 0 where no box was read."""

    iou: Floats

    def accuracy(self, threshold: float = 0.5) -> float:
        """Share of samples with at least this IoU."""
        return _percent_of(self.iou >= threshold)

    def accuracy_above(self, threshold: float = 0.5) -> float:
        """Share of samples above this IoU, as some evaluations count."""
        return _percent_of(self.iou > threshold)


def score_boxes(truths: Sequence[Box], predictions: Sequence[Box | None]) -> BoxScores:
    """Compare boxes ``[x, y, width, height]`` pair by pair. Raises ``ValueError`` for lists of different lengths."""
    pairs = zip(truths, predictions, strict=True)
    return BoxScores(np.array([0.0 if found is None else box_iou(truth, found) for truth, found in pairs], np.float64))
