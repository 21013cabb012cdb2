"""What a rollout's answers are learnt by, by name: a loss of their log-probabilities, and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from talking_points.training.config import RolloutStage
from talking_points.training.grpo import grpo_loss, gspo_loss, sequence_means

Learnt = tuple[Tensor, dict[str, Any]]


@dataclass(frozen=True)
class Objective:
    """``loss`` takes log-probabilities (S, T) now, when the answers were written, and under the reference, if any;
    advantages (S,), a mask (S, T) and the stage; ``measured`` names the means that it tells beside the loss."""

    measured: tuple[str, ...]
    loss: Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor, RolloutStage], Learnt]


def _grpo(
    log_probs: Tensor, old: Tensor, reference: Tensor | None, advantages: Tensor, mask: Tensor, stage: RolloutStage
) -> Learnt:
    found = grpo_loss(log_probs, old if reference is None else reference, advantages, mask, stage.beta)
    return found.total, {"kl": found.kl, "entropy": found.entropy}


def _gspo(
    log_probs: Tensor, old: Tensor, reference: Tensor | None, advantages: Tensor, mask: Tensor, stage: RolloutStage
) -> Learnt:
    found = gspo_loss(
        log_probs, old, advantages, mask, epsilon_low=stage.clip_low, epsilon_high=stage.clip_high,
        reference=reference, beta=stage.beta,
    )  # fmt: skip
    off = found.ratios.double() - 1
    return found.total, {
        "ratio": found.ratios.mean(),
        "off": off.mean(),
        "off_squared": off.square().mean(),
        "clipped_low": (found.clipped & (advantages < 0)).float().mean(),
        "clipped_high": (found.clipped & (advantages > 0)).float().mean(),
        "kl": found.kl,
        "entropy": -sequence_means(log_probs.detach(), mask).mean(),
    }


OBJECTIVES: dict[str, Objective] = {
    "grpo": Objective(("kl", "entropy"), _grpo),
    "gspo": Objective(("ratio", "off", "off_squared", "clipped_low", "clipped_high", "kl", "entropy"), _gspo),
}
