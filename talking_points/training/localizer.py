"""Training of the Point Localizer (paper, sections 3.3 and 4.1): mean squared error on normalised coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import PointFeatures
from talking_points.examples.points import PointExample, PointSet
from talking_points.models.localizer import PointLocalizer
from talking_points.models.omg_llava.chat import Turn
from talking_points.processes import process_state
from talking_points.training.config import LocalizerConfig
from talking_points.training.precision import prepare_to_train
from talking_points.training.rewards import Rewarded, mean_pck
from talking_points.training.trainer import PointTrainer


class LocalizerTrainer(PointTrainer):
    """Trains what the model's configuration says on equation 1."""

    def turn(self, example: PointExample) -> Turn:
        assert isinstance(self.features.model, PointLocalizer)
        return self.features.model.turns([example.text])[0]

    def inputs(self, examples: Sequence[PointExample], features: PointFeatures) -> dict[str, Any]:
        found, image_index, _ = features.batch(examples)
        return {
            "features": found,
            "image_index": image_index,
            "turns": self.turns(examples),
            "points": [example.keypoint for example in examples],
        }


def train_localizer(
    model: PointLocalizer,
    train: PointSet,
    held_out: PointSet,
    config: LocalizerConfig,
    features: FeatureConfig,
    output: Path,
    seed: int = 0,
) -> dict[str, float]:
    """Train and save a localizer into ``output``; returns the last logged values.

    The running metric is mPCK on held-out points. ``config.blind`` trains the text-only control. Run again after an
    interruption it goes on from the last complete checkpoint.
    """
    prepare_to_train(model, config)
    if config.shuffled:
        train = train.shuffled_texts(seed)
    own = PointFeatures(model, train, features, blind=config.blind)
    own.prepare()
    evaluated = held_out.sample(config.eval_points, seed)

    def metric() -> float:
        predicted = localized(model, evaluated, features, blind=config.blind)
        return 100 * float(mean_pck(rewarded(evaluated.examples, predicted)).mean())

    trainer = LocalizerTrainer(model, own, config, output, seed, metric)
    return trainer.run()


def localized(
    model: PointLocalizer,
    points: PointSet,
    features: FeatureConfig,
    *,
    blind: bool = False,
    images: Sequence[int] | None = None,
    batch_size: int = 32,
) -> NDArray[np.float64]:
    """Where the model finds each text: (N, 2) in pixels of the point's own image.

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
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        image_features, index, _ = known.batch([shown[place] for place in batch])
        texts = [examples[place].text for place in batch]
        pixels = model.localize(None, texts, features=image_features, image_index=index, batch_size=batch_size)
        found[batch] = pixels / np.array([shown[place].size for place in batch])
    return found * points.sizes


def rewarded(examples: Sequence[PointExample], predicted: NDArray[np.float64]) -> Rewarded:
    """What rewards and the running metric are computed from; ``predicted`` (N, 2) in pixels."""
    sizes = np.array([example.size for example in examples], dtype=np.float64)
    return Rewarded(
        predicted=predicted / sizes,
        truth=np.array([example.keypoint for example in examples]) / sizes,
        descriptions=[example.text for example in examples],
        facts=[example.facts for example in examples],
    )
