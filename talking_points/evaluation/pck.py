"""Percentage of Correct Keypoints, and its mean.

Two definitions go by the name mPCK. A score carries the one it was computed by, and scores of different
definitions are never compared:

* ``talking_points``: distances are taken after dividing by the image's width and height; mPCK is the mean of
  PCK@0.1 and PCK@0.2 (paper, section 4 and appendix A.4).
* ``mp100``: distances are divided by the longer side of the object's box; mPCK is the mean over five thresholds
  (the convention of category-agnostic pose estimation on MP-100).

A keypoint is correct when its distance is *below* the threshold. Keypoints are pooled: every point counts once,
whatever image or category it is from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from talking_points.examples.points import Floats

Normalizer = Literal["image_wh", "bbox_max_side"]


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
