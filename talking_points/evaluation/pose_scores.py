"""PCK of named keypoints as category-agnostic pose estimation counts it, and what it is compared with.

``cape``: the mean over objects of each object's share of correct keypoints, at thresholds of the box's longer side;
what the published tables give. ``pooled``: every keypoint counts once. ``by category``: objects within a category,
then categories. Distances are in pixels of the image, compared in float32 and strictly, as the official code does.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talking_points.evaluation.statistics import bootstrap_interval, compare_pairs
from talking_points.examples.keypoints import PoseExample

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AskedPoints:
    """Every labelled keypoint of some objects, in their order.

    objects: the objects; owner (N,): which of them a point is of; index (N,): its place in the object's set.
    """

    objects: Sequence[PoseExample]
    owner: NDArray[np.intp]
    index: NDArray[np.intp]

    @classmethod
    def of(cls, objects: Sequence[PoseExample]) -> AskedPoints:
        """All labelled keypoints; objects without one are left out."""
        kept = [one for one in objects if one.visible.any()]
        pairs = [(row, place) for row, one in enumerate(kept) for place in np.flatnonzero(one.visible)]
        owner, index = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        return cls(kept, owner, index)

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def names(self) -> list[str]:
        """The name of every point."""
        pairs = zip(self.owner, self.index, strict=True)
        return [self.objects[row].keypoints.names[place] for row, place in pairs]

    @property
    def truth(self) -> Floats:
        """True places (N, 2), pixels."""
        return np.array([self.objects[row].points[place] for row, place in zip(self.owner, self.index, strict=True)])

    @property
    def mirror_truth(self) -> Floats:
        """Where the keypoint of the other side is (N, 2); infinite where it is not labelled or there is none."""
        found = []
        for row, place in zip(self.owner, self.index, strict=True):
            one = self.objects[row]
            other = one.keypoints.mirror()[place]
            labelled = other != place and one.visible[other]
            found.append(one.points[other] if labelled else (np.inf, np.inf))
        return np.array(found, dtype=np.float64).reshape(-1, 2)

    @property
    def images(self) -> list[str]:
        """The image of every object."""
        return [one.image for one in self.objects]

    def distances(self, places: ArrayLike, truth: ArrayLike | None = None) -> NDArray[np.float32]:
        """Distances (N,) of places (N, 2) in shares of the box's longer side, float32; infinite for no place."""
        sides = np.array([max(one.box[2:]) for one in self.objects])[self.owner]
        with np.errstate(invalid="ignore"):
            away = np.linalg.norm(np.asarray(places) - (self.truth if truth is None else np.asarray(truth)), axis=1)
        return np.where(np.isfinite(away), away / sides, np.inf).astype(np.float32)

    def per_object(self, correct: ArrayLike) -> Floats:
        """The mean of values (N,) over each object's points: (objects,)."""
        counts = np.bincount(self.owner, minlength=len(self.objects))
        return np.bincount(self.owner, np.asarray(correct, float), len(self.objects)) / np.maximum(counts, 1)

    def some(self, chosen: NDArray[np.bool_]) -> tuple[AskedPoints, NDArray[np.bool_]]:
        """The points that are ``chosen`` (N,) with their objects, and the same mask for values of points."""
        rows = np.unique(self.owner[chosen])
        place = np.full(len(self.objects), -1)
        place[rows] = np.arange(len(rows))
        return AskedPoints([self.objects[row] for row in rows], place[self.owner[chosen]], self.index[chosen]), chosen


