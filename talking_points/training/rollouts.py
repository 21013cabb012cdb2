"""Reinforcement with rollouts that are held for several updates (GSPO), on the trainer of all stages.

A rollout: the questions of a batch, G sampled answers to each, their rewards, and their log-probabilities under the
policy that wrote them, taken by the same code in eval mode that the updates use: a sampler's own rounding is wider than
the range that the ratio may move in. Each of the ``updates`` steps then learns from its share of the questions.

Checkpoints stand between rollouts. What is drawn depends on (seed, step) alone, so a rollout that was interrupted is
sampled again and the weights become the same.

Of several processes each samples and rewards answers to its share of the questions; all know all answers, and each
learns from its share of every update's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talking_points.examples.config import FeatureConfig
from talking_points.examples.points import LengthBuckets
from talking_points.examples.regions import RegionExample, RegionSet, shrink_mask
from talking_points.models.segmenter import Segmenter, Written
from talking_points.step_progress import tell
from talking_points.training.grpo import ADVANTAGES, EQUAL_REWARDS, grpo_loss, gspo_loss, sequence_means
from talking_points.training.mask_rewards import ReadAnswer, Truth, read_answer, reward_answer
from talking_points.training.policy import Policy, RegionAnswers, SegmenterPolicy
from talking_points.training.precision import autocast, prepare_to_train
from talking_points.training.sampled import SampledTrainer
from talking_points.training.segmenter import RegionFeatures, running_overlap
from talking_points.training.segmenter_config import RefineStage
from talking_points.training.shares import divide, drawing, gather_all, join_written, no_loss, own_shares

ALL_EQUAL = 20
"""After so many steps in a row that taught nothing the run says so."""


class HeldBatches(LengthBuckets):
    """Every batch as often as there are updates from its rollout."""

    updates = 1

    def __len__(self) -> int:
        return self.batch_count * self.updates

    def __iter__(self) -> Iterator[list[int]]:
        once = super().__iter__()
        return (batch for batch in once for _ in range(self.updates))


RewardedShare = tuple[Written, NDArray[np.float64], list[ReadAnswer | None]]
"""Answers to a share of the questions, the reward of each (S,), and what was read of it."""


@dataclass(frozen=True)
class Rollout:
    """What a rollout's updates learn from: answers by share of the questions, and (S,) or (S, T) values of each.

    weights: how much of an update's answers this process has.
    old: None for the first update, whose policy is still the one that has written the answers.
    """

    step: int
    weights: list[float]
    parts: list[RegionAnswers]
    advantages: list[Tensor]
    old: list[Tensor | None]
    reference: list[Tensor | None]


class RefineTrainer(SampledTrainer):
    """The loss of a batch of questions is that of answers sampled from the model itself."""

    what = "questions"
    over_run = ("ratio", "ratio_spread", "clipped_low", "clipped_high", "zero_variance", "kl")
    """Whose means over all steps are told: at the last ones the rate is near zero, and so is all that moves."""

    def __init__(
        self,
        model: Any,
        regions: RegionSet,
        policy: Policy[RegionAnswers],
        config: RefineStage,
        output: Path,
        seed: int,
        metric: Any = None,
    ) -> None:
        super().__init__(model, regions.examples, config, output, seed, metric)
        self.points = regions
        self.refine = config
        self.policy = policy
        self._truths: dict[str, Truth] = {}
        self._held: Rollout | None = None
        self._equal_steps = 0

    def run(self) -> dict[str, float]:
        """As of all trainings, with ``mean_NAME`` of what is told of the whole run."""
        last = super().run()
        logs = {name: [entry[name] for entry in self.state.log_history if name in entry] for name in self.over_run}
        return last | {f"mean_{name}": float(np.mean(values)) for name, values in logs.items() if values}

    def batches(self) -> LengthBuckets:
        batches = HeldBatches(
            [len(one.text) for one in self.points.examples],
            self.refine.batch_size,
            self.args.seed,
            images=[one.image for one in self.points.examples],
            per_image=self.refine.points_per_image,
        )
        batches.updates = self.refine.updates
        return batches

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        # Dropout would make a policy differ from itself.
        model.eval()
        self.batch = inputs["points"]
        own = self.accelerator.unwrap_model(model)
        update = self.state.global_step % self.refine.updates
        first = self.state.global_step - update
        with autocast(own, self.refine):
            if self._held is None or self._held.step != first:
                self._held = self.roll_out(self.batch, first)
            total = self._update(self._held, update)
        return (total, None) if return_outputs else total

    def _update(self, held: Rollout, number: int) -> Tensor:
        weight = held.weights[number]
        if not weight:
            self._measure_update(0.0, {})
            return no_loss(self.model.parameters())
        samples, advantages, reference = held.parts[number], held.advantages[number], held.reference[number]
        log_probs = self.policy.log_probs(samples)
        old = held.old[number]
        old = log_probs.detach() if old is None else old
        mask = samples.mask.to(log_probs.device)
        if self.refine.objective == "grpo":
            loss = grpo_loss(log_probs, old if reference is None else reference, advantages, mask, self.refine.beta)
            self._measure_update(weight, {"kl": loss.kl, "entropy": loss.entropy})
            return loss.total * weight
        found = gspo_loss(
            log_probs, old, advantages, mask, epsilon_low=self.refine.clip_low, epsilon_high=self.refine.clip_high,
            reference=reference, beta=self.refine.beta,
        )  # fmt: skip
        measured = {
            "ratio": found.ratios.mean(),
            "off": (found.ratios.double() - 1).mean(),
            "off_squared": (found.ratios.double() - 1).square().mean(),
            "clipped_low": (found.clipped & (advantages < 0)).float().mean(),
            "clipped_high": (found.clipped & (advantages > 0)).float().mean(),
            "kl": found.kl,
            "entropy": -sequence_means(log_probs.detach(), mask).mean(),
        }
        self._measure_update(weight, measured)
        return found.total * weight

    def _measure_update(self, weight: float, values: dict[str, Any]) -> None:
        names = ["kl", "entropy"]
        if self.refine.objective == "gspo":
            names = ["ratio", "off", "off_squared", "clipped_low", "clipped_high", *names]
        found = self.mean_of_shares(weight, **{name: values.get(name, 0.0) for name in names})
        if "off" in found:
            variance = found.pop("off_squared") - found.pop("off") ** 2
            found["ratio_spread"] = max(0.0, variance) ** 0.5
        self.measure(**found)

    def roll_out(self, examples: Sequence[RegionExample], step: int) -> Rollout:
        """Sample, reward and score answers to the questions of a batch."""
        group, updates = self.refine.group, self.refine.updates
        found: list[RewardedShare] = []
        for number, share in own_shares(len(examples), self.shares):
            if not (asked := examples[share]):
                continue
            with drawing(self.args.device, self.args.seed, step, number):
                written = self.policy.sample(asked, group).written
            if self.args.world_size > 1:
                written = replace(written, tokens=written.tokens.cpu(), mask=written.mask.cpu())
            found.append((written, *self.rewards(asked, written.texts)))
        gathered = gather_all(found)
        samples = RegionAnswers(examples, group, join_written([part[0] for part in gathered], self.args.device))
        rewards = np.concatenate([part[1] for part in gathered])
        answers = [answer for part in gathered for answer in part[2]]
        groups = torch.from_numpy(rewards).view(len(examples), group)
        advantages = ADVANTAGES[self.refine.advantage](groups, 5.0, "population")
        # Alone, a process learns from all answers at once, in however many shares they were sampled.
        among = self.args.world_size
        shares, weights = [], []
        for update in divide(len(examples), updates):
            own = own_shares(update.stop - update.start, among)[0][1]
            shares.append(slice(update.start + own.start, update.start + own.stop))
            weights.append((own.stop - own.start) / max(1, update.stop - update.start))
        parts = [samples.part(share) for share in shares]
        with torch.no_grad():
            old = [
                self.policy.log_probs(part) if number and len(part.examples) else None
                for number, part in enumerate(parts)
            ]
            reference: list[Tensor | None] = [None] * updates
            if self.refine.beta:
                reference = [self.policy.reference(part) if len(part.examples) else None for part in parts]
        self._report(examples, samples, answers, rewards, groups)
        if step % self.refine.sample_steps < updates and self.state.is_world_process_zero:
            with self._writing(f"samples to {self.args.output_dir}"):
                self._write_samples(examples, samples.texts, rewards, advantages.flatten())
        own_advantages = [advantages[share].flatten().float().to(self.args.device) for share in shares]
        return Rollout(step, weights, parts, own_advantages, old, reference)

    def rewards(
        self, examples: Sequence[RegionExample], texts: Sequence[str]
    ) -> tuple[NDArray[np.float64], list[ReadAnswer | None]]:
        """The reward of each text (S,), and what was read of it."""
        owners = [example for example in examples for _ in range(self.refine.group)]
        answers = [read_answer(text, one.kind, self._truth(one)) for one, text in zip(owners, texts, strict=True)]
        rewards = [
            reward_answer(answer, self._truth(one), self.refine.rewards)
            for one, answer in zip(owners, answers, strict=True)
        ]
        return np.array(rewards, np.float64), answers

    def _truth(self, example: RegionExample) -> Truth:
        if example.region not in self._truths:
            x, y, width, height = example.box
            across, down = example.size
            mask = shrink_mask(example.mask, self.refine.reward_side)
            self._truths[example.region] = Truth(mask, (x / across, y / down, width / across, height / down))
        return self._truths[example.region]

    def _report(
        self,
        examples: Sequence[RegionExample],
        samples: RegionAnswers,
        answers: Sequence[ReadAnswer | None],
        rewards: NDArray[np.float64],
        groups: Tensor,
    ) -> None:
        spread = groups.std(1, correction=0)
        equal = float((spread <= EQUAL_REWARDS).float().mean())
        self._equal_steps = self._equal_steps + self.refine.updates if equal == 1 else 0
        if self._equal_steps >= ALL_EQUAL:
            tell(
                f"all answers to a question earn the same since {self._equal_steps} steps: nothing is learnt; raise "
                "the temperature, or go back to supervised training where few answers are well formed"
            )
            self._equal_steps = 0
        owners = [example for example in examples for _ in range(self.refine.group)]
        drawn = [
            (answer, self._truth(one)) for one, answer in zip(owners, answers, strict=True) if one.kind.endswith("mask")
        ]
        read = [(answer, truth) for answer, truth in drawn if answer is not None]
        overlaps = [reward_answer(answer, truth, {"iou": 1.0}) for answer, truth in drawn]
        self.measure(
            reward=rewards.mean(),
            reward_std=spread.mean(),
            zero_variance=equal,
            well_formed=np.mean([answer is not None for answer in answers]),
            length=samples.mask.sum(1).float().mean(),
            unfinished=1 - np.mean(samples.written.finished),
            iou=np.mean(overlaps) if overlaps else 0.0,
            points=np.mean([answer.points for answer, _ in read]) if read else 0.0,
        )
        self.shown["reward"] = float(rewards.mean())

    def _write_samples(
        self, examples: Sequence[RegionExample], texts: Sequence[str], rewards: NDArray[np.float64], advantages: Tensor
    ) -> None:
        with self.table.open("a", encoding="utf-8") as file:
            for place, text in enumerate(texts):
                example = examples[place // self.refine.group]
                row = {
                    "step": self.state.global_step, "id": example.id, "kind": example.kind, "text": text,
                    "reward": float(rewards[place]), "advantage": float(advantages[place]),
                }  # fmt: skip
                file.write(json.dumps(row) + "\n")


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
