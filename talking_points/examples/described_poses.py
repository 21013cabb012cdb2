"""Described points of a dataset as objects with one keypoint each, so that an answerer can learn from them.

The object is the whole image and the keypoint has the same name in every row: what tells one from another is its
description alone, as for a localizer. Its left and right are the viewer's.
"""

from __future__ import annotations

import numpy as np

from talking_points.examples.keypoints import PoseExample, PoseSet
from talking_points.examples.points import PointExample, load_points
from talking_points.models.capellm.conversation import plain_text
from talking_points.sources.keypoint_sets import KeypointSet

DESCRIBED = "described point"
"""The name under which every row is asked for."""


def load_described(path: str, split: str) -> PoseSet:
    """The rows of a dataset's split. Raises ``ConfigError`` for one that ``load_points`` refuses."""
    points = load_points(path, split)
    examples = [_pose(one) for one in points.examples]
    texts = {
        (pose.keypoints.key, DESCRIBED): plain_text(one.text)
        for pose, one in zip(examples, points.examples, strict=True)
    }
    return PoseSet(examples, points.decode, texts=texts)


def _pose(one: PointExample) -> PoseExample:
    width, height = one.size
    return PoseExample(
        one.id,
        one.image,
        0,
        one.facts.object,
        KeypointSet(f"row {one.id}", (DESCRIBED,), "viewer", ()),
        one.size,
        (0.0, 0.0, float(width), float(height)),
        np.array([one.keypoint]),
        np.array([True]),
    )
