"""Training of the Point Localizer (paper, sections 3.3 and 4.1): mean squared error on normalised coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import PointFeatures
from talking_points.examples.inference import localize_points
from talking_points.examples.points import PointExample, PointSet
from talking_points.models.localizer import PointLocalizer
from talking_points.models.omg_llava.chat import Turn
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
    prepare_to_train(model, config, seed)
    if config.shuffled:
        train = train.shuffle_texts(seed)
    own = PointFeatures(model, train, features, blind=config.blind)
    own.prepare()
    evaluated = held_out.sample(config.eval_points, seed)

    def metric() -> float:
        predicted = localize_points(model, evaluated, features, blind=config.blind)
        return 100 * float(mean_pck(Rewarded.of(evaluated.examples, predicted)).mean())

    trainer = LocalizerTrainer(model, own, config, output, seed, metric)
    return trainer.run()
