"""Every equation against an independent computation with NumPy, one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from talking_points.training.grpo import (
    ADVANTAGES,
    GrpoLoss,
    group_advantages,
    grpo_loss,
    gspo_loss,
    kl_divergence,
    policy_loss,
    token_log_probs,
)


def reference_loss(log_probs, reference, rewards, lengths, beta, clamp, ddof):
    """Equations 3 to 6, written from the paper with loops: groups of sequences of different lengths."""
    policy_terms, kl_terms = [], []
    for group in range(len(rewards)):
        mean, std = np.mean(rewards[group]), np.std(rewards[group], ddof=ddof) if len(rewards[group]) > 1 else 0.0
        for member in range(len(rewards[group])):
            sequence = group * len(rewards[group]) + member
            advantage = (rewards[group][member] - mean) / std if std > 1e-8 else 0.0
            advantage = min(5.0, max(-5.0, advantage))
            length = lengths[sequence]
            total = divergence = 0.0
            for token in range(length):
                total += log_probs[sequence][token]
                r = min(clamp, max(-clamp, reference[sequence][token] - log_probs[sequence][token]))
                divergence += math.exp(r) - r - 1
            policy_terms.append(advantage * total / length if length else 0.0)
            kl_terms.append(divergence / length if length else 0.0)
    return -np.mean(policy_terms), np.mean(kl_terms), -np.mean(policy_terms) + beta * np.mean(kl_terms)


@st.composite
def batches(draw):
    prompts, group, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    count = prompts * group
    rewards = random.normal(size=(prompts, group)) * draw(st.sampled_from((1e-3, 1.0, 50.0)))
    if draw(st.booleans()):
        rewards[0] = rewards[0, 0]
    lengths = random.integers(0, tokens + 1, count)
    log_probs = -random.exponential(size=(count, tokens))
    reference = log_probs + random.normal(size=(count, tokens)) * draw(st.sampled_from((0.0, 0.1, 10.0)))
    return rewards, lengths, log_probs, reference


@settings(max_examples=150, deadline=None)
@given(batches(), st.sampled_from((0.0, 0.1, 1.0)), st.sampled_from(("population", "sample")))
def test_the_loss_is_that_of_the_equations(batch, beta: float, std) -> None:
    rewards, lengths, log_probs, reference = batch
    mask = torch.arange(log_probs.shape[1]) < torch.from_numpy(lengths)[:, None]
    advantages = group_advantages(torch.from_numpy(rewards), std=std).flatten()
    found = grpo_loss(torch.from_numpy(log_probs), torch.from_numpy(reference), advantages, mask, beta)
    expected = reference_loss(log_probs, reference, rewards, lengths, beta, 5.0, ddof=int(std == "sample"))
    np.testing.assert_allclose([found.policy, found.kl, found.total], expected, rtol=1e-9, atol=1e-12)


def reference_advantages(name, rewards, clip, ddof):
    """One number at a time; equation 3 is ``group``, ``centred`` is its numerator."""
    found = []
    for group in rewards.tolist():
        mean = math.fsum(group) / len(group)
        squares = math.fsum((reward - mean) ** 2 for reward in group)
        deviation = math.sqrt(squares / (len(group) - ddof)) if len(group) > 1 else 0.0
        row = []
        for reward in group:
            advantage = reward - mean
            if name == "group":
                advantage = advantage / deviation if deviation > 1e-8 else 0.0
            row.append(min(clip, max(-clip, advantage)))
        found.append(row)
    return found


@settings(max_examples=150, deadline=None)
@given(batches(), st.sampled_from(sorted(ADVANTAGES)), st.sampled_from((0.3, 5.0)), st.booleans())
def test_advantages_are_those_of_their_definitions(batch, name: str, clip: float, sample: bool) -> None:
    rewards = batch[0]
    found = ADVANTAGES[name](torch.from_numpy(rewards), clip, "sample" if sample else "population")
    expected = reference_advantages(name, rewards, clip, ddof=int(sample))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("rewards", [[[0.3]], [[-0.1, -0.1, -0.1]], [[1e9, 1e9]]])
def test_a_group_without_differences_teaches_nothing(name: str, rewards) -> None:
    advantages = ADVANTAGES[name](torch.tensor(rewards, dtype=torch.float64), 5.0, "population")
    assert advantages.abs().max() < 1e-12


def test_advantages_do_not_depend_on_scale_or_shift_of_the_reward() -> None:
    rewards = torch.tensor([[-0.004, -0.001, -0.002]], dtype=torch.float64)
    torch.testing.assert_close(group_advantages(rewards), group_advantages(1000 * rewards - 7))


def test_the_clip_acts_in_large_groups() -> None:
    rewards = torch.zeros(1, 100, dtype=torch.float64)
    rewards[0, 0] = 1.0
    assert group_advantages(rewards, clip=torch.inf)[0, 0] > 9
    assert group_advantages(rewards)[0, 0] == 5.0


@pytest.mark.parametrize(("gap", "moves"), [(4.9, True), (5.1, False), (-5.1, False)])
def test_beyond_the_clamp_the_divergence_has_no_gradient(gap: float, moves: bool) -> None:
    log_probs = torch.tensor([[-6.0]], requires_grad=True)
    kl_divergence(log_probs, torch.tensor([[-6.0 + gap]]), torch.ones(1, 1)).backward()
    assert log_probs.grad is not None
    assert bool(log_probs.grad.abs() > 0) is moves


def test_the_divergence_pulls_the_policy_back_to_the_reference() -> None:
    log_probs = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    kl_divergence(log_probs, torch.tensor([[-2.0, -0.5]]), torch.ones(1, 2)).backward()
    assert log_probs.grad is not None
    assert log_probs.grad[0, 0] > 0  # more likely than under the reference: descent makes it less likely
    assert log_probs.grad[0, 1] < 0


def test_tokens_behind_the_end_and_empty_sequences_change_nothing() -> None:
    mask = torch.tensor([[True, True, False], [False, False, False]])
    log_probs = torch.tensor([[-1.0, -2.0, 0.0], [0.0, 0.0, 0.0]])
    other = torch.where(mask, log_probs, torch.tensor(-9.0))
    advantages = torch.tensor([1.0, -1.0])
    assert policy_loss(log_probs, advantages, mask) == policy_loss(other, advantages, mask) == pytest.approx(0.75)
    assert kl_divergence(log_probs, other - 1, mask) > 0
    assert torch.isfinite(grpo_loss(log_probs, other, advantages, mask).total)


def test_updates_do_not_depend_on_the_length() -> None:
    short, long = torch.full((1, 2), -1.0, requires_grad=True), torch.full((1, 8), -1.0, requires_grad=True)
    for log_probs in (short, long):
        policy_loss(log_probs, torch.tensor([2.0]), torch.ones_like(log_probs)).backward()
    assert short.grad is not None
    assert long.grad is not None
    assert short.grad.sum() == long.grad.sum()


def test_one_step_makes_the_better_sample_more_likely() -> None:
    logits = torch.zeros(4, requires_grad=True)
    samples, rewards = torch.tensor([0, 1, 2]), torch.tensor([[-0.5, -0.1, -0.3]])
    log_probs = logits.log_softmax(0)[samples][:, None]
    loss: GrpoLoss = grpo_loss(log_probs, log_probs.detach(), group_advantages(rewards).flatten(), torch.ones(3, 1))
    loss.total.backward()
    assert logits.grad is not None
    assert logits.grad.argmin() == 1
    assert logits.grad.argmax() == 0


def test_log_probs_are_those_of_the_sampling_temperature() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    tokens = torch.arange(5)
    expected = np.log(np.exp(logits.numpy() / 0.7) / np.exp(logits.numpy() / 0.7).sum(1, keepdims=True))
    np.testing.assert_allclose(token_log_probs(logits, tokens, 0.7), expected[np.arange(5), np.arange(5)], rtol=1e-5)


def test_gspo_before_any_update_has_the_gradient_of_the_policy_loss() -> None:
    rng = torch.Generator().manual_seed(0)
    log_probs = (-torch.rand(4, 6, generator=rng, dtype=torch.float64)).requires_grad_()
    advantages, mask = torch.tensor([1.0, -1.0, 0.5, -0.5]), torch.arange(6)[None] < torch.tensor([6, 2, 1, 3])[:, None]
    loss = gspo_loss(log_probs, log_probs.detach(), advantages, mask)
    (gradient,) = torch.autograd.grad(loss.total, log_probs)
    (expected,) = torch.autograd.grad(policy_loss(log_probs, advantages, mask), log_probs)
    torch.testing.assert_close(gradient, expected)
    assert loss.ratios.tolist() == [1.0] * 4
    assert not loss.clipped.any()


def test_gspo_clips_whole_sequences_on_the_side_they_should_not_go_further_to() -> None:
    old = torch.zeros(4, 3, dtype=torch.float64)
    log_probs = torch.tensor([0.01, 0.01, -0.01, -0.01], dtype=torch.float64)[:, None].repeat(1, 3).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss = gspo_loss(log_probs, old, advantages, torch.ones(4, 3))
    loss.total.backward()
    assert log_probs.grad is not None
    assert loss.clipped.tolist() == [True, False, False, True]
    assert (log_probs.grad.abs().sum(dim=1) == 0).tolist() == [True, False, False, True]


@pytest.mark.parametrize("apart", [100.0, 1000.0, 1e30])
def test_gspo_of_a_policy_that_ran_away_has_no_gradient_that_is_no_number(apart: float) -> None:
    log_probs = torch.full((2, 3), -1.0, requires_grad=True)
    old = log_probs.detach() - torch.tensor([[apart], [-apart]])
    loss = gspo_loss(log_probs, old, torch.tensor([1.0, -1.0]), torch.ones(2, 3))
    loss.total.backward()
    assert log_probs.grad is not None
    assert loss.clipped.all()
    assert torch.isfinite(loss.total)
    assert log_probs.grad.tolist() == [[0.0] * 3] * 2


def test_gspo_keeps_near_a_reference_if_asked() -> None:
    log_probs, mask = torch.full((2, 3), -1.0), torch.ones(2, 3)
    loss = gspo_loss(log_probs, log_probs, torch.zeros(2), mask, reference=log_probs - 1, beta=0.5)
    assert loss.total == pytest.approx(0.5 * float(kl_divergence(log_probs, log_probs - 1, mask)))
    with pytest.raises(ValueError, match="reference policy"):
        gspo_loss(log_probs, log_probs, torch.zeros(2), mask, beta=0.5)
