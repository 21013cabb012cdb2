"""What trained models answer about sets of points, from cached features, without anything that trains them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import PointFeatures
from talking_points.examples.points import Floats, PointSet
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.processes import process_state
from talking_points.step_progress import follow_each


def localize_points(
    model: PointLocalizer,
    points: PointSet,
    features: FeatureConfig,
    *,
    blind: bool = False,
    images: Sequence[int] | None = None,
    batch_size: int = 32,
    what: str = "localizing",
) -> Floats:
    """Where the model finds each text: (N, 2) in pixels of the point's own image; ``what`` is told on the way.

    ``images`` (N,) shows every text the image of another point: a control that nothing should survive.
    """
    model.to(process_state().device)
    examples = list(points.examples)
    shown = [example if images is None else examples[images[place]] for place, example in enumerate(examples)]
    known = PointFeatures(model, points, features, blind=blind)
    known.prepare()
    found = np.zeros((len(points), 2))
    # Texts about one image side by side share the reading of that image.
    order = sorted(range(len(points)), key=lambda place: shown[place].image)
    for start in follow_each(range(0, len(order), batch_size), what, unit="batch"):
        batch = order[start : start + batch_size]
        image_features, index, _ = known.batch([shown[place] for place in batch])
        texts = [examples[place].text for place in batch]
        pixels = model.localize(None, texts, features=image_features, image_index=index, batch_size=batch_size)
        found[batch] = pixels / np.array([shown[place].size for place in batch])
    return found * points.sizes


def describe_points(
    model: PointDescriptor,
    points: PointSet,
    features: FeatureConfig,
    batch_size: int = 32,
    *,
    withheld: bool = False,
    what: str = "describing",
    **options: Any,
) -> list[str]:
    """Descriptions of all points, greedy by default, from cached features; ``what`` is told on the way."""
    known = PointFeatures(model.to(process_state().device), points, features, withheld=withheld)
    known.prepare()
    texts: dict[str, str] = {}
    # Points of one image side by side share the reading of their image.
    order = sorted(points.examples, key=lambda example: example.image)
    for start in follow_each(range(0, len(order), batch_size), what, unit="batch"):
        batch = order[start : start + batch_size]
        found, index, point_features = known.batch(batch)
        written = model.describe(
            None,
            [example.keypoint for example in batch],
            features=found,
            image_index=index,
            point_features=point_features,
            batch_size=batch_size,
            **options,
        )
        texts.update(zip((example.id for example in batch), written, strict=True))
    return [texts[example.id] for example in points.examples]
