"""Supervised fine-tuning of the Point Descriptor (paper, sections 3.2 and 4.1): language-model loss on descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import PointFeatures
from talking_points.examples.points import PointExample, PointSet
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.chat import Turn
from talking_points.training.config import StageConfig
from talking_points.training.precision import prepare_to_train
from talking_points.training.trainer import PointTrainer


class DescriptorTrainer(PointTrainer):
    """Trains what the model's configuration says; the loss is the mean over the tokens of a batch's descriptions."""

    def turn(self, example: PointExample) -> Turn:
        assert isinstance(self.features.model, PointDescriptor)
        return self.features.model.turns(1, [example.text])[0]

    def inputs(self, examples: Sequence[PointExample], features: PointFeatures) -> dict[str, Any]:
        found, image_index, point_features = features.batch(examples)
        return {
            "features": found,
            "image_index": image_index,
            "point_features": point_features,
            "turns": self.turns(examples),
        }


def train_descriptor(
    model: PointDescriptor,
    train: PointSet,
    held_out: PointSet,
    config: StageConfig,
    features: FeatureConfig,
    output: Path,
    seed: int = 0,
) -> dict[str, float]:
    """Train and save a descriptor into ``output``; returns the last logged values.

    The running metric is minus the language-model loss on held-out points. Run again after an interruption it goes on
    from the last complete checkpoint.
    """
    prepare_to_train(model, config, seed)
    own, other = (
        PointFeatures(model, points, features, withheld=config.withhold_points) for points in (train, held_out)
    )
    own.prepare()
    other.prepare()
    evaluated = held_out.sample(config.eval_points, seed).examples

    def metric() -> float:
        batches = [evaluated[start : start + 32] for start in range(0, len(evaluated), 32)]
        losses = [float(model(**trainer.inputs(batch, other)).loss) * len(batch) for batch in batches]
        return -sum(losses) / len(evaluated)

    trainer = DescriptorTrainer(model, own, config, output, seed, metric)
    return trainer.run()
