"""Sine encodings of positions: of image cells for keys and of prompt boxes for queries."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def _frequencies(features: int, device: torch.device) -> Tensor:
    """The divisors of a sine encoding of ``features`` numbers: pairs share one frequency."""
    index = torch.arange(features, device=device, dtype=torch.float32)
    return TEMPERATURE ** (2 * torch.div(index, 2, rounding_mode="floor") / features)


def _interleave(angles: Tensor) -> Tensor:
    """Sine of the even, cosine of the odd features, in place: (..., F) -> (..., F)."""
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


def image_positions(height: int, width: int, features: int, device: torch.device) -> Tensor:
    """Sine encoding of the cells of a (height, width) grid: (1, features, height, width), y half before x half.

    Cells count from 1 and are normalised to 2 pi (DETR, Carion et al. 2020, in Mask2Former's form).
    """
    divisors = _frequencies(features // 2, device)

    def axis(size: int) -> Tensor:
        cells = torch.arange(1, size + 1, device=device, dtype=torch.float32)
        return _interleave((cells / (size + 1e-6) * 2 * math.pi)[:, None] / divisors)

    y = axis(height)[:, None, :].expand(height, width, -1)
    x = axis(width)[None, :, :].expand(height, width, -1)
    return torch.cat((y, x), dim=-1).permute(2, 0, 1)[None]


def key_positions(height: int, width: int, features: int, device: torch.device) -> Tensor:
    """Position codes of the query decoder's keys: (1, height * width, features).

    OMG-Seg treats an image as a video of one frame, so its 3-D encoding adds one constant vector to the 2-D one.
    """
    time = torch.full((1,), 2 * math.pi / (1 + 1e-6), device=device)
    constant = _interleave(time[:, None] / _frequencies(features, device))
    return image_positions(height, width, features, device).flatten(2).transpose(1, 2) + constant


def box_positions(boxes: Tensor, features: int) -> Tensor:
    """Sine encoding of normalised boxes (N, 4) as (centre x, centre y, width, height): (N, 4 * features).

    The parts come in the order centre y, centre x, width, height. Values pass through a logit and back, as in
    the official code, which only matters within 1e-5 of 0 and 1.
    """
    boxes = boxes.clamp(0, 1)
    low, high = boxes.clamp(min=1e-5), (1 - boxes).clamp(min=1e-5)
    boxes = low / (low + high)
    angles = boxes[:, [1, 0, 2, 3], None] * 2 * math.pi / _frequencies(features, boxes.device)
    return _interleave(angles).flatten(1)
