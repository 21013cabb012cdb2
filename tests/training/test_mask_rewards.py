"""Rewards of regions: each term by itself, and what earns nothing."""

from __future__ import annotations

import numpy as np
import pytest

from talking_points.grounding.rasters import decode_mask, empty_mask, encode_mask
from talking_points.training.mask_rewards import (
    ReadAnswer,
    RewardWeights,
    Truth,
    centroid_reward,
    mask_reward,
    reward_answer,
)


def square(x: int, y: int, side: int) -> dict:
    mask = np.zeros((40, 60), np.bool_)
    mask[y : y + side, x : x + side] = True
    return dict(encode_mask(mask))


def test_the_centroid_counts_by_its_distance_in_diagonals() -> None:
    truth = square(10, 10, 10)
    assert centroid_reward(truth, truth) == 1
    assert centroid_reward(truth, square(13, 14, 10)) == pytest.approx(1 - 5 / np.hypot(10, 10))
    assert centroid_reward(truth, square(40, 10, 10)) == 0  # farther than the diagonal
    assert centroid_reward(truth, empty_mask(60, 40)) == centroid_reward(empty_mask(60, 40), truth) == 0


def test_terms_are_weighed() -> None:
    truth = square(10, 10, 10)
    assert mask_reward(truth, truth) == pytest.approx(1.2)
    assert mask_reward(truth, truth, RewardWeights(2, 3, 4)) == 9
    assert mask_reward(truth, square(40, 10, 10)) == pytest.approx(0.1)  # readable, and no more
    assert mask_reward(truth, None) == 0


def test_a_boundary_counts_where_its_area_hardly_does() -> None:
    truth = Truth(square(10, 5, 30), (0.1, 0.1, 0.9, 0.9))
    whole, rounded = decode_mask(truth.mask).copy(), decode_mask(truth.mask).copy()
    rounded[5:15, 10:20] = False
    same, cut = (ReadAnswer(mask=dict(encode_mask(mask))) for mask in (whole, rounded))
    assert reward_answer(same, truth, {"boundary": 2.0}) == 2
    assert reward_answer(cut, truth, {"boundary": 1.0}) < reward_answer(cut, truth, {"iou": 1.0}) < 0.9
    assert reward_answer(ReadAnswer(point=(0.5, 0.5)), truth, {"boundary": 1.0}) == 0
