"""A copy in panels changes how weights are read, not what comes out, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from talking_points.models.omg_llava import panels
from talking_points.models.omg_llava.panels import FEW_ROWS, LARGE, PANEL, weights_in_panels

LONG = LARGE // PANEL
"""With so many inputs one panel is large."""


def in_use(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 3), st.booleans(), st.integers(0, 3))
def test_the_same_product(rows: int, width: int, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(LONG, width * PANEL, bias=bias)
    given_rows = torch.randn(rows, 1, LONG)
    with torch.no_grad(), weights_in_panels(layer, 8):
        assert in_use(layer) == [""]
        found = layer(given_rows)
    with torch.no_grad():
        torch.testing.assert_close(found, layer(given_rows), rtol=1e-4, atol=1e-5)
    assert found.is_contiguous()


@pytest.mark.parametrize(
    ("layer", "rows", "used"),
    [
        (nn.Linear(LONG, PANEL), FEW_ROWS.start, True),
        (nn.Linear(LONG, PANEL), FEW_ROWS.stop, False),
        (nn.Linear(LONG, PANEL), 1, False),
        (nn.Linear(LONG - 1, PANEL), 8, False),
        (nn.Linear(LONG, PANEL + 1), 8, False),
        (nn.Linear(LONG, PANEL, dtype=torch.bfloat16), 8, False),
        (nn.Linear(LONG, PANEL, device="meta"), 8, False),
        (nn.Embedding(LONG, PANEL), 8, False),
    ],
    ids=["few", "many", "one", "small", "odd", "bfloat16", "elsewhere", "not linear"],
)
def test_which_layers(layer: nn.Module, rows: int, used: bool) -> None:
    with weights_in_panels(layer, rows):
        assert bool(in_use(layer)) == used


def test_a_large_model_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(LONG, PANEL), nn.Linear(PANEL, LONG))
    monkeypatch.setattr(panels, "MEMORY_LIMIT", 2 * LARGE * 4 - 1)
    with weights_in_panels(model, 8):
        assert not in_use(model)


def test_nothing_stays_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(LONG, PANEL))
    with pytest.raises(KeyboardInterrupt), weights_in_panels(model, 8):
        raise KeyboardInterrupt
    assert not in_use(model)


def test_somebody_elses_forward_is_kept() -> None:
    layer = nn.Linear(LONG, PANEL)
    own = layer.forward
    vars(layer)["forward"] = own
    with weights_in_panels(nn.Sequential(layer), 8):
        assert vars(layer)["forward"] is own
    assert vars(layer)["forward"] is own


def test_weights_that_changed_are_read_anew() -> None:
    layer, rows = nn.Linear(LONG, PANEL), torch.ones(8, LONG)
    with torch.no_grad():
        for value in (1.0, 2.0):
            layer.weight.fill_(value)
            layer.bias.zero_()
            with weights_in_panels(layer, 8):
                torch.testing.assert_close(layer(rows), torch.full((8, PANEL), value * LONG))
