"""Adapting a descriptor by the reward of a frozen localizer (paper, section 3.4), without any described point.

One step: sample G descriptions of each of P points (one reading of an image for its whole group, all sequences
generated in one batch), let the localizer find them, reward, update. The policy before adaptation is the policy
without its adapters: earlier adapters are merged into the weights at the start and new ones begin at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talking_points.config import ConfigError
from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import PointFeatures
from talking_points.examples.inference import describe_points, localize_points
from talking_points.examples.points import PointExample, PointSet
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.processes import process_state
from talking_points.training.config import AdaptConfig
from talking_points.training.curves import draw_group
from talking_points.training.descriptor_policy import DescriptorPolicy
from talking_points.training.precision import prepare_to_train
from talking_points.training.rewards import REWARDS, Rewarded, mean_pck
from talking_points.training.rollouts import Judged, RolloutTrainer


class AdaptationTrainer(RolloutTrainer):
    """Reinforcement of a descriptor (GRPO), rewarded by where a localizer finds what it describes."""

    what = "points"
    rollouts: AdaptConfig
    points: PointSet

    def __init__(
        self,
        model: PointDescriptor,
        localizer: PointLocalizer,
        features: PointFeatures,
        localizer_features: PointFeatures,
        config: AdaptConfig,
        output: Path,
        seed: int,
        metric: Any = None,
    ) -> None:
        policy = DescriptorPolicy(model, features, config.last_blocks, config.temperature, config.max_new_tokens)
        super().__init__(model, features.points, policy, config, output, seed, metric)
        self.localizer = localizer
        self.localizer_features = localizer_features
        self.advantage_std = config.advantage_std
        self.with_reference = True  # which costs little, and tells the divergence also where it does not count

    def drawing(self, step: int, share: int) -> AbstractContextManager[None]:
        # Alone it draws from the generator of the training, which checkpoints keep.
        return nullcontext() if self.shares == 1 else super().drawing(step, share)

    def rewards(
        self, examples: Sequence[PointExample], texts: Sequence[str]
    ) -> tuple[NDArray[np.float64], list[list[float]]]:
        """Rewards (S,) of texts about points, and the points (x, y) in pixels where the localizer found them."""
        owners = [example for example in examples for _ in range(self.rollouts.group)]
        told = [replace(example, text=text) for example, text in zip(owners, texts, strict=True)]
        features, index, _ = self.localizer_features.batch(told)
        predicted = self.localizer.localize(None, texts, features=features, image_index=index, batch_size=len(texts))
        return REWARDS[self.rollouts.reward](Rewarded.of(told, predicted)), predicted.tolist()

    def about(self, example: PointExample, read: list[float]) -> dict[str, Any]:
        return {"predicted": read, "keypoint": list(example.keypoint)}

    def measures(self, judged: Judged) -> dict[str, Any]:
        return {"empty": (judged.samples.mask.sum(1) <= 1).float().mean()}

    def write_samples(self, judged: Judged) -> None:
        """To the table, and the first group as an image."""
        super().write_samples(judged)
        first, group = judged.samples.examples[0], self.rollouts.group
        _, image = next(self.points.images([first.image]))
        path = Path(self.args.output_dir) / "groups" / f"step-{self.state.global_step:06d}.png"
        draw_group(image, first, judged.samples.texts[:group], np.array(judged.read[:group]), path)


def prepare_adaptation(model: PointDescriptor, config: AdaptConfig, seed: int = 0) -> list[str]:
    """Merge earlier adapters, add new ones, and leave only those of the last blocks trainable; returns their names."""
    model.merge_lora()
    settings = model.config
    settings.train_lora, settings.lora_last_blocks = True, config.last_blocks
    settings.train_projector = settings.train_language_model = False
    settings.train_vocabulary = settings.train_vision = False
    if config.lora_rank is not None:
        # The scale alpha / rank stays what it was.
        settings.lora_alpha *= config.lora_rank / settings.lora_rank
        settings.lora_rank = config.lora_rank
    names = prepare_to_train(model, config, seed)
    if not names:
        raise ConfigError("nothing of the descriptor would be trained: last_blocks must name blocks with adapters")
    return names


def adapt_descriptor(
    model: PointDescriptor,
    localizer: PointLocalizer,
    train: PointSet,
    held_out: PointSet | None,
    config: AdaptConfig,
    features: FeatureConfig,
    output: Path,
    seed: int = 0,
) -> dict[str, float]:
    """Adapt a descriptor to bare points and save it into ``output``; returns the last logged values.

    ``localizer`` is frozen and rewards. The running metric is mPCK of greedy descriptions of ``held_out`` points by the
    same localizer, none without such points; judge the result by one that it never saw.
    """
    prepare_adaptation(model, config, seed)
    localizer.to(process_state().device).eval().requires_grad_(False)
    own, judged = PointFeatures(model, train, features), PointFeatures(localizer, train, features)
    own.prepare()
    judged.prepare()
    output.mkdir(parents=True, exist_ok=True)
    metric = None
    if held_out is not None:
        evaluated = held_out.sample(config.eval_points, seed)

        def metric() -> float:
            written = describe_points(model, evaluated, features, max_new_tokens=config.max_new_tokens)
            texts = dict(zip((example.id for example in evaluated.examples), written, strict=True))
            described = evaluated.with_texts(texts)
            found = localize_points(localizer, described, features)
            return 100 * float(mean_pck(Rewarded.of(described.examples, found)).mean())

    model.config.feature_dtype = own.dtype
    own.store.remember_bound()
    return AdaptationTrainer(model, localizer, own, judged, config, output, seed, metric).run()
