"""Sizes: the paper's 8B, one for a single consumer card, and one that trains from scratch on two CPU cores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from talking_points.models.capellm.configuration import AnswererConfig
from talking_points.models.tiny_language import tiny_text_config

VISION_MODEL = "facebook/dinov2-large"
LANGUAGE_MODELS = {"paper": "meta-llama/Llama-3.1-8B", "small": "meta-llama/Llama-3.2-1B"}
"""The base models of the presets, as Hub repositories; Llama's licence is for the user to accept."""


def paper_config() -> AnswererConfig:
    """CapeLLM on Llama-3.1-8B: every default is the paper's or the official one. Adapters are active."""
    return AnswererConfig(lora_active=True)


def small_config() -> AnswererConfig:
    """The same on Llama-3.2-1B, which the paper finds 0.6 points behind (Table 4); embeddings and head are tied."""
    config = AnswererConfig(lora_active=True)
    text: dict[str, Any] = config.text_config.to_dict() | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
        "rope_parameters": config.text_config.rope_parameters | {"factor": 32.0},
    }
    return AnswererConfig(text_config=text, lora_active=True)


def tiny_config(tokenizer: PreTrainedTokenizerBase, image_size: int = 96, grid: int = 8) -> AnswererConfig:
    """The same classes in about 3 million parameters: crops of 96 pixels, ``grid`` x ``grid`` visual tokens.

    A stem of small convolutions, two decimals, and a question that says no more than the keypoint; everything is
    trained, without adapters. ``tokenizer``: one in which digits are tokens of their own, as ``train_tokenizer`` makes.
    """
    return AnswererConfig(
        vision_config={
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "mlp_ratio": 2,
            "image_size": image_size,
            "patch_size": image_size // grid,
            "layerscale_value": 0.1,
            "use_mask_token": False,
        },
        text_config={
            **tiny_text_config(tokenizer, positions=2048),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            # Near the inverse root of its width: with 0.02 the loss after 40 steps is 0.85 instead of 0.71.
            "initializer_range": 0.06,
        },
        stem="convolution",
        question="{keypoint}",
        decimals=2,
    )


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = 1024) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learnt from texts, in which every digit is a token and none merges with a neighbour.

    Any string can be encoded. Roles and separators are tokens of their own, so that a tiny model's rounds are short.
    """
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}|[.,\[\]:]|\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[begin, end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, "User: \nReference: \nAssistant: \n" * 64], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=end)
