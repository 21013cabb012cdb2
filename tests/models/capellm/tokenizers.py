"""Three kinds of tokenizers that spell coordinates and end markers differently, and a small model on each."""

from __future__ import annotations

import random
from functools import cache
from typing import Any, Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from talking_points.models.answerer import PointAnswerer
from talking_points.models.capellm.configuration import AnswererConfig, vision_settings
from talking_points.models.capellm.presets import tiny_config, train_tokenizer

Kind = Literal["llama3", "split", "digits", "greedy"]
KINDS: tuple[Kind, ...] = ("llama3", "split", "digits", "greedy")

_LLAMA3 = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
NAMES = ("left eye", "right eye", "nose", "left front paw", "right back paw", "root of tail", "beak", "hem")
_ROUND = "\nUser: Where is the left eye?\nReference: It sits above the nose.\nAssistant: "


@cache
def tokenizer_of(kind: Kind) -> PreTrainedTokenizerFast:
    """llama3: three digits are a token, ``]</`` and ``>User`` too. split: the marker ``</s>`` stands alone.

    digits: every digit is a token. greedy: no boundaries at all, so that tokens span numbers, brackets and commas.
    """
    generator = random.Random(0)
    answers = [f"{_ROUND}[0.{generator.randrange(1000):03d},0.{n:03d}]</s>User: Where is" for n in range(1000)]
    if kind == "digits":
        return train_tokenizer([*NAMES, "Where is the of this object?", *answers[:10]])
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer = Tokenizer(models.BPE())
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    if kind != "greedy":
        steps.insert(0, pre_tokenizers.Split(Regex(_LLAMA3), "isolated"))
    if kind == "split":
        steps.insert(0, pre_tokenizers.Split(Regex("</s>"), "isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600 if kind == "greedy" else 2600,
        special_tokens=[begin, end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*answers, *NAMES], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=end)


def small_model(kind: Kind, seed: int = 0, **changes: object) -> PointAnswerer:
    """A model of two blocks and 4 x 4 visual tokens with random weights, strong enough that answers differ."""
    tokenizer = tokenizer_of(kind)
    config = tiny_config(tokenizer, image_size=32, grid=4)
    settings = config.to_dict() | {
        "vision_config": vision_settings(config.vision_config) | {"num_hidden_layers": 1},
        "text_config": config.text_config.to_dict() | {"num_hidden_layers": 2},
        "decimals": 2 if kind == "digits" else 3,
        **changes,
    }
    torch.manual_seed(seed)
    model = PointAnswerer(AnswererConfig(**{key: value for key, value in settings.items() if key != "model_type"}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn_like(parameter) * (0.5 if parameter.ndim > 1 else 0.0) / parameter.shape[-1] ** 0.5
            )
        model.language_model.model.embed_tokens.weight.mul_(20)
    model.tokenizer = tokenizer
    return model.eval()
