"""The bridges between the vision path and the language model, one in each direction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.features import VisionFeatures


def _two_layer_mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


class VisionToText(nn.Module):
    """Pixel tokens and object tokens of an image, and visual prompts, to the language model's embedding space."""

    def __init__(self, config: OmgLlavaConfig) -> None:
        super().__init__()
        hidden, visual, query = config.text_config.hidden_size, config.visual_token_size, config.query_size
        self.query_proj = nn.Linear(query, visual)
        self.query_mlp = _two_layer_mlp(visual, hidden, hidden)
        self.token_mlp = _two_layer_mlp(visual + query, hidden, hidden)
        self.separator = nn.Embedding(1, hidden)

    def queries(self, queries: Tensor) -> Tensor:
        """Object queries or prompts (..., 2C) to tokens (..., D)."""
        return self.query_mlp(self.query_proj(queries.to(self.query_proj.weight)))

    def forward(self, features: VisionFeatures) -> list[Tensor]:
        """Per image its pixel tokens, one separator and its valid object tokens: [(T + 1 + K_b, D)]."""
        pixels = self.token_mlp(features.visual_tokens.to(self.query_proj.weight))
        objects = self.queries(features.object_queries[features.object_valid])
        counts = features.object_valid.sum(1).tolist()
        return [
            torch.cat((pixel, self.separator.weight, chosen))
            for pixel, chosen in zip(pixels, objects.split(counts), strict=True)
        ]


class TextToVision(nn.Module):
    """The hidden state at [SEG] to a query of the mask decoder: its feature and its position."""

    def __init__(self, config: OmgLlavaConfig) -> None:
        super().__init__()
        self.mlp = _two_layer_mlp(config.text_config.hidden_size, config.query_size, config.query_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., 2C)."""
        return self.mlp(hidden.to(next(self.mlp.parameters())))
