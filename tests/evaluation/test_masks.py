"""Scores of masks and boxes against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from talking_points.evaluation.masks import score_boxes, score_masks
from talking_points.grounding.rasters import encode_mask
from talking_points.records import Mask

small = arrays(np.bool_, (6, 5))


def square(x: int, y: int, side: int, shape: tuple[int, int] = (100, 100)) -> Mask:
    mask = np.zeros(shape, np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


@given(st.lists(st.tuples(small, st.none() | small), min_size=1, max_size=6))
def test_scores_are_those_of_the_pixels(pairs: list) -> None:
    scores = score_masks(
        [encode_mask(truth) for truth, _ in pairs],
        [None if found is None else encode_mask(found) for _, found in pairs],
    )
    pixels = [(truth, np.zeros_like(truth) if found is None else found) for truth, found in pairs]
    both = np.array([(truth & found).sum() for truth, found in pixels])
    either = np.array([(truth | found).sum() for truth, found in pixels])
    iou = np.array([a / b if b else 1 for a, b in zip(both, either, strict=True)])
    assert scores.iou == pytest.approx(iou)
    assert scores.giou == pytest.approx(100 * iou.mean())
    assert scores.ciou == pytest.approx(100 * both.sum() / either.sum() if either.sum() else 100)
    assert scores.precision(0.5) == pytest.approx(100 * (iou >= 0.5).mean())


def test_large_objects_dominate_the_cumulative_score_only() -> None:
    large, speck = encode_mask(square(0, 0, 90)), encode_mask(square(95, 95, 1))
    scores = score_masks([large, speck], [large, None])
    assert scores.giou == scores.precision(0.9) == 50
    assert scores.ciou > 99.9


def test_nothing_to_score_has_no_score() -> None:
    scores = score_masks([], [])
    assert all(map(math.isnan, (scores.ciou, scores.giou, scores.precision(0.5), score_boxes([], []).accuracy())))


def test_lists_and_masks_must_match() -> None:
    rle = encode_mask(square(0, 0, 5))
    with pytest.raises(ValueError, match="shorter"):
        score_masks([rle], [])
    with pytest.raises(ValueError, match="one size"):
        score_masks([rle], [encode_mask(square(0, 0, 5, (50, 50)))])
    with pytest.raises(ValueError, match="shorter"):
        score_boxes([(0, 0, 1, 1)], [])


def test_boxes_at_exactly_one_half_count_by_one_rule_and_not_by_the_other() -> None:
    scores = score_boxes([(0, 0, 20, 10)] * 3, [(0, 0, 10, 10), (0, 0, 20, 10), None])
    assert scores.iou.tolist() == [0.5, 1, 0]
    assert scores.accuracy() == pytest.approx(200 / 3)
    assert scores.accuracy_above() == pytest.approx(100 / 3)
