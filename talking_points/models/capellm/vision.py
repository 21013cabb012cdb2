"""DINOv2 as CapeLLM uses it: normalised patch tokens, positions interpolated by the original rule, small stems."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Dinov2Model

from talking_points.models.capellm.configuration import AnswererConfig

ORIGINAL_OFFSET = 0.1
"""The original adds this to the wanted side before dividing, against rounding; it shifts every position a little."""


class ConvolutionStem(nn.Sequential):
    """Small convolutions whose strides multiply to one patch: (B, 3, H, W) to (B, C, H / patch, W / patch)."""

    def __init__(self, channels: int, hidden_size: int, patch: int) -> None:
        strides = _prime_factors(patch)
        layers: list[nn.Module] = []
        width = channels
        for left, stride in zip(range(len(strides) - 1, -1, -1), strides, strict=True):
            out = max(hidden_size >> left, 16) if left else hidden_size
            kernel, padding = (3, 1) if stride <= 3 else (stride, 0)
            layers.append(nn.Conv2d(width, out, kernel, stride, padding))
            if left:
                layers += [nn.GroupNorm(1, out), nn.GELU()]
            width = out
        super().__init__(*layers)

    @property
    def weight(self) -> Tensor:
        """Of the last layer: DINOv2 asks its patch embedding for the type of its weight."""
        return torch.as_tensor(self[-1].weight)


def _prime_factors(number: int) -> list[int]:
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors or [1]


def build_vision(config: AnswererConfig) -> Dinov2Model:
    """A DINOv2 with the configuration's stem; without a mask token where it starts from random weights."""
    vision = Dinov2Model(config.vision_config)
    if config.stem == "convolution":
        sizes = config.vision_config
        stem = ConvolutionStem(sizes.num_channels, sizes.hidden_size, config.patch_size)
        vision.embeddings.patch_embeddings.projection = stem
    return vision


def bake_positions(positions: Tensor, grid: int, offset: float = ORIGINAL_OFFSET) -> Tensor:
    """Position embeddings (1, 1 + n * n, C) of a pretrained DINOv2 to those of a grid of ``grid`` x ``grid`` patches.

    The original interpolates with a scale of (grid + offset) / n; transformers' own Dinov2Model without the offset,
    which is another place for every patch. Interpolated once, they fit and are left alone. The class token's stays.
    """
    side = math.isqrt(positions.shape[1] - 1)
    if side * side != positions.shape[1] - 1:
        raise ValueError(f"expected positions of a square grid and a class token, found {tuple(positions.shape)}")
    if side == grid:
        return positions
    first, patches = positions[:, :1], positions[:, 1:]
    square = patches.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = (grid + offset) / side
    options = {"scale_factor": (scale, scale)} if offset else {"size": (grid, grid)}
    resized = functional.interpolate(square, mode="bicubic", antialias=False, **options)
    if resized.shape[-2:] != (grid, grid):
        raise ValueError(f"expected {grid} x {grid} positions, interpolation gave {tuple(resized.shape[-2:])}")
    return torch.cat((first, resized.permute(0, 2, 3, 1).flatten(1, 2).to(first)), dim=1)
