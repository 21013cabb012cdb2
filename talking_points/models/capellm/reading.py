"""Many texts behind one reading of an image: branches that see their beginning and themselves alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from talking_points.models.capellm.modeling import additive


class PackedReader:
    """Reads texts in one pass behind beginnings that were read once, each with positions as if it were alone.

    ``beginning`` (B, P, D): embeddings of what every text about an image starts with. Branches are numbered; those
    that exist at first are ``rows``, the image of each (R,). The language model is a Llama with its head. Every branch
    is a row of the pass, over the cached beginning of its image: texts never meet, so no attention is wasted on what
    a mask would hide.
    """

    def __init__(self, language_model: Any, beginning: Tensor, rows: Sequence[int]) -> None:
        self.language_model = language_model
        self.cache = DynamicCache(config=language_model.config)
        language_model.model(inputs_embeds=beginning, past_key_values=self.cache, use_cache=True)
        count = beginning.shape[1]
        self.dtype, self.device = beginning.dtype, beginning.device
        self._kept = list(rows)
        """Which row of the cache each branch continues: its image's, until the first step."""
        self.positions = torch.full((len(rows),), count)
        self.visible = torch.ones(len(rows), count, dtype=torch.bool)
        """Which of the columns read so far a branch sees (R, C): all but padding."""

    def step(self, parents: Sequence[int], tokens: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """Read further ``tokens`` behind branches; the same branch may go on in several ways.

        Returns the logits (R, V) behind the last token of each, and the numbers of the branches that they now are;
        branches that are not among the parents are given up.
        """
        return self.language_model.lm_head(self.read(parents, tokens)), list(self._kept)

    def read(self, parents: Sequence[int], tokens: Sequence[Sequence[int]]) -> Tensor:
        """The same, for the last hidden states (R, D)."""
        rows = [self._kept[parent] for parent in parents]
        if rows != list(range(self.cache.layers[0].keys.shape[0])):
            self.cache.batch_select_indices(torch.tensor(rows, device=self.device))
        lengths = torch.tensor([len(ids) for ids in tokens])
        width = int(lengths.max())
        input_ids = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in tokens])
        own = torch.arange(width) < lengths[:, None]
        start = self.positions[list(parents)]
        visible = torch.cat((self.visible[list(parents)], own), dim=1)
        causal = torch.ones(width, width, dtype=torch.bool).tril()
        earlier = torch.ones(width, visible.shape[1] - width, dtype=torch.bool)
        # Padding sees what comes before it, so that no row of the mask is empty; nothing sees padding.
        mask = visible[:, None] & torch.cat((earlier, causal), dim=1)

        output = self.language_model.model(
            input_ids=input_ids.to(self.device),
            attention_mask=additive(mask.to(self.device), self.dtype),
            position_ids=(start[:, None] + torch.arange(width)).to(self.device),
            past_key_values=self.cache,
            use_cache=True,
        )
        everyone = torch.arange(len(rows), device=self.device)
        hidden = output.last_hidden_state[everyone, (lengths - 1).to(self.device)]
        self.positions, self.visible = start + lengths, visible
        self._kept = list(range(len(rows)))
        return torch.as_tensor(hidden)


def count_shared(texts: Sequence[Sequence[int]]) -> int:
    """How many tokens all texts start with in common; at least one of each is left."""
    shortest = min(map(len, texts)) - 1
    for place in range(shortest):
        if any(ids[place] != texts[0][place] for ids in texts):
            return place
    return shortest
