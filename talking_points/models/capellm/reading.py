"""Many texts behind one reading of an image: branches that see their beginning and themselves alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from talking_points.models.capellm.modeling import additive


class PackedReader:
    """Reads texts side by side in one row per image, each with positions counted as if it were alone.

    ``beginning`` (B, P, D): embeddings of what every text about an image starts with. Branches are numbered; those
    that exist at first are ``rows``, the image of each (R,). The language model is a Llama with its head.
    """

    def __init__(self, language_model: Any, beginning: Tensor, rows: Sequence[int]) -> None:
        self.language_model = language_model
        self.cache = DynamicCache(config=language_model.config)
        language_model.model(inputs_embeds=beginning, past_key_values=self.cache, use_cache=True)
        count = beginning.shape[1]
        self.images = beginning.shape[0]
        self.dtype, self.device = beginning.dtype, beginning.device
        self.rows = list(rows)
        self.positions = [count] * len(self.rows)
        self.visible = torch.ones(len(self.rows), count, dtype=torch.bool)
        """Which of the columns read so far a branch sees (R, C), in its image's row."""

    def step(self, parents: Sequence[int], tokens: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """Read further ``tokens`` behind branches; the same branch may go on in several ways.

        Returns the logits (R, V) behind the last token of each, and the numbers of the branches that they now are;
        branches that are not among the parents are given up.
        """
        rows = [self.rows[parent] for parent in parents]
        places, used = [], [0] * self.images
        for row, ids in zip(rows, tokens, strict=True):
            places.append(used[row])
            used[row] += len(ids)
        width, before = max(used), self.visible.shape[1]

        input_ids = torch.zeros(self.images, width, dtype=torch.long)
        positions = torch.zeros(self.images, width, dtype=torch.long)
        mask = torch.zeros(self.images, width, before + width, dtype=torch.bool)
        mask[:, torch.arange(width), before + torch.arange(width)] = True  # padding sees itself: no row is empty
        visible = torch.zeros(len(rows), before + width, dtype=torch.bool)
        visible[:, :before] = self.visible[list(parents)]
        for number, (row, parent, ids, place) in enumerate(zip(rows, parents, tokens, places, strict=True)):
            here = slice(place, place + len(ids))
            there = slice(before + place, before + place + len(ids))
            input_ids[row, here] = torch.tensor(list(ids))
            positions[row, here] = self.positions[parent] + torch.arange(len(ids))
            mask[row, here, :before] = visible[number, :before]
            mask[row, here, there] = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
            visible[number, there] = True

        output = self.language_model.model(
            input_ids=input_ids.to(self.device),
            attention_mask=additive(mask.to(self.device), self.dtype),
            position_ids=positions.to(self.device),
            past_key_values=self.cache,
            use_cache=True,
        )
        last = torch.tensor([place + len(ids) - 1 for place, ids in zip(places, tokens, strict=True)])
        hidden = output.last_hidden_state[torch.tensor(rows, device=self.device), last.to(self.device)]
        self.positions = [self.positions[parent] + len(ids) for parent, ids in zip(parents, tokens, strict=True)]
        self.rows, self.visible = rows, visible
        return self.language_model.lm_head(hidden), list(range(len(rows)))


def shared_beginning(texts: Sequence[Sequence[int]]) -> int:
    """How many tokens all texts start with in common; at least one of each is left."""
    shortest = min(map(len, texts)) - 1
    for place in range(shortest):
        if any(ids[place] != texts[0][place] for ids in texts):
            return place
    return shortest
