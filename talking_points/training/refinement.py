"""Refining a segmenter by what its answers say (GSPO): rewards read texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talking_points.examples.config import FeatureConfig
from talking_points.examples.regions import RegionExample, RegionSet, shrink_mask
from talking_points.models.segmenter import Segmenter
from talking_points.training.mask_rewards import ReadAnswer, Truth, read_answer, reward_answer
from talking_points.training.policy import SegmenterPolicy
from talking_points.training.precision import prepare_to_train
from talking_points.training.rollouts import Judged, RolloutTrainer
from talking_points.training.segmenter import RegionFeatures, running_overlap
from talking_points.training.segmenter_config import RefineStage


class RefineTrainer(RolloutTrainer):
    """Reinforcement of a segmenter."""

    what = "questions"
    rollouts: RefineStage
    over_run = ("ratio", "ratio_spread", "clipped_low", "clipped_high", "zero_variance", "kl")
    """Whose means over all steps are told: at the last ones the rate is near zero, and so is all that moves."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._truths: dict[str, Truth] = {}

    def run(self) -> dict[str, float]:
        """As of all trainings, with ``mean_NAME`` of what is told of the whole run."""
        last = super().run()
        logs = {name: [entry[name] for entry in self.state.log_history if name in entry] for name in self.over_run}
        return last | {f"mean_{name}": float(np.mean(values)) for name, values in logs.items() if values}

    def rewards(
        self, examples: Sequence[RegionExample], texts: Sequence[str]
    ) -> tuple[NDArray[np.float64], list[ReadAnswer | None]]:
        owners = [example for example in examples for _ in range(self.rollouts.group)]
        answers = [read_answer(text, one.kind, self._truth(one)) for one, text in zip(owners, texts, strict=True)]
        rewards = [
            reward_answer(answer, self._truth(one), self.rollouts.rewards)
            for one, answer in zip(owners, answers, strict=True)
        ]
        return np.array(rewards, np.float64), answers

    def _truth(self, example: RegionExample) -> Truth:
        if example.region not in self._truths:
            x, y, width, height = example.box
            across, down = example.size
            mask = shrink_mask(example.mask, self.rollouts.reward_side)
            self._truths[example.region] = Truth(mask, (x / across, y / down, width / across, height / down))
        return self._truths[example.region]

    def about(self, example: RegionExample, read: ReadAnswer | None) -> dict[str, Any]:
        return {"kind": example.kind}

    def measures(self, judged: Judged) -> dict[str, Any]:
        drawn = [
            (answer, self._truth(one))
            for one, answer in zip(judged.owners, judged.read, strict=True)
            if one.kind.endswith("mask")
        ]
        overlaps = [reward_answer(answer, truth, {"iou": 1.0}) for answer, truth in drawn]
        points = [answer.points for answer, _ in drawn if answer is not None]
        return {
            "well_formed": np.mean([answer is not None for answer in judged.read]),
            "iou": np.mean(overlaps) if overlaps else 0.0,
            "points": np.mean(points) if points else 0.0,
        }


def refine_segmenter(
    model: Segmenter,
    train: RegionSet,
    held_out: RegionSet | None,
    config: RefineStage,
    phrasing: str,
    features: FeatureConfig,
    output: Path,
    seed: int = 0,
) -> dict[str, float]:
    """Refine a segmenter by the reward of its answers and save it into ``output``; returns the last logged values.

    The running metric is the mean overlap of greedy answers to ``held_out`` questions.
    """
    prepare_to_train(model, config, seed)
    own = RegionFeatures(model, train, features)
    own.prepare()
    output.mkdir(parents=True, exist_ok=True)
    policy = SegmenterPolicy(model, own, phrasing, config.temperature, config.max_new_tokens, config.beta > 0)
    metric = None
    if held_out is not None:
        metric = running_overlap(model, held_out, features, phrasing, config.eval_points, seed)
    model.config.feature_dtype = own.dtype
    own.store.remember_bound()
    return RefineTrainer(model, train, policy, config, output, seed, metric).run()
