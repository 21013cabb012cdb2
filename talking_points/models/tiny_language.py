"""The language model of every tiny preset: about 2 million parameters, small enough to train on two CPU cores."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase


def tiny_text_config(tokenizer: PreTrainedTokenizerBase, positions: int) -> dict[str, Any]:
    """A Llama's configuration for texts of up to ``positions`` tokens, but for the ids of special tokens."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
