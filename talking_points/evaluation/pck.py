"""Percentage of Correct Keypoints, its mean, and how sure one may be of it.

Two definitions go by the name mPCK. A score carries the one it was computed by, and scores of different
definitions are never compared:

* ``talking_points``: distances are taken after dividing by the image's width and height; mPCK is the mean of
  PCK@0.1 and PCK@0.2 (paper, section 4 and appendix A.4).
* ``mp100``: distances are divided by the longer side of the object's box; mPCK is the mean over five thresholds
  (the convention of category-agnostic pose estimation on MP-100).

A keypoint is correct when its distance is *below* the threshold. Keypoints are pooled: every point counts once,
whatever image or category it is from. Points of one image share their mistakes, so intervals and tests draw images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Normalizer = Literal["image_wh", "bbox_max_side"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PckDefinition:
    """thresholds: those reported; mean_over: those whose mean is mPCK; normalizer: what a distance is divided by."""

    name: str
    thresholds: tuple[float, ...]
    mean_over: tuple[float, ...]
    normalizer: Normalizer

    def __post_init__(self) -> None:
        if not self.mean_over or not set(self.mean_over) <= set(self.thresholds):
            raise ValueError(f"mean_over must be some of the thresholds {self.thresholds}, found {self.mean_over}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PckDefinition:
        """The definition that ``to_dict`` wrote."""
        return cls(values["name"], tuple(values["thresholds"]), tuple(values["mean_over"]), values["normalizer"])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


TALKING_POINTS = PckDefinition("talking_points", (0.05, 0.1, 0.2), (0.1, 0.2), "image_wh")
MP100 = PckDefinition("mp100", (0.05, 0.1, 0.15, 0.2, 0.25), (0.05, 0.1, 0.15, 0.2, 0.25), "bbox_max_side")
DEFINITIONS = {definition.name: definition for definition in (TALKING_POINTS, MP100)}


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


def distances(
    predicted: ArrayLike,
    truth: ArrayLike,
    sizes: ArrayLike,
    boxes: ArrayLike | None = None,
    normalizer: Normalizer = "image_wh",
) -> Floats:
    """Normalised Euclidean distances (N,) of predicted to true points, both (N, 2) in pixels.

    ``sizes`` (N, 2) are width and height of the images; ``boxes`` (N, 4), [x, y, width, height] of the objects, are
    needed by ``bbox_max_side``. A prediction that is not finite is infinitely far away.
    """
    points, targets = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if points.shape != targets.shape or points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            f"expected predictions and truths of one shape (N, 2), found {points.shape} and {targets.shape}"
        )
    if normalizer == "image_wh":
        scale = np.asarray(sizes, dtype=np.float64)
    elif boxes is None:
        raise ValueError("normalizer 'bbox_max_side' needs the objects' boxes: pass boxes (N, 4)")
    else:
        scale = np.asarray(boxes, dtype=np.float64)[:, 2:].max(axis=1, keepdims=True)
    if (scale <= 0).any():
        raise ValueError("expected image sizes and box sides above 0: drop the rows without them")
    found = np.sqrt((((points - targets) / scale) ** 2).sum(axis=1))
    return np.where(np.isfinite(found), found, np.inf)


def pck(distance: ArrayLike, threshold: float) -> float:
    """Percentage of distances (N,) strictly below the threshold; NaN without points."""
    values = np.asarray(distance, dtype=np.float64)
    return float(100 * (values < threshold).mean()) if values.size else float("nan")


def point_scores(distance: ArrayLike, definition: PckDefinition = TALKING_POINTS) -> Floats:
    """What each point contributes to mPCK: (N,) in [0, 100], whose mean is mPCK."""
    values = np.asarray(distance, dtype=np.float64)[:, None]
    return 100 * (values < np.asarray(definition.mean_over)).mean(axis=1)


def mpck(distance: ArrayLike, definition: PckDefinition = TALKING_POINTS) -> float:
    """Mean of the PCK values that the definition averages; NaN without points."""
    return float(np.mean([pck(distance, threshold) for threshold in definition.mean_over]))


def mean_of_pck(percentages: Sequence[float]) -> float:
    """mPCK from published PCK values, as in the paper's tables: (65.60, 92.05) gives 78.825."""
    return float(np.mean(percentages))


def bootstrap_interval(
    scores: ArrayLike, images: Sequence[str], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of the pooled mean of scores (N,), drawing whole images with replacement."""
    low, high = np.percentile(
        _resampled_means(np.asarray(scores, dtype=np.float64), images, draws, seed),
        [50 * (1 - level), 50 * (1 + level)],
    )
    return Interval(float(low), float(high))


def paired_difference(
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


def _resampled_means(scores: Floats, images: Sequence[str], draws: int, seed: int) -> Floats:
    sums, counts = _per_image(scores, images)
    weights = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws)
    return (weights @ sums) / (weights @ counts)


def _per_image(scores: Floats, images: Sequence[str]) -> tuple[Floats, Floats]:
    """Sum of scores and number of points per image."""
    if len(scores) != len(images) or not len(scores):
        raise ValueError(f"expected as many images as scores and at least one, found {len(images)} and {len(scores)}")
    _, index = np.unique(np.asarray(images), return_inverse=True)
    return np.bincount(index, weights=scores).astype(np.float64), np.bincount(index).astype(np.float64)
