"""What the frozen vision path knows about images: computed once, stored, shared by all points of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from talking_points.models.omg_llava.pixel_decoder import GridSize


@dataclass(frozen=True)
class VisionFeatures:
    """Features of B images.

    visual_tokens: (B, T, F) space-to-depth backbone features followed by the perception prior.
    object_queries: (B, Q, 2C) query feature and query position of every object query.
    object_valid: (B, Q) bool, the queries that become object tokens.
    image_sizes: (B, 2) int64, width and height of the original images; equal to the frame when never padded.
    frame: height and width in pixels of the frame that was encoded.
    memories: [(B, C, h, w)] coarsest first, and mask_features (B, C, H, W): what visual prompts and [SEG] queries
        look at. Absent in compact features, which then need precomputed prompt features.
    """

    visual_tokens: Tensor
    object_queries: Tensor
    object_valid: Tensor
    image_sizes: Tensor
    frame: GridSize
    memories: tuple[Tensor, ...] | None = None
    mask_features: Tensor | None = None

    def __len__(self) -> int:
        return self.visual_tokens.shape[0]

    @property
    def levels(self) -> tuple[Tensor, ...]:
        """The memories that prompts look at. Refuses compact features."""
        if self.memories is None:
            raise ValueError(
                "compact features cannot answer prompts: pass precomputed prompt features with them, "
                "or encode the images again and keep the memories"
            )
        return self.memories

    @property
    def grids(self) -> list[GridSize]:
        """Height and width of each level, coarsest first."""
        return [(memory.shape[2], memory.shape[3]) for memory in self.levels]

    def compact(self) -> VisionFeatures:
        """Without memories and mask features: a fiftieth of the size, enough for the language model."""
        return replace(self, memories=None, mask_features=None)

    def select(self, index: Sequence[int] | Tensor) -> VisionFeatures:
        """The features of some of the images, in the given order; an image may occur more than once."""
        chosen = torch.as_tensor(index, dtype=torch.long, device=self.visual_tokens.device)
        return self._map(lambda tensor: tensor[chosen.to(tensor.device)])

    def to(self, device: torch.device | str) -> VisionFeatures:
        """All tensors on ``device``."""
        return self._map(lambda tensor: tensor.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """A flat mapping that safetensors can store; ``from_tensors`` reads it back."""
        result = {"frame": torch.tensor(self.frame)}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                result[item.name] = value.contiguous()
            elif item.name == "memories" and value is not None:
                result.update({f"memories.{level}": memory.contiguous() for level, memory in enumerate(value)})
        return result

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> VisionFeatures:
        """The features stored by ``tensors``."""
        levels = sum(name.startswith("memories.") for name in tensors)
        height, width = tensors["frame"].tolist()
        return cls(
            visual_tokens=tensors["visual_tokens"],
            object_queries=tensors["object_queries"],
            object_valid=tensors["object_valid"],
            image_sizes=tensors["image_sizes"],
            frame=(height, width),
            memories=tuple(tensors[f"memories.{level}"] for level in range(levels)) or None,
            mask_features=tensors.get("mask_features"),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[VisionFeatures]) -> VisionFeatures:
        """One batch of several, which must have the same frame and all or none be compact."""
        if len({part.frame for part in parts}) != 1:
            raise ValueError(f"expected features of one frame size, found {sorted({part.frame for part in parts})}")
        compact = any(part.memories is None for part in parts)
        parts = [part.compact() for part in parts] if compact else parts
        first = parts[0]
        joined: dict[str, Any] = {
            item.name: torch.cat([getattr(part, item.name) for part in parts])
            for item in fields(cls)
            if isinstance(getattr(first, item.name), Tensor)
        }
        memories = None
        if first.memories is not None:
            memories = tuple(
                torch.cat([part.memories[level] for part in parts if part.memories is not None])
                for level in range(len(first.memories))
            )
        return replace(first, **joined, memories=memories)

    def _map(self, function: Callable[[Tensor], Tensor]) -> VisionFeatures:
        changed: dict[str, Any] = {
            item.name: function(getattr(self, item.name))
            for item in fields(self)
            if isinstance(getattr(self, item.name), Tensor)
        }
        memories = None if self.memories is None else tuple(function(memory) for memory in self.memories)
        return replace(self, **changed, memories=memories)
