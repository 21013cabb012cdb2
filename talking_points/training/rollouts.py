"""Reinforcement with rollouts that are held for several updates, on the trainer of all stages.

A rollout: the questions of a batch, G sampled answers to each, their rewards, and their log-probabilities under the
policy that wrote them, taken by the same code in eval mode that the updates use: a sampler's own rounding is wider than
the range that the ratio may move in. Each of the ``updates`` steps then learns from its share of the questions.

Checkpoints stand between rollouts, and what is drawn is drawn again, so a rollout that was interrupted is sampled again
and the weights become the same.

Of several processes each samples and rewards answers to its share of the questions; all know all answers, and each
learns from its share of every update's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talking_points.examples.points import LengthBuckets
from talking_points.models.segmenter import Written
from talking_points.terminal import tell
from talking_points.training.config import RolloutStage
from talking_points.training.grpo import ADVANTAGES, EQUAL_REWARDS
from talking_points.training.objectives import OBJECTIVES
from talking_points.training.policy import Answers, Policy
from talking_points.training.precision import autocast
from talking_points.training.sampled import SampledTrainer
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


RewardedShare = tuple[Written, NDArray[np.float64], list[Any]]
"""Answers to a share of the questions, the reward of each (S,), and what was made of it."""


@dataclass(frozen=True)
class Judged:
    """All answers of a rollout. rewards: (S,); groups, advantages: (P, G); ``read``: what was made of each answer."""

    samples: Answers
    rewards: NDArray[np.float64]
    read: Sequence[Any]
    groups: Tensor
    advantages: Tensor

    @property
    def owners(self) -> list[Any]:
        """The example of each answer."""
        return [example for example in self.samples.examples for _ in range(self.samples.group)]


@dataclass(frozen=True)
class Rollout:
    """What a rollout's updates learn from: answers by share of the questions, and (S,) or (S, T) values of each.

    weights: how much of an update's answers this process has.
    old: None for the first update, whose policy is still the one that has written the answers.
    """

    step: int
    weights: list[float]
    parts: list[Answers]
    advantages: list[Tensor]
    old: list[Tensor | None]
    reference: list[Tensor | None]


class RolloutTrainer(SampledTrainer):
    """The loss of a batch of questions is that of answers sampled from the model itself.

    A subclass says what answers earn (``rewards``), and what is told of them beside it (``about``, ``measures``).
    """

    advantage_std: Literal["population", "sample"] = "population"

    def __init__(
        self,
        model: Any,
        points: Any,
        policy: Policy,
        config: RolloutStage,
        output: Path,
        seed: int,
        metric: Any = None,
    ) -> None:
        super().__init__(model, points.examples, config, output, seed, metric)
        self.points = points
        self.rollouts = config
        self.objective = OBJECTIVES[config.objective]
        self.policy = policy
        self.with_reference = config.beta > 0
        self._held: Rollout | None = None
        self._equal_steps = 0

    def rewards(self, examples: Sequence[Any], texts: Sequence[str]) -> tuple[NDArray[np.float64], list[Any]]:
        """The reward of each text (S,), ``group`` in a row to each example, and what was made of it."""
        raise TypeError(f"{type(self).__name__} must say what {self.what} earn")

    def about(self, example: Any, read: Any) -> dict[str, Any]:
        """What the table of samples says of an answer beside its text and reward."""
        return {}

    def measures(self, judged: Judged) -> dict[str, Any]:
        """What is logged of a rollout beside its rewards and lengths."""
        return {}

    def drawing(self, step: int, share: int) -> AbstractContextManager[None]:
        """Inside it, answers to a share of the questions are drawn."""
        return drawing(self.args.device, self.args.seed, step, share)

    def batches(self) -> LengthBuckets:
        # Processes share every batch.
        batches = HeldBatches(
            [len(one.text) for one in self.points.examples],
            self.rollouts.batch_size,
            self.args.seed,
            images=[one.image for one in self.points.examples],
            per_image=self.rollouts.points_per_image,
        )
        batches.updates = self.rollouts.updates
        return batches

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        # Dropout would make a policy differ from itself.
        model.eval()
        self.batch = inputs["points"]
        update = self.state.global_step % self.rollouts.updates
        first = self.state.global_step - update
        # Accumulated batches, of the same step, have a rollout each.
        if update == 0 or self._held is None or self._held.step != first:
            self._held = self.roll_out(self.batch, first)
        total = self._update(self._held, update)
        return (total, None) if return_outputs else total

    def _update(self, held: Rollout, number: int) -> Tensor:
        weight = held.weights[number]
        if not weight:
            self._measure_update(0.0, {})
            return no_loss(self.model.parameters())
        samples = held.parts[number]
        with self._computing():
            log_probs = self.policy.log_probs(samples)
        old = held.old[number]
        loss, measured = self.objective.loss(
            log_probs,
            log_probs.detach() if old is None else old,
            held.reference[number],
            held.advantages[number].to(log_probs.device),
            samples.mask.to(log_probs.device),
            self.rollouts,
        )
        self._measure_update(weight, measured)
        return loss * weight

    def _computing(self) -> Any:
        return autocast(self.accelerator.unwrap_model(self.model), self.rollouts)

    def _measure_update(self, weight: float, values: dict[str, Any]) -> None:
        found = self.mean_of_shares(weight, **{name: values.get(name, 0.0) for name in self.objective.measured})
        if "off" in found:
            variance = found.pop("off_squared") - found.pop("off") ** 2
            found["ratio_spread"] = max(0.0, variance) ** 0.5
        self.measure(**found)

    def roll_out(self, examples: Sequence[Any], step: int) -> Rollout:
        """Sample, reward and score answers to the questions of a batch."""
        judged = self._judge(examples, step)
        self._report(judged)
        if step % self.rollouts.sample_steps < self.rollouts.updates and self.state.is_world_process_zero:
            with self._writing(f"samples to {self.args.output_dir}"):
                self.write_samples(judged)
        # Alone, a process learns from all answers at once, in however many shares they were sampled.
        among = self.args.world_size
        shares, weights = [], []
        for update in divide(len(examples), self.rollouts.updates):
            own = own_shares(update.stop - update.start, among)[0][1]
            shares.append(slice(update.start + own.start, update.start + own.stop))
            weights.append((own.stop - own.start) / max(1, update.stop - update.start))
        parts = [judged.samples.part(share) for share in shares]
        reference: list[Tensor | None] = [None] * len(parts)
        with torch.no_grad(), self._computing():
            old = [
                self.policy.log_probs(part) if number and part.examples else None for number, part in enumerate(parts)
            ]
            if self.with_reference:
                reference = [self.policy.reference(part) if part.examples else None for part in parts]
        advantages = [judged.advantages[share].flatten().float().to(self.args.device) for share in shares]
        return Rollout(step, weights, parts, advantages, old, reference)

    def _judge(self, examples: Sequence[Any], step: int) -> Judged:
        """Answers to all questions, of all processes, with what they earn."""
        found: list[RewardedShare] = []
        for number, share in own_shares(len(examples), self.shares):
            if not (asked := examples[share]):
                continue
            with self.drawing(step, number), self._computing():
                written = self.policy.sample(asked, self.rollouts.group).written
            if self.args.world_size > 1:
                written = replace(written, tokens=written.tokens.cpu(), mask=written.mask.cpu())
            found.append((written, *self.rewards(asked, written.texts)))
        gathered = gather_all(found)
        written = join_written([part[0] for part in gathered], self.args.device)
        rewards = np.concatenate([part[1] for part in gathered])
        groups = torch.from_numpy(rewards).view(len(examples), self.rollouts.group)
        advantages = ADVANTAGES[self.rollouts.advantage](groups, 5.0, self.advantage_std)
        read = [one for part in gathered for one in part[2]]
        return Judged(Answers(examples, self.rollouts.group, written), rewards, read, groups, advantages)

    def _report(self, judged: Judged) -> None:
        spread = judged.groups.std(1, correction=0)
        equal = float((spread <= EQUAL_REWARDS).float().mean())
        self._equal_steps = self._equal_steps + self.rollouts.updates if equal == 1 else 0
        if self._equal_steps >= ALL_EQUAL:
            tell(
                f"all answers to a question earn the same since {self._equal_steps} steps: nothing is learnt; raise "
                "the temperature, or go back to supervised training where few answers are well formed"
            )
            self._equal_steps = 0
        self.measure(
            reward=judged.rewards.mean(),
            reward_std=spread.mean(),
            zero_variance=equal,
            length=judged.samples.mask.sum(1).float().mean(),
            unfinished=1 - np.mean(judged.samples.written.finished),
            **self.measures(judged),
        )
        self.shown["reward"] = float(judged.rewards.mean())

    def write_samples(self, judged: Judged) -> None:
        """Append a rollout's answers to the table."""
        told = zip(
            judged.owners, judged.samples.texts, judged.rewards, judged.advantages.flatten(), judged.read, strict=True
        )
        with self.table.open("a", encoding="utf-8") as file:
            for example, text, reward, advantage, read in told:
                row = {
                    "step": self.state.global_step, "id": example.id, "text": text, "reward": float(reward),
                    "advantage": float(advantage), **self.about(example, read),
                }  # fmt: skip
                file.write(json.dumps(row) + "\n")
