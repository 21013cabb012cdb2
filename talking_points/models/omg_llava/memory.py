"""How many parameters a configuration has and how much memory it takes, without allocating any of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.modeling import OmgLlavaModel

_FLOAT32, _BFLOAT16 = 4, 2
GIB = 1024**3

Model = TypeVar("Model", bound=OmgLlavaModel)


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Parameters by part: backbone, pixel decoder, query decoder and heads, projectors, language model, adapters."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[_part(name)] += parameter.numel()
    return dict(counts)


def _part(name: str) -> str:
    if ".lora_" in name:
        return "lora_head" if ".lm_head." in name else "lora_layers"
    for prefix, part in (
        ("vision.backbone.", "backbone"),
        ("vision.pixel_decoder.", "pixel_decoder"),
        ("vision.task_decoder.", "task_decoder"),
        ("vision.", "query_decoder"),
        ("projector.", "projector"),
        ("text_projector.", "text_projector"),
        ("coordinate_head.", "coordinate_head"),
        ("language_model.model.embed_tokens.", "embedding"),
        ("language_model.lm_head.", "head"),
    ):
        if name.startswith(prefix):
            return part
    return "language_layers"


def on_meta(kind: type[Model], config: OmgLlavaConfig) -> Model:
    """A model without storage: shapes, names and counts only."""
    with torch.device("meta"):
        return kind(config)


def memory_summary(model: OmgLlavaModel) -> str:
    """Parameter counts by part and the plans for inference and training, as text: what a dry run prints.

    What is trained is what requires gradients in ``model``, which may be on the meta device.
    """
    counts = parameter_counts(model)
    lines = [f"{part:<44}{count / 1e6:10.2f} M" for part, count in (counts | {"total": sum(counts.values())}).items()]
    return "\n".join(["parameters", *lines, "", str(plan_inference(model)), "", str(plan_training(model))])


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose; ``total`` is their sum. Activations are estimates, everything else is exact."""

    purpose: str
    rows: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.rows.values())

    def __str__(self) -> str:
        lines = [f"{name:<44}{size / GIB:8.2f} GiB" for name, size in self.rows.items()]
        return "\n".join([self.purpose, *lines, f"{'total':<44}{self.total / GIB:8.2f} GiB"])


def plan_inference(model: OmgLlavaModel, batch_size: int = 32, images: int = 8, tokens: int = 700) -> MemoryPlan:
    """Memory to describe or localize ``batch_size`` points, ``images`` encoded at a time, ``tokens`` per sequence."""
    text = model.config.text_config
    weights = _weight_bytes(model)
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * _BFLOAT16
    rows = {
        **weights,
        f"key-value cache, {batch_size} x {tokens} tokens": cache * batch_size * tokens,
        f"vision activations, {images} images": images * vision_activation_bytes(model.config),
    }
    return MemoryPlan("inference (bfloat16 language model, float32 vision)", rows)


def plan_training(model: OmgLlavaModel, batch_size: int = 8, tokens: int = 700) -> MemoryPlan:
    """Memory to train what requires gradients, from cached vision features, with checkpointed activations."""
    text = model.config.text_config
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    per_layer = batch_size * tokens * text.hidden_size * _BFLOAT16
    # Inside the one block that is recomputed at a time: attention and feed-forward intermediates.
    block = batch_size * tokens * (8 * text.hidden_size + 4 * text.intermediate_size) * _BFLOAT16
    answer = batch_size * tokens // 4 * text.vocab_size * _FLOAT32 * 2
    rows = {
        **_weight_bytes(model, frozen_only=True),
        "trainable weights (float32)": trainable * _FLOAT32,
        "gradients (float32)": trainable * _FLOAT32,
        "Adam moments (float32)": 2 * trainable * _FLOAT32,
        f"checkpoints, {batch_size} x {tokens} tokens": per_layer * text.num_hidden_layers,
        "one block while it is recomputed": block,
        "logits of a quarter of the tokens": answer,
    }
    return MemoryPlan(f"training ({trainable / 1e9:.2f} billion trainable parameters)", rows)


def vision_activation_bytes(config: OmgLlavaConfig) -> int:
    """Peak of one image in the vision path: its finest stage in a block (4 x wider) and the features that are kept."""
    stride = int(config.vision_config.patch_size)
    finest = (config.image_size // stride) ** 2
    block = 6 * finest * config.vision_config.hidden_sizes[0]
    kept = 3 * finest * config.decoder_size
    masks = finest * config.num_queries * 2
    return (block + kept + masks) * _FLOAT32


def _weight_bytes(model: OmgLlavaModel, frozen_only: bool = False) -> dict[str, int]:
    sizes = {"vision weights (float32)": 0, "language model and projectors (bfloat16)": 0}
    for name, parameter in model.named_parameters():
        if frozen_only and parameter.requires_grad:
            continue
        if name.startswith("vision."):
            sizes["vision weights (float32)"] += parameter.numel() * _FLOAT32
        else:
            sizes["language model and projectors (bfloat16)"] += parameter.numel() * _BFLOAT16
    return sizes
