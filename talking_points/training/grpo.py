"""The modified GRPO objective of the paper (section 3.4), equation by equation, and GSPO beside it.

For one image and point, G descriptions o_i are sampled from the policy; a frozen localizer rewards each (equation 2,
``rewards``). Shapes below: P prompts, S = P * G sequences, T tokens of the longest one; ``mask`` marks valid tokens,
those that were sampled, the end of the turn included.

What differs from standard GRPO (Shao et al. 2024): no importance sampling, hence one update per sampled batch and no
ratio to clip; the log-ratio inside the KL estimate is clamped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

LOG_RATIO_CLAMP = 5.0
MEAN_LOG_RATIO_MOST = 80.0
"""Of a sequence; beyond, a ratio in single precision is infinite, and what is clipped would get NaN, not nothing."""

ADVANTAGE_CLIP = 5.0
"""Wider than any advantage of a small group: with G = 3 none exceeds 1.42, so the clip acts for large groups only."""

EQUAL_REWARDS = 1e-8
"""Groups whose rewards have a standard deviation below this teach nothing: their advantages are zero."""


@dataclass(frozen=True)
class GrpoLoss:
    """total = policy + beta * kl (equation 6); entropy is an estimate, reported only."""

    total: Tensor
    policy: Tensor
    kl: Tensor
    entropy: Tensor


def group_advantages(
    rewards: Tensor, clip: float = ADVANTAGE_CLIP, std: Literal["population", "sample"] = "population"
) -> Tensor:
    """Equation 3: rewards (P, G) minus their group's mean over its standard deviation, clipped; zero in equal groups.

    A group of one has nothing to compare with, so its advantage is zero.
    """
    centred = centre_advantages(rewards, torch.inf)
    if rewards.shape[1] < 2:
        return centred
    deviation = rewards.std(dim=1, keepdim=True, correction=int(std == "sample"))
    normalised = centred / deviation.clamp(min=EQUAL_REWARDS)
    return torch.where(deviation > EQUAL_REWARDS, normalised, 0.0).clamp(-clip, clip)


def centre_advantages(
    rewards: Tensor, clip: float = ADVANTAGE_CLIP, std: Literal["population", "sample"] = "population"
) -> Tensor:
    """Rewards (P, G) minus their group's mean (Dr. GRPO, Liu et al. 2025): groups that differ little teach little."""
    return (rewards - rewards.mean(dim=1, keepdim=True)).clamp(-clip, clip)


Advantages = Callable[[Tensor, float, Literal["population", "sample"]], Tensor]
ADVANTAGES: dict[str, Advantages] = {"group": group_advantages, "centred": centre_advantages}


def token_log_probs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (M,) of tokens (M,) under logits (M, V), at the temperature they were sampled with."""
    return -functional.cross_entropy(logits.float() / temperature, tokens, reduction="none")


def sequence_means(values: Tensor, mask: Tensor) -> Tensor:
    """Means over valid tokens: (S, T) to (S,). A sequence without any gives 0."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def policy_loss(log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Equation 4, averaged over groups: minus the mean over sequences of advantage times mean log-probability.

    ``log_probs`` and ``mask`` (S, T), ``advantages`` (S,). Dividing by the length makes updates independent of it.
    """
    return -(advantages.detach() * sequence_means(log_probs, mask)).mean()


def kl_divergence(log_probs: Tensor, reference: Tensor, mask: Tensor, clamp: float = LOG_RATIO_CLAMP) -> Tensor:
    """Equation 5, averaged over sequences: the k3 estimate exp(r) - r - 1 (Schulman 2020) with r clamped before.

    r = log pi_ref - log pi_theta, both (S, T). Beyond the clamp a token has no gradient.
    """
    ratio = (reference.detach() - log_probs).clamp(-clamp, clamp)
    return sequence_means(ratio.exp() - ratio - 1, mask).mean()


def grpo_loss(
    log_probs: Tensor,
    reference: Tensor,
    advantages: Tensor,
    mask: Tensor,
    beta: float = 0.1,
    clamp: float = LOG_RATIO_CLAMP,
) -> GrpoLoss:
    """Equation 6: policy loss plus beta times the divergence from the reference policy."""
    policy = policy_loss(log_probs, advantages, mask)
    kl = kl_divergence(log_probs, reference, mask, clamp)
    entropy = -sequence_means(log_probs.detach(), mask).mean()
    return GrpoLoss(policy + beta * kl, policy.detach(), kl.detach(), entropy)


@dataclass(frozen=True)
class GspoLoss:
    """total = policy + beta * kl. ratios (S,) of whole sequences; clipped (S,): those without a gradient."""

    total: Tensor
    policy: Tensor
    kl: Tensor
    ratios: Tensor
    clipped: Tensor


def gspo_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    epsilon_low: float = 3e-4,
    epsilon_high: float = 4e-4,
    reference: Tensor | None = None,
    beta: float = 0.0,
) -> GspoLoss:
    """Group sequence policy optimisation (Zheng et al. 2025): one importance ratio per sequence, clipped.

    ``log_probs``, ``old_log_probs`` (of the policy that sampled), ``reference`` and ``mask`` (S, T),
    ``advantages`` (S,). The ratio is the geometric mean of the tokens' ratios. At the first update after sampling
    all ratios are 1 and the gradient is that of ``policy_loss``. Raises ``ValueError`` for a beta without a reference.
    """
    if beta and reference is None:
        raise ValueError(f"expected log-probabilities of a reference policy for beta {beta}, found none")
    ratios = sequence_means(log_probs - old_log_probs.detach(), mask).clamp(max=MEAN_LOG_RATIO_MOST).exp()
    advantages = advantages.detach()
    within = ratios.clamp(1 - epsilon_low, 1 + epsilon_high)
    policy = -torch.minimum(ratios * advantages, within * advantages).mean()
    kl = log_probs.new_zeros(()) if reference is None else kl_divergence(log_probs, reference, mask)
    beyond = ((advantages > 0) & (ratios > 1 + epsilon_high)) | ((advantages < 0) & (ratios < 1 - epsilon_low))
    return GspoLoss(policy + beta * kl, policy.detach(), kl.detach(), ratios.detach(), beyond)
