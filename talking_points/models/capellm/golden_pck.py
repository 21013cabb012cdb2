"""The benchmark's PCK as the official code computes it, against recorded arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_pck(cases: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Errors of per-image, averaged and pooled PCK and of its area, by name, relative to 1 (they are shares)."""
    found: list[tuple[str, float]] = []
    for number, case in enumerate(cases):
        images = case["images"]
        thresholds = list(case["official_mean_of_images"])
        distances = [_distances(image) for image in images]
        own = [{key: _share(part, float(key)) for key in thresholds} for part in distances]
        for place, (image, shares) in enumerate(zip(images, own, strict=True)):
            found.append((f"pck{number}.image{place}", _difference(shares, image["pck"])))
        seen = [shares for shares, part in zip(own, distances, strict=True) if len(part)]
        pooled = np.concatenate([_distances(image, np.float64) for image in images])  # recorded in float64
        every = {key: float(np.mean([shares[key] for shares in own])) for key in thresholds}
        labelled = {key: float(np.mean([shares[key] for shares in seen])) if seen else math.nan for key in thresholds}
        points = {key: _share(pooled, float(key)) for key in thresholds}
        for name, shares in (
            ("official_mean_of_images", every),
            ("mean_of_images_with_visible", labelled),
            ("pooled_points", points),
        ):
            found.append((f"pck{number}.{name}", _difference(shares, case[name])))
        area = float(np.mean([_share(pooled, step / 20) for step in range(20)]))
        for name, value in (
            ("official_mpck", float(np.mean(list(every.values())))),
            ("pooled_mpck", float(np.mean(list(points.values())))),
            ("pooled_auc_20", area),
        ):
            found.append((f"pck{number}.{name}", _apart(value, case[name])))
    return found


def _distances(image: Mapping[str, Any], dtype: type[np.floating] = np.float32) -> NDArray[np.floating]:
    """Distances of labelled keypoints as shares of the box's longer side, float32 as the official code compares."""
    visible = np.asarray(image["visible"], bool)
    predicted, truth = (np.asarray(image[name], dtype).reshape(-1, 2) for name in ("predicted", "truth"))
    return np.asarray(np.linalg.norm((predicted - truth) / dtype(image["longer_side"]), axis=-1)[visible])


def _share(distances: NDArray[np.floating], threshold: float) -> float:
    return float((distances < distances.dtype.type(threshold)).mean()) if len(distances) else 0.0


def _difference(shares: Mapping[str, float], recorded: Mapping[str, float | None]) -> float:
    return max(_apart(shares[key], recorded[key]) for key in recorded)


def _apart(one: float, recorded: float | None) -> float:
    """The difference; infinite where one of them alone is no number, as a mean over nothing is none."""
    if recorded is None or math.isnan(recorded) or math.isnan(one):
        return 0.0 if math.isnan(one) and (recorded is None or math.isnan(recorded)) else math.inf
    return abs(one - recorded)
