"""What trained models answer about sets of points, from cached features, without anything that trains them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import AutoModel

from talking_points.config import ConfigError
from talking_points.examples.config import FeatureConfig
from talking_points.examples.described_poses import DESCRIBED
from talking_points.examples.features import PointFeatures
from talking_points.examples.points import Floats, PointExample, PointSet
from talking_points.hub_commits import pinned
from talking_points.models.answerer import PointAnswerer
from talking_points.models.capellm.conversation import Query
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.model_folders import loading
from talking_points.processes import process_state
from talking_points.step_progress import follow_each

Pointing = PointLocalizer | PointAnswerer
"""What finds a description in an image."""


def load_pointing(place: str) -> Pointing:
    """The localizer or answerer at ``place``, a folder or a repository. Raises ``ConfigError`` for another model."""
    with loading(place, "Point Answerer or Point Localizer"):
        model = AutoModel.from_pretrained(place, revision=pinned(place) or "main", trust_remote_code=False)
    if not isinstance(model, Pointing):
        raise ConfigError(f"expected a Point Answerer or a Point Localizer at {place}, found a {type(model).__name__}")
    return model.eval()


def answer_points(model: PointAnswerer, points: PointSet, shown: Sequence[PointExample], what: str) -> Floats:
    """As ``localize_points``, by an answerer, which is asked for each text in the whole of the ``shown`` image."""
    found = np.zeros((len(points), 2))
    by_image: dict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(shown):
        by_image[example.image].append(place)
    for key, image in follow_each(points.decode(by_image), what, unit="image"):
        places = by_image[key]
        queries = [Query(DESCRIBED, points.examples[place].text) for place in places]
        pixels = model.answer([image] * len(places), queries)
        found[places] = pixels / np.array([shown[place].size for place in places])
    return found * points.sizes


def localize_points(
    model: Pointing,
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
    if isinstance(model, PointAnswerer):
        return answer_points(model, points, shown, what)
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
