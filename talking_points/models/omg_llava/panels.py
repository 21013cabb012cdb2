"""Products of a few rows with large weights, for a CPU that writes several sequences at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

PANEL = 64
"""Outputs of a panel: few enough for its columns to be read like one stream, enough for full vector registers."""

FEW_ROWS = range(4, 17)
"""With fewer or more rows the plain product is as fast, or the copy costs more than it saves."""

LARGE = 2**17
"""Numbers in a weight that does not stay in a core's cache: reading it is then what takes the time."""

MEMORY_LIMIT = 2**30
"""Bytes of a model's copied weights; larger models may not fit twice."""


@contextmanager
def weights_in_panels(model: nn.Module, rows: int) -> Iterator[None]:
    """A model whose large float32 linear layers on the CPU multiply a few rows faster, for as long as this lasts.

    BLAS reorders a weight for every product with more than one row, which for eight takes longer than the product.
    Here it is copied once, as panels of ``PANEL`` outputs that each lie in one piece. Weights must not change
    meanwhile. Does nothing for ``rows`` not in ``FEW_ROWS``, or for a model whose copy would exceed ``MEMORY_LIMIT``.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)] if rows in FEW_ROWS else []
    layers = [layer for layer in linear if _is_large(layer)]
    if sum(layer.weight.nbytes for layer in layers) > MEMORY_LIMIT:
        layers = []
    try:
        for layer in layers:
            panels = layer.weight.detach().view(-1, PANEL, layer.in_features).transpose(1, 2).contiguous()
            vars(layer)["forward"] = partial(_forward, layer, panels)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _is_large(layer: nn.Linear) -> bool:
    weight = layer.weight
    known = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.is_contiguous()
    # A forward of its own was put there by somebody else, such as a hook that moves weights between devices.
    free = "forward" not in vars(layer)
    return known and free and weight.numel() >= LARGE and layer.out_features % PANEL == 0


def _forward(layer: nn.Linear, panels: Tensor, rows: Tensor) -> Tensor:
    """The layer's product for rows (..., in), by its panels (P, in, PANEL) where the rows are few."""
    count = rows.numel() // layer.in_features
    if count not in FEW_ROWS:
        return nn.functional.linear(rows, layer.weight, layer.bias)
    product = torch.matmul(rows.reshape(count, -1), panels).transpose(0, 1).reshape(*rows.shape[:-1], -1)
    return product if layer.bias is None else product + layer.bias