def correct_at(distance: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Which distances (N,) are below a threshold, strictly and in float32."""
    return distance < np.float32(threshold)


def cape(points: AskedPoints, distance: NDArray[np.float32]) -> dict[str, float]:
    """PCK in percent at every threshold and their mean, averaged over objects."""
    found = {f"pck@{t:g}": 100 * float(points.per_object(correct_at(distance, t)).mean()) for t in THRESHOLDS}
    return {**found, "mpck": float(np.mean(list(found.values())))}


def pooled(distance: NDArray[np.float32]) -> dict[str, float]:
    """The same with every keypoint counted once."""
    found = {f"pck@{t:g}": 100 * float(correct_at(distance, t).mean()) for t in THRESHOLDS}
    return {**found, "mpck": float(np.mean(list(found.values())))}


def by_category(points: AskedPoints, distance: NDArray[np.float32]) -> tuple[dict[str, float], dict[str, float]]:
    """The mean over categories of ``cape`` within each, and PCK@0.2 of each category by name."""
    owners = np.array([one.category for one in points.objects])
    names = {one.category: one.category_name for one in points.objects}
    each = {}
    for category in sorted(names):
        own, chosen = points.some((owners == category)[points.owner])
        each[category] = cape(own, distance[chosen])
    mean = {key: float(np.mean([one[key] for one in each.values()])) for key in next(iter(each.values()))}
    return mean, {f"{names[category]} ({category})": found["pck@0.2"] for category, found in each.items()}


def scores(points: AskedPoints, places: ArrayLike, thresholds: Sequence[float] = (0.1, 0.2)) -> dict[str, Any]:
    """All averages of some answers, with intervals of ``cape`` that draw images, and the side swaps.

    ``nearer_to_mirror``: percentage of the points with a labelled partner whose answer is nearer to the partner;
    ``gain_of_swapping``: by how much PCK@0.1 grows if those count for the partner.
    """
    distance = points.distances(places)
    mean, categories = by_category(points, distance)
    other = points.distances(places, points.mirror_truth)
    paired = np.isfinite(points.mirror_truth).all(-1)
    swapped = cape(points, np.minimum(distance, other))["pck@0.1"] - cape(points, distance)["pck@0.1"]
    return {
        "cape": cape(points, distance),
        "pooled": pooled(distance),
        "by_category": mean,
        "categories": categories,
        "intervals": {f"pck@{t:g}": interval(points, distance, t) for t in thresholds},
        "unparsed": 100 * float((~np.isfinite(np.asarray(places)).all(-1)).mean()),
        "nearer_to_mirror": 100 * float((other < distance)[paired].mean()) if paired.any() else 0.0,
        "gain_of_swapping": swapped,
    }


def interval(points: AskedPoints, distance: NDArray[np.float32], threshold: float) -> list[float]:
    """A 95 % interval of ``cape`` at a threshold, in percent."""
    found = bootstrap_interval(100 * points.per_object(correct_at(distance, threshold)), points.images)
    return [found.low, found.high]


def difference(points: AskedPoints, before: ArrayLike, after: ArrayLike, threshold: float = 0.1) -> dict[str, Any]:
    """``after`` minus ``before`` in points of PCK on the same keypoints, with its interval and p-value."""
    shares = [100 * points.per_object(correct_at(points.distances(one), threshold)) for one in (before, after)]
    found = compare_pairs(shares[0], shares[1], points.images)
    interval = [found.interval.low, found.interval.high]
    return {"difference": found.difference, "interval": interval, "p_value": found.p_value, "objects": found.points}


def episodes(
    points: AskedPoints, count: int = 200, queries: int = 15, seed: int = 1
) -> tuple[list[tuple[int, int]], AskedPoints]:
    """(support, query) of ``count`` episodes per category, drawn as the support-based methods do (Python's random).

    A category with fewer objects than an episode needs takes those it has. Returns the points too, for ``pair_pck``.
    """
    generator = random.Random(seed)
    by_id: dict[int, list[int]] = {}
    for row, one in enumerate(points.objects):
        by_id.setdefault(one.category, []).append(row)
    pairs = []
    for category in sorted(by_id):
        own = by_id[category]
        for _ in range(count if len(own) > 1 else 0):
            support, *others = generator.sample(own, min(queries + 1, len(own)))
            pairs += [(support, query) for query in others]
    return pairs, points


def pair_pck(points: AskedPoints, places: ArrayLike, pairs: Sequence[tuple[int, int]]) -> dict[str, float]:
    """PCK over episodes: a keypoint counts where support and query are labelled; pairs without one are left out."""
    distance = points.distances(places)
    rows: dict[int, list[int]] = {}
    for number, owner in enumerate(points.owner.tolist()):
        rows.setdefault(owner, []).append(number)
    found: dict[float, list[float]] = {threshold: [] for threshold in THRESHOLDS}
    for support, query in pairs:
        own = [number for number in rows[query] if points.objects[support].visible[points.index[number]]]
        for threshold in THRESHOLDS if own else ():
            found[threshold].append(float(correct_at(distance[own], threshold).mean()))
    result = {f"pck@{t:g}": 100 * float(np.mean(values)) if values else float("nan") for t, values in found.items()}
    return {**result, "mpck": float(np.mean(list(result.values()))), "pairs": float(len(found[0.2]))}


def box_centres(points: AskedPoints) -> Floats:
    """The middle of every object's box (N, 2): what can be said without looking."""
    centres = np.array([(one.box[0] + one.box[2] / 2, one.box[1] + one.box[3] / 2) for one in points.objects])
    return centres[points.owner]


def mean_pose_places(points: AskedPoints, poses: Mapping[str, Sequence[float]]) -> Floats:
    """Where the mean pose of training puts every point (N, 2); unseen names get the mean of all."""
    sides = np.array([max(one.box[2:]) for one in points.objects])[points.owner, None]
    places = np.array([poses.get(name, poses[""]) for name in points.names])
    return np.asarray(box_centres(points) + places * sides)
