"""Rewards for places drawn in words: overlap with the true region, nearness of the centres, readable text.

A reward reads texts alone, no model: what an answer says, rasterised, against the truth. A text that is not well formed
earns nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from talking_points.grounding.boundaries import boundary_f
from talking_points.grounding.grammar import UnreadableError, read_box, read_point, read_strict
from talking_points.grounding.outlines import box_to_pixels
from talking_points.grounding.rasters import (
    box_iou,
    centroid,
    decode_mask,
    diagonal,
    iou,
    mask_box,
    outlines_box,
    rasterise,
)
from talking_points.records import Box, Rle

IOU_STEPS = tuple(float(step) for step in np.arange(0.5, 1.0, 0.05).round(2))


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


@dataclass(frozen=True)
class Truth:
    """What an answer is compared with: the region's mask, at any size, and its box in shares of the image's size."""

    mask: Rle
    box: Box


@dataclass(frozen=True)
class ReadAnswer:
    """A well-formed answer: the mask of its outlines, its box in shares of the image's size, or its point."""

    mask: Rle | None = None
    box: Box | None = None
    point: tuple[float, float] | None = None
    points: int = 0


def read_answer(text: str, kind: str, truth: Truth) -> ReadAnswer | None:
    """What a text says as the answer to a kind of question; None where it is not well formed."""
    height, width = truth.mask["size"]
    try:
        if kind.endswith("_to_box"):
            return ReadAnswer(box=box_to_pixels(read_box(text), 1, 1))
        if kind.endswith("_to_point"):
            return ReadAnswer(point=read_point(text))
    except UnreadableError:
        return None
    outlines = read_strict(text).outlines
    if outlines is None:
        return None
    return ReadAnswer(rasterise(outlines, width, height), outlines_box(outlines, 1, 1), points=outlines.point_count)


def _iou(answer: ReadAnswer, truth: Truth) -> float:
    return 0.0 if answer.mask is None else iou(truth.mask, answer.mask)


def _iou_steps(answer: ReadAnswer, truth: Truth) -> float:
    """The share of the thresholds 0.5, 0.55, ... 0.95 that the overlap reaches."""
    return float(np.mean(_iou(answer, truth) >= np.array(IOU_STEPS)))


def _centroid(answer: ReadAnswer, truth: Truth) -> float:
    return 0.0 if answer.mask is None else centroid_reward(truth.mask, answer.mask)


def _boundary(answer: ReadAnswer, truth: Truth) -> float:
    return 0.0 if answer.mask is None else boundary_f(truth.mask, answer.mask)


def _box_iou(answer: ReadAnswer, truth: Truth) -> float:
    return 0.0 if answer.box is None else box_iou(truth.box, answer.box)


def _point_inside(answer: ReadAnswer, truth: Truth) -> float:
    if answer.point is None:
        return 0.0
    height, width = truth.mask["size"]
    column, row = (min(int(value * side), side - 1) for value, side in zip(answer.point, (width, height), strict=True))
    return float(decode_mask(truth.mask)[row, column])


REWARDS: dict[str, Callable[[ReadAnswer, Truth], float]] = {
    "iou": _iou,
    "iou_steps": _iou_steps,
    "centroid": _centroid,
    "boundary": _boundary,
    "format": lambda answer, truth: 1.0,
    "box_iou": _box_iou,
    "point_inside": _point_inside,
}
"""Terms by name, each from 0 to 1. A term that does not fit the kind of answer is 0, but ``box_iou`` is also taken of
the box round outlines."""

DEFAULT_REWARDS = {"iou": 1.0, "centroid": 0.1, "format": 0.1}


def reward_answer(answer: ReadAnswer | None, truth: Truth, weights: Mapping[str, float]) -> float:
    """The weighted sum of the terms; 0 for an answer that is not well formed."""
    if answer is None:
        return 0.0
    return sum(weight * REWARDS[name](answer, truth) for name, weight in weights.items())
