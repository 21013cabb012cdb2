"""Rewards for regions drawn in words: overlap with the true region, nearness of the centres, readable text.

A reward reads texts alone, no model: what an answer says, rasterised, against the truth. A text that is not well formed
earns nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from talking_points.grounding.rasters import centroid, diagonal, iou, mask_box
from talking_points.sources.coco_parts import Rle


@dataclass(frozen=True)
class RewardWeights:
    """What each term counts."""

    iou: float = 1.0
    centroid: float = 0.1
    format: float = 0.1


def centroid_reward(truth: Rle, prediction: Rle) -> float:
    """1 where the centroids of both masks agree, falling to 0 at the diagonal of the true mask's box.

    0 for an empty mask on either side.
    """
    true, found = centroid(truth), centroid(prediction)
    if true is None or found is None:
        return 0.0
    return max(0.0, 1 - math.dist(true, found) / diagonal(mask_box(truth)))


def mask_reward(truth: Rle, prediction: Rle | None, weights: RewardWeights | None = None) -> float:
    """The weighted sum of IoU, centroid and format; 0 for None, an answer that is not well formed."""
    if prediction is None:
        return 0.0
    weights = weights or RewardWeights()
    terms = weights.iou * iou(truth, prediction) + weights.centroid * centroid_reward(truth, prediction)
    return terms + weights.format
