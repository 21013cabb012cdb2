"""The tiny segmenter: its sizes, its tokens for coordinates, and where their embeddings start."""

from __future__ import annotations

import math

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from talking_points.grounding.lattice import lattice_numbers
from talking_points.models.outline_decoding import CLOSE, LATTICE_FORMS, OPEN, PART
from talking_points.models.presets import tiny_config
from talking_points.models.segmenter import Segmenter
from talking_points.models.segmenter_configuration import SegmenterConfig


def segmenter_config(
    tokenizer: PreTrainedTokenizerBase, image_size: int, stem_stride: int, lattice: int
) -> SegmenterConfig:
    """``tiny_config`` for a segmenter: images stretched to the square, no object tokens, coordinates on a lattice."""
    tiny = tiny_config(tokenizer, image_size, stem_stride).to_dict()
    tiny.pop("model_type")
    tiny |= {
        "lattice": lattice,
        "image_frame": "stretched",
        "object_tokens": False,
        "image_positions": True,
        "max_new_tokens": 96,
    }
    return SegmenterConfig(**tiny)


def add_lattice(tokenizer: PreTrainedTokenizerFast, lattice: int) -> None:
    """Give a tokenizer tokens for outlines: two a point.

    A point's x is one token with what stands before and behind it, ``], [0.500, `` (``0.500, `` for the first of an
    outline, and in boxes), its y another; ``[[[``, ``]], [[`` and ``]]]`` begin an answer, part outlines and end it.
    """
    numbers = lattice_numbers(lattice)
    tokens = [OPEN, CLOSE, PART, *(form.format(number) for form in LATTICE_FORMS for number in numbers)]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])


@torch.no_grad()
def order_lattice(model: Segmenter) -> None:
    """Start the embeddings of a lattice's numbers, and of places in the image, as waves: what is near is alike then."""
    tokenizer, lattice = model.text_tokenizer, model.config.lattice
    assert lattice is not None
    numbers = lattice_numbers(lattice)
    codes = _waves(torch.arange(lattice + 1) / lattice)
    generator = torch.Generator().manual_seed(0)
    places = model.image_positions
    if places is not None:
        _order_places(places.weight, codes.shape[1], generator)
    for layer in (model.language_model.get_input_embeddings(), model.language_model.get_output_embeddings()):
        weight = layer.weight
        spread = weight.std()
        mixing = torch.randn(codes.shape[1], weight.shape[1], generator=generator)
        base = codes @ mixing
        base = base / base.std() * spread
        for form in LATTICE_FORMS:
            ids = tokenizer.convert_tokens_to_ids([form.format(number) for number in numbers])
            own = torch.randn(weight.shape[1], generator=generator) * spread
            weight[ids] = (base + own + 0.1 * spread * torch.randn(len(ids), weight.shape[1], generator=generator)) / (
                2**0.5
            )


def _order_places(weight: Tensor, waves: int, generator: torch.Generator) -> None:
    """Embeddings (side * side, D) of the places of visual tokens, row by row: the waves of their x and y, mixed."""
    side = math.isqrt(len(weight))
    codes = _waves((torch.arange(side) + 0.5) / side)
    across, down = (codes @ torch.randn(waves, weight.shape[1], generator=generator) for _ in range(2))
    places = (across[None] + down[:, None]).flatten(0, 1)
    weight.copy_(places / places.std())


def _waves(places: Tensor) -> Tensor:
    """Codes (N, 14) of places (N,) from 0 to 1: what lies near has nearly the same."""
    angles = math.pi * places[:, None] * 2.0 ** torch.arange(0, 7)[None]
    return torch.cat((angles.sin(), angles.cos()), 1)
