"""Muon for matrices, AdamW for the rest."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import Muon

from talking_points.training import optimizers
from talking_points.training.optimizers import Float32Muon, MuonAdamW, OneCycle


def test_matrices_are_orthogonalised_and_everything_else_is_not() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"body": nn.Linear(8, 8), "norm": nn.LayerNorm(8), "frozen": nn.Linear(8, 8), "head": nn.Linear(8, 3)}
    )
    model["frozen"].requires_grad_(False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    cycle = OneCycle(MuonAdamW(model, [model["head"]], 1e-2), 1e-2, steps=5)
    hidden = model["norm"](model["body"](torch.randn(16, 8)))
    cycle.step(model["head"](hidden).square().sum(), range(16))
    assert all(parameter.grad is None for parameter in model.parameters())
    changes = {name: (value - before[name]).detach() for name, value in model.named_parameters()}
    assert {name for name, change in changes.items() if change.any()} == {
        "body.weight", "body.bias", "norm.weight", "norm.bias", "head.weight", "head.bias",
    }  # fmt: skip
    # AdamW moves every weight as far in its first step, Muon every direction (the norm leaves seven of eight).
    size = changes["head.weight"].abs()
    torch.testing.assert_close(size, size.mean().expand_as(size), rtol=0.05, atol=0)
    directions = torch.linalg.svdvals(changes["body.weight"])
    assert directions[0] < 2 * directions[6]


@pytest.mark.parametrize("shape", [(24, 24), (48, 16), (16, 48)])
def test_muon_in_float32_is_muon_but_for_the_rounding(shape: tuple[int, int]) -> None:
    """Also when each goes on from the other's state."""
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(4, *shape)
    ends = []
    for kinds in ((Muon, Muon), (Float32Muon, Float32Muon), (Muon, Float32Muon)):
        weight, state = nn.Parameter(start.clone()), None
        for kind, pair in zip(kinds, gradients.split(2), strict=True):
            optimizer = kind([weight], lr=1e-2, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            if state is not None:
                optimizer.load_state_dict(state)
            for weight.grad in pair:
                optimizer.step()
            state = optimizer.state_dict()
        ends.append(weight.detach() - start)
    size = ends[0].square().mean().sqrt()
    for end in ends[1:]:
        assert (end - ends[0]).square().mean().sqrt() < 0.03 * size


@pytest.mark.parametrize(("computes", "kind"), [(True, Muon), (False, Float32Muon)])
def test_a_cpu_without_bfloat16_is_not_asked_for_it(
    computes: bool, kind: type[Muon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "computes_bfloat16", lambda: computes)
    assert type(MuonAdamW(nn.Linear(4, 4), [], 1e-2).parts[0]) is kind


def test_rates_set_from_outside_hold_after_a_checkpoint_was_loaded() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)

    def stepped(optimizer: MuonAdamW) -> MuonAdamW:
        model.zero_grad()
        model(torch.ones(1, 4)).square().sum().backward()
        optimizer.step()
        return optimizer

    saved = stepped(MuonAdamW(model, [], 1e-2)).state_dict()
    optimizer = MuonAdamW(model, [], 1e-2)
    optimizer.load_state_dict(saved)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = model.weight.detach().clone(), model.bias.detach().clone()
    stepped(optimizer)
    assert torch.equal(model.weight, before[0])
    assert torch.equal(model.bias, before[1])
