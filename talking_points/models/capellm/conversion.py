"""An official CapeLLM checkpoint folder, or two pretrained models, to one Point Answerer.

A release holds ``vision_model.safetensors`` (DINOv2 and its adapters), ``mm_projector.safetensors``,
``adapter_model.safetensors`` (the language model's adapters), ``adapter_config.json`` and a tokenizer; the language
model itself is its own download. Every key is accounted for before anything is made.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Dinov2Model,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from talking_points.hub_commits import pinned
from talking_points.models.answerer import PointAnswerer
from talking_points.models.capellm.configuration import AnswererConfig, vision_settings
from talking_points.models.capellm.lora import TARGETS
from talking_points.models.capellm.release_files import PARTS, ConversionError, check_parts
from talking_points.models.capellm.vision import ORIGINAL_OFFSET, bake_positions
from talking_points.models.hub_weights import check_hub_weights
from talking_points.models.model_folders import loading
from talking_points.regular_files import WHOLE, check_regular, read_text
from talking_points.tensor_files import load_tensors

_BLOCK = {
    "attn.proj": "attention.o_proj",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
_TOP = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}


def official_name(key: str) -> str:
    """A key as the official code spells it, without the wrappers that peft and checkpoints put round it."""
    key = key.replace(".default.", ".").removeprefix("base_model.model.")
    for part in ("vision_model.", "mm_projector."):
        if part in key:
            return key[key.index(part) :]
    return key


def convert_weights(
    official: Mapping[str, Tensor], config: AnswererConfig, offset: float = ORIGINAL_OFFSET
) -> dict[str, Tensor]:
    """Official tensors to ours: fused projections are split, positions baked. Unknown keys raise ``ConversionError``.

    Layers that carry adapters are named as peft names them where the configuration says that adapters are active.
    """
    converted: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in official.items():
        name = official_name(key)
        if name == "vision_model.pos_embed":
            tensor = bake_positions(tensor, config.image_size // config.patch_size, offset)
        found = _convert(name, tensor)
        if found is None:
            unknown.append(key)
            continue
        converted |= found
    if unknown:
        raise ConversionError(f"expected weights of CapeLLM, found {len(unknown)} unknown keys: {sorted(unknown)[:5]}")
    if config.lora_active:
        converted = {_wrap_key(key): tensor for key, tensor in converted.items()}
    return converted


def _convert(key: str, tensor: Tensor) -> dict[str, Tensor] | None:
    if key.startswith("vision_model."):
        found = _vision(key.removeprefix("vision_model."), tensor)
        return None if found is None else {f"vision.{name}": value for name, value in found.items()}
    if key.startswith("mm_projector."):
        return {key.replace("mm_projector.", "projector."): tensor}
    if key.startswith(("model.", "lm_head.")):
        return {f"language_model.{key}": tensor}
    return None


def _vision(key: str, tensor: Tensor) -> dict[str, Tensor] | None:
    if key in _TOP:
        return {_TOP[key]: tensor}
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", key)
    if block is None:
        return None
    layer, name = f"encoder.layer.{block[1]}", block[2]
    if adapter := re.fullmatch(r"attn\.lora_([AB])_([qv])", name):
        return {f"{layer}.attention.{adapter[2]}_proj.lora_{adapter[1]}.default.weight": tensor}
    if fused := re.fullmatch(r"attn\.qkv\.(weight|bias)", name):
        return {
            f"{layer}.attention.{part}_proj.{fused[1]}": piece.clone()
            for part, piece in zip("qkv", tensor.chunk(3), strict=True)
        }
    if re.fullmatch(r"(norm[12]|mlp\.fc[12])\.(weight|bias)", name):
        return {f"{layer}.{name}": tensor}
    for theirs, ours in _BLOCK.items():
        if name == theirs or re.fullmatch(rf"{re.escape(theirs)}\.(weight|bias)", name):
            return {f"{layer}.{name.replace(theirs, ours)}": tensor}
    return None


def _wrap_key(key: str) -> str:
    """The key as it is once peft has wrapped the adapted layers."""
    key = re.sub(r"\.lora_([AB])\.weight$", r".lora_\1.default.weight", key)
    return re.sub(rf"\.({'|'.join(TARGETS)})\.(weight|bias)$", r".\1.base_layer.\2", key)


def read_release(folder: str | Path) -> dict[str, Tensor]:
    """The tensors of a release folder, with official names. Raises ``ConversionError`` naming absent parts."""
    folder = Path(folder)
    check_parts(folder)
    tensors: dict[str, Tensor] = {}
    for part in PARTS:
        for key, tensor in load_tensors(folder / f"{part}.safetensors").items():
            name = official_name(key)
            if part in ("vision_model", "mm_projector") and not name.startswith(f"{part}."):
                name = f"{part}.{name}"
            tensors[name] = tensor
    return tensors


def convert_release(
    folder: str | Path,
    language_model: str | Path | LlamaForCausalLM,
    *,
    base: AnswererConfig | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> PointAnswerer:
    """A Point Answerer with adapters from an official checkpoint folder.

    Args:
        folder: the release; sizes are read from its weights.
        language_model: the base model that the adapters belong to: a folder, a Hub repository, or loaded.
        base: what weights cannot tell: image size (224), attention heads, question, end of an answer. Default: the
            official ones, with a crop padding of 1 and the end as text.
        tokenizer: default: the release's own.

    Raises:
        ConversionError: listing missing parts, unknown and missing keys, and tensors of another shape.
    """
    folder = Path(folder)
    official = read_release(folder)
    language = _language_model(language_model)
    config = infer_config(official, folder, base or AnswererConfig(crop_padding=1.0, answer_end="text"), language)
    # Built without storage and filled: the language model is the one that was loaded, never a second copy of it.
    with torch.device("meta"):
        model = PointAnswerer(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = convert_weights(official, config)
    own = {f"language_model.{name}": tensor for name, tensor in language.state_dict().items()}
    given |= {_wrap_key(name): tensor for name, tensor in own.items() if _wrap_key(name) not in given}
    if "vision.embeddings.mask_token" in expected:
        hidden = config.vision_config.hidden_size
        given.setdefault("vision.embeddings.mask_token", torch.zeros(1, hidden))
    _refuse_other_keys(given, expected)
    model.load_state_dict(given, assign=True)
    _materialise_buffers(model)
    model.tie_weights()
    for file in folder.glob("*token*"):  # the adapters' settings of a release are none of ours: not `loading`
        check_regular(file, WHOLE)
    model.tokenizer = tokenizer or PreTrainedTokenizerFast.from_pretrained(folder)
    _ = model.grammar
    return model.eval()


def infer_config(
    official: Mapping[str, Tensor], folder: Path, base: AnswererConfig, language: LlamaForCausalLM
) -> AnswererConfig:
    """The configuration of official tensors: sizes from their shapes, adapters' scale from ``adapter_config.json``."""
    vision = vision_settings(base.vision_config)
    patch = official["vision_model.patch_embed.proj.weight"]
    blocks = {int(found[1]) for key in official if (found := re.match(r"vision_model\.blocks\.(\d+)\.", key))}
    hidden = patch.shape[0]
    vision |= {
        "hidden_size": hidden,
        "patch_size": patch.shape[-1],
        "num_hidden_layers": len(blocks),
        "mlp_ratio": official["vision_model.blocks.0.mlp.fc1.weight"].shape[0] // hidden,
    }
    if base.vision_config.hidden_size != hidden:
        vision["num_attention_heads"] = max(hidden // 64, 1)  # every published DINOv2 has heads of 64
    adapters = [key for key in official if "lora_A_q" in key]
    settings = folder / "adapter_config.json"
    lora = _read_adapter_settings(settings) if settings.is_file() else {}
    if not adapters:
        raise ConversionError(
            f"expected adapters (lora_A_q, lora_B_q, ...) in {folder / 'vision_model.safetensors'}, found none: that "
            "is DINOv2 as it was before training; take the file of the trained checkpoint"
        )
    config = AnswererConfig(**{**base.to_dict(), "vision_config": vision, "text_config": language.config.to_dict()})
    language_rank = {tensor.shape[0] for key, tensor in official.items() if key.endswith("lora_A.weight")}
    if len(language_rank) != 1:
        raise ConversionError(f"expected adapters of one rank in adapter_model.safetensors, found {language_rank}")
    config.lora_rank = language_rank.pop()
    config.lora_alpha = lora.get("lora_alpha", base.lora_alpha)
    config.vision_lora_rank = official[adapters[0]].shape[0]
    config.lora_active = True
    return config


_OTHER_SCALES = ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "fan_in_fan_out", "layer_replication")
"""Settings of peft by which adapters are added otherwise than by ``lora_alpha`` over the rank."""


