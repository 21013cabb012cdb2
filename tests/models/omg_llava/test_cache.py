"""The growing cache holds what transformers' own holds, whatever is done to it."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from talking_points.models.omg_llava.cache import make_growing

STEPS = st.lists(st.one_of(st.integers(1, 40), st.sampled_from(["select", "repeat", "crop"])), max_size=12)


def states(random: torch.Generator, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 2, length, 4, generator=random), torch.randn(batch, 2, length, 3, generator=random)


def both(cache: Cache) -> tuple[torch.Tensor, torch.Tensor]:
    layer = cache.layers[0]
    assert isinstance(layer, DynamicLayer)
    return layer.keys, layer.values


@given(STEPS)
def test_the_same_as_the_plain_cache(steps: list[int | str]) -> None:
    random = torch.Generator().manual_seed(0)
    plain = DynamicCache()
    plain.update(*states(random, 2, 5), 0)
    growing = make_growing(plain)
    for step in steps:
        batch = both(plain)[0].shape[0]
        if step == "select":
            order = torch.arange(batch).flip(0)
            plain.batch_select_indices(order)
            growing.batch_select_indices(order)
        elif step == "repeat":
            plain.batch_repeat_interleave(2 if batch < 8 else 1)
            growing.batch_repeat_interleave(2 if batch < 8 else 1)
        elif step == "crop":
            plain.crop(-1)
            growing.crop(-1)
        else:
            added = states(random, batch, int(step))
            found = growing.update(*added, 0)
            for ours, theirs in zip(found, plain.update(*added, 0), strict=True):
                assert torch.equal(ours, theirs)
    assert growing.get_seq_length() == plain.get_seq_length()
    for ours, theirs in zip(both(growing), both(plain), strict=True):
        assert torch.equal(ours, theirs)


def test_tokens_are_added_in_place() -> None:
    random = torch.Generator().manual_seed(0)
    plain = DynamicCache()
    plain.update(*states(random, 2, 5), 0)
    growing = make_growing(plain)
    growing.update(*states(random, 2, 1), 0)
    places = set()
    for _ in range(20):
        growing.update(*states(random, 2, 1), 0)
        places.add(both(growing)[0].data_ptr())
    assert len(places) == 1
