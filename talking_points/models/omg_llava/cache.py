"""A key-value cache with room for what is still to be written."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 1.25
"""How much larger than needed the memory of a layer is made when it has to grow."""


class GrowingLayer(DynamicLayer):
    """Keys and values (N, heads, L, size) that grow in place.

    transformers' own layer copies all of a sequence for every token that is added. With a few sequences of one image
    that costs as much as reading the weights. Only for use without gradients.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._key_room, self._value_room = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append states (N, heads, M, size); returns all of them so far."""
        self._key_room, self.keys = _append(self._key_room, self.keys, key_states)
        self._value_room, self.values = _append(self._value_room, self.values, value_states)
        return self.keys, self.values


def make_growing(cache: Cache) -> Cache:
    """A cache that holds the same and grows in place."""
    return Cache(layers=[GrowingLayer(layer.keys, layer.values) for layer in cache.layers])


def _append(room: Tensor, states: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """The memory, made larger where needed, and the view of it that holds ``states`` with ``new`` behind."""
    used = states.shape[-2]
    length = used + new.shape[-2]
    # Sequences that were selected, reordered or cropped lie elsewhere.
    if room.data_ptr() != states.data_ptr() or room.shape[0] != states.shape[0] or room.shape[-2] < length:
        room = states.new_empty((*states.shape[:-2], int(ROOM * length) + 32, states.shape[-1]))
        room[..., :used, :] = states
    room[..., used:length, :] = new
    return room, room[..., :length, :]
