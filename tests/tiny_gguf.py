"""A tiny Llama in GGUF with random weights and a byte-level vocabulary, written without torch."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

CONTEXT = 512
_CHANNELS, _HIDDEN, _LAYERS, _HEADS = 64, 128, 2, 2
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def _byte_alphabet() -> list[str]:
    """The printable stand-ins of the 256 bytes in byte-level BPE (Radford et al. 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def write_tiny_gguf(path: Path, seed: int = 0) -> Path:
    """Write the model to ``path`` and return it: float32, two layers of 64 channels, one token per byte."""
    tokens = ["<s>", "</s>", *_byte_alphabet(), "th"]
    kinds = [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(tokens) - 2)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_CHANNELS)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(_CHANNELS // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(_TEMPLATE)
    draw = np.random.default_rng(seed)

    def matrix(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(f"{name}.weight", draw.normal(0, 0.12, (rows, columns)).astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(_CHANNELS, np.float32))

    matrix("token_embd", len(tokens), _CHANNELS)
    matrix("output", len(tokens), _CHANNELS)
    norm("output_norm")
    for layer in range(_LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}", _CHANNELS, _CHANNELS)
        matrix(f"blk.{layer}.ffn_gate", _HIDDEN, _CHANNELS)
        matrix(f"blk.{layer}.ffn_up", _HIDDEN, _CHANNELS)
        matrix(f"blk.{layer}.ffn_down", _CHANNELS, _HIDDEN)
        norm(f"blk.{layer}.attn_norm")
        norm(f"blk.{layer}.ffn_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
