"""Multi-scale deformable pixel decoder (Deformable DETR, Zhu et al. 2021; Mask2Former, Cheng et al. 2022).

Plain PyTorch: sampling is ``grid_sample``, so it runs anywhere PyTorch does. Module for module equal to
``Mask2FormerPixelDecoder`` of transformers, which fixes levels, points and group count and is not public.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.positions import image_positions

GridSize = tuple[int, int]


class ZeroLinear(nn.Linear):
    """A linear map that a model trained from scratch starts as zero."""

    def initial_bias(self) -> Tensor:
        return torch.zeros(self.out_features)


class SamplingOffsets(ZeroLinear):
    """Where each head's points lie relative to the query, in cells: (x, y) per head, level and point."""

    def __init__(self, size: int, heads: int, levels: int, points: int) -> None:
        super().__init__(size, heads * levels * points * 2)
        self.heads, self.levels, self.points = heads, levels, points

    def initial_bias(self) -> Tensor:
        """Each head looks its own way, each of its points one step farther."""
        angle = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        direction = torch.stack((angle.cos(), angle.sin()), -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        grid = direction[:, None, None, :] * steps[None, None, :, None]
        return grid.expand(-1, self.levels, -1, -1).flatten()


class DeformableAttention(nn.Module):
    """Every query reads a few sampled positions of every level instead of all keys."""

    def __init__(self, size: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = SamplingOffsets(size, heads, levels, points)
        self.attention_weights = ZeroLinear(size, heads * levels * points)
        self.value_proj = nn.Linear(size, size)
        self.output_proj = nn.Linear(size, size)

    def forward(self, queries: Tensor, values: Tensor, references: Tensor, grids: list[GridSize]) -> Tensor:
        """Queries with position (B, N, C), values (B, N, C) of all ``grids`` in turn, references (N, 2) in [0, 1]."""
        batch, count, size = queries.shape
        heads, levels, points = self.heads, self.levels, self.points
        # Heads join the batch before any gathering, so that every later step works on contiguous memory.
        values = self.value_proj(values).view(batch, count, heads, size // heads).permute(0, 2, 3, 1)
        values = values.reshape(batch * heads, size // heads, count)
        offsets = self.sampling_offsets(queries).view(batch, count, heads, levels, points, 2)
        weights = self.attention_weights(queries).view(batch, count, heads, levels * points).softmax(-1)
        offsets = offsets.permute(3, 0, 2, 1, 4, 5).reshape(levels, batch * heads, count, points, 2)
        weights = weights.view(batch, count, heads, levels, points).permute(3, 0, 2, 1, 4)
        weights = weights.reshape(levels, batch * heads, 1, count, points)

        output = values.new_zeros(batch * heads, size // heads, count)
        start = 0
        for level, (height, width) in enumerate(grids):
            image = values[:, :, start : start + height * width].view(batch * heads, -1, height, width)
            start += height * width
            # grid_sample wants [-1, 1]; an offset is one cell of the sampled level.
            location = (2 * references - 1)[None, :, None, :] + offsets[level] * (
                2 / offsets.new_tensor([width, height])
            )
            sampled = functional.grid_sample(image, location, padding_mode="zeros", align_corners=False)
            output = output + (sampled * weights[level]).sum(-1)
        return self.output_proj(output.view(batch, size, count).transpose(1, 2))


class PixelDecoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each with a residual and a norm after it."""

    def __init__(self, config: OmgLlavaConfig) -> None:
        super().__init__()
        size = config.decoder_size
        self.self_attn = DeformableAttention(
            size, config.decoder_heads, config.deformable_levels, config.deformable_points
        )
        self.self_attn_norm = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, config.pixel_decoder_ffn_size)
        self.fc2 = nn.Linear(config.pixel_decoder_ffn_size, size)
        self.ffn_norm = nn.LayerNorm(size)

    def forward(self, tokens: Tensor, positions: Tensor, references: Tensor, grids: list[GridSize]) -> Tensor:
        """Tokens (B, N, C) of all levels, coarsest level first."""
        attended = self.self_attn(tokens + positions, tokens, references, grids)
        tokens = self.self_attn_norm(tokens + attended)
        return self.ffn_norm(tokens + self.fc2(functional.relu(self.fc1(tokens))))


def _projection(inputs: int, outputs: int, groups: int, kernel: int, bias: bool) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
    return nn.Sequential(convolution, nn.GroupNorm(groups, outputs))


class PixelDecoder(nn.Module):
    """Backbone stages to the memories of the query decoder and to the finest features, which masks are read from."""

    def __init__(self, config: OmgLlavaConfig) -> None:
        super().__init__()
        size, groups, levels = config.decoder_size, config.group_norm_groups, config.deformable_levels
        channels = list(config.vision_config.hidden_sizes)
        self.levels = levels
        self.input_projections = nn.ModuleList(
            _projection(inputs, size, groups, kernel=1, bias=True) for inputs in reversed(channels[-levels:])
        )
        self.level_embed = nn.Parameter(torch.zeros(levels, size))
        self.layers = nn.ModuleList(PixelDecoderLayer(config) for _ in range(config.pixel_decoder_layers))
        finer = list(reversed(channels[:-levels]))
        self.lateral_projections = nn.ModuleList(
            _projection(inputs, size, groups, kernel=1, bias=False) for inputs in finer
        )
        self.output_projections = nn.ModuleList(_projection(size, size, groups, kernel=3, bias=False) for _ in finer)
        self.mask_projection = nn.Conv2d(size, size, kernel_size=1)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Stage outputs, finest first, to memories [(B, C, h, w)], coarsest first, and mask features (B, C, H, W)."""
        coarse = [project(stage) for project, stage in zip(self.input_projections, reversed(features), strict=False)]
        grids: list[GridSize] = [(level.shape[2], level.shape[3]) for level in coarse]
        device, dtype, size = coarse[0].device, coarse[0].dtype, coarse[0].shape[1]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in coarse], dim=1)
        positions = torch.cat(
            [
                image_positions(*grid, size, device).to(dtype).flatten(2).transpose(1, 2) + self.level_embed[index]
                for index, grid in enumerate(grids)
            ],
            dim=1,
        )
        references = torch.cat([cell_centres(*grid, device) for grid in grids]).to(dtype)
        for layer in self.layers:
            tokens = layer(tokens, positions, references, grids)
        memories = [
            part.transpose(1, 2).unflatten(2, grid)
            for part, grid in zip(tokens.split([height * width for height, width in grids], dim=1), grids, strict=True)
        ]
        finest = memories[-1]
        for lateral, output, stage in zip(
            self.lateral_projections, self.output_projections, reversed(features[: -self.levels]), strict=True
        ):
            upsampled = functional.interpolate(finest, size=stage.shape[2:], mode="bilinear", align_corners=False)
            finest = functional.relu(output(lateral(stage) + upsampled))
        return memories, self.mask_projection(finest)


def cell_centres(height: int, width: int, device: torch.device) -> Tensor:
    """Centres (x, y) of the cells of a grid, row by row, in [0, 1]: (height * width, 2)."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1).flatten(0, 1)
