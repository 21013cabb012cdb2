"""What is reached without looking: the figures that a result must stand clear of.

The scene-level phrases of a description give away much of a point: a reader that never sees the image reaches about 70
mPCK on drawn scenes. So every report says how far above these controls a result is.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from talking_points.examples.config import FeatureConfig
from talking_points.examples.inference import Pointing, localize_points
from talking_points.examples.points import Floats, PointExample, PointSet
from talking_points.records import derive_seed


def centre(points: PointSet) -> Floats:
    """The middle of every image: (N, 2) in pixels."""
    return points.sizes / 2


def uniform(points: PointSet, seed: int = 0) -> Floats:
    """A random place in every image, the same one for the same point and seed: (N, 2) in pixels."""
    drawn = [np.random.default_rng(derive_seed(seed, "uniform", example.id)).random(2) for example in points.examples]
    return np.array(drawn).reshape(-1, 2) * points.sizes


def can_shuffle(points: PointSet) -> bool:
    """Whether every point can be shown another's image: none has more than half of the points."""
    return 2 * max(Counter(example.image for example in points.examples).values()) <= len(points)


def other_images(points: PointSet, seed: int = 0) -> list[int]:
    """For every point, one in another image: whose image a text is shown when images are shuffled."""
    images = np.array([example.image for example in points.examples])
    random = np.random.default_rng(seed)
    order = np.concatenate([np.flatnonzero(images == image) for image in random.permutation(np.unique(images))])
    largest = int(np.unique(images, return_counts=True)[1].max())
    if not can_shuffle(points):
        raise ValueError("expected points of at least two images, none with more than half of them, to shuffle images")
    # Points of one image lie side by side, so a shift by the largest group leaves none with its own image.
    shown = np.empty(len(images), dtype=int)
    shown[order] = np.roll(order, -largest)
    return shown.tolist()


def other_points(points: PointSet) -> PointSet:
    """The points that share their image with others, each with the text of another one of them.

    A description that is true of the image and not of the point reaches about as much.
    """
    by_image: dict[str, list[PointExample]] = defaultdict(list)
    for example in points.examples:
        by_image[example.image].append(example)
    groups = (group for group in by_image.values() if len(group) > 1)
    return points.with_texts({own.id: group[place - 1].text for group in groups for place, own in enumerate(group)})


def control_predictions(
    points: PointSet,
    localizer: Pointing,
    features: FeatureConfig,
    text_only: Pointing | None = None,
    seed: int = 0,
) -> dict[str, Floats]:
    """Predictions (N, 2) in pixels of every control.

    ``shuffled_images`` is the localizer with every text shown another image; it is left out where too many points are
    of one image. ``text_only`` is a localizer trained without images on the same texts and budget
    (``LocalizerConfig.blind``); without one the control is left out.
    """
    found = {"centre": centre(points), "uniform": uniform(points, seed)}
    if can_shuffle(points):
        found["shuffled_images"] = localize_points(
            localizer, points, features, images=other_images(points, seed), what="localizing in shuffled images"
        )
    if text_only is not None:
        found["text_only"] = localize_points(text_only, points, features, blind=True, what="localizing without images")
    return found