def _read_adapter_settings(file: Path) -> dict[str, Any]:
    """``adapter_config.json``. Raises ``ConversionError`` for what it cannot say, and for adapters of another kind."""
    try:
        found = json.loads(read_text(file))
    except ValueError as error:
        raise ConversionError(f"expected JSON in {file}, found something else ({error}): download it again") from error
    alpha = found.get("lora_alpha", 1) if isinstance(found, dict) else None
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise ConversionError(f"expected a positive number as lora_alpha in {file}, found {alpha!r}: download it again")
    other = [name for name in _OTHER_SCALES if found.get(name)]
    if other:
        raise ConversionError(
            f"expected adapters that are scaled by lora_alpha over their rank alone, found {', '.join(other)} in "
            f"{file}: merge them into the language model with peft, or take a checkpoint without"
        )
    return dict(found)


def _refuse_other_keys(given: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    problems = {
        "missing": sorted(expected.keys() - given.keys()),
        "unknown": sorted(given.keys() - expected.keys()),
        "of another shape": sorted(
            f"{name}: {tuple(given[name].shape)} for {shape}"
            for name, shape in expected.items()
            if name in given and tuple(given[name].shape) != shape
        ),
    }
    found = "; ".join(f"{len(keys)} {kind}: {keys[:5]}" for kind, keys in problems.items() if keys)
    if found:
        raise ConversionError(f"the release and the language model do not make one CapeLLM ({found})")


def _materialise_buffers(model: PointAnswerer) -> None:
    """Tables that are computed, not stored: the language model's rotary frequencies."""
    rotary = type(model.language_model.model.rotary_emb)(config=model.config.text_config)
    model.language_model.model.rotary_emb = rotary


def _language_model(given: str | Path | LlamaForCausalLM) -> LlamaForCausalLM:
    if isinstance(given, LlamaForCausalLM):
        return given
    with loading(given, "language model"):
        revision = pinned(given) or "main"
        check_hub_weights(given, {"revision": revision})
        return AutoModelForCausalLM.from_pretrained(given, revision=revision, dtype="auto", trust_remote_code=False)


def assemble(
    vision_model: str | Path | Dinov2Model,
    language_model: str | Path | LlamaForCausalLM,
    config: AnswererConfig,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> PointAnswerer:
    """A Point Answerer to train, from a pretrained DINOv2 and a pretrained Llama (folders, repositories or loaded).

    Positions are baked for the configuration's image size; projector and adapters are new. ``tokenizer``: default
    that of the language model.
    """
    if isinstance(vision_model, Dinov2Model):
        vision = vision_model
    else:
        with loading(vision_model, "vision model"):
            revision = pinned(vision_model) or "main"
            check_hub_weights(vision_model, {"revision": revision})
            vision = Dinov2Model.from_pretrained(vision_model, revision=revision)
    language = _language_model(language_model)
    size = config.image_size
    values = config.to_dict() | {
        "vision_config": vision_settings(vision.config) | {"image_size": size},
        "text_config": language.config.to_dict(),
        "lora_active": False,
    }
    settings: dict[str, Any] = {name: value for name, value in values.items() if name not in ("model_type", "dtype")}
    model = PointAnswerer(AnswererConfig(**settings))
    weights = vision.state_dict()
    name = "embeddings.position_embeddings"
    weights[name] = bake_positions(weights[name], size // model.config.patch_size)
    model.vision.load_state_dict(weights)
    model.language_model = language
    model.add_lora()
    if tokenizer is None and not isinstance(language_model, LlamaForCausalLM):
        with loading(language_model, "tokenizer"):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(
                language_model, revision=pinned(language_model) or "main"
            )
    model.tokenizer = tokenizer
    return model
