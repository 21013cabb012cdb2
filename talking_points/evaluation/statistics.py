"""How sure one may be of a mean: bootstrap intervals and paired tests, which draw images as points of one agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from talking_points.examples.points import Floats


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a mean, in the units of the mean."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean of b - a in points of mPCK, its interval, the p-value of "there is no difference"; points: how many."""

    difference: float
    interval: Interval
    p_value: float
    points: int


def bootstrap_interval(
    scores: ArrayLike, images: Sequence[str], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of the pooled mean of scores (N,), drawing whole images with replacement."""
    low, high = np.percentile(
        _resample_means(np.asarray(scores, dtype=np.float64), images, draws, seed),
        [50 * (1 - level), 50 * (1 + level)],
    )
    return Interval(float(low), float(high))


def bootstrap_ratio(
    parts: ArrayLike, wholes: ArrayLike, images: Sequence[str], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of sum(parts) / sum(wholes), both (N,), drawing whole images with replacement."""
    above, _ = _per_image(np.asarray(parts, np.float64), images)
    below, _ = _per_image(np.asarray(wholes, np.float64), images)
    weights = np.random.default_rng(seed).multinomial(len(above), np.full(len(above), 1 / len(above)), size=draws)
    ratios = (weights @ above) / np.maximum(weights @ below, 1e-12)
    low, high = np.percentile(ratios, [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(low), float(high))


def compare_pairs(
    before: ArrayLike,
    after: ArrayLike,
    images: Sequence[str],
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two sets of scores (N,) of the same points: after minus before.

    The p-value is that of a two-sided sign-flip test: if nothing distinguishes the two, exchanging them in any
    image changes nothing.
    """
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    interval = bootstrap_interval(change, images, level, draws, seed)
    sums, counts = _per_image(change, images)
    flips = np.random.default_rng(seed).choice((-1.0, 1.0), size=(draws, len(sums)))
    null = np.abs(flips @ sums) / counts.sum()
    observed = abs(change.mean())
    # The tolerance keeps equal sums in another order of addition equal.
    p_value = (1 + int((null >= observed - 1e-12 * max(1.0, observed)).sum())) / (1 + draws)
    return PairedDifference(float(change.mean()), interval, p_value, len(change))


def _resample_means(scores: Floats, images: Sequence[str], draws: int, seed: int) -> Floats:
    sums, counts = _per_image(scores, images)
    weights = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws)
    return (weights @ sums) / (weights @ counts)


def _per_image(scores: Floats, images: Sequence[str]) -> tuple[Floats, Floats]:
    """Sum of scores and number of points per image."""
    if len(scores) != len(images) or not len(scores):
        raise ValueError(f"expected as many images as scores and at least one, found {len(images)} and {len(scores)}")
    _, index = np.unique(np.asarray(images), return_inverse=True)
    return np.bincount(index, weights=scores).astype(np.float64), np.bincount(index).astype(np.float64)
