"""Names of the official release's parameters and of ours: which goes where, and how its rows are regrouped.

The official key is first brought to one spelling (the releases prefix the same module differently), then
looked up in one table of patterns. A key that no pattern knows is an error for the caller, not a warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

PROTOTYPES = "buffers.cls_prototypes_file"
"""Name given to the class-prototype file, which holds one bare tensor (classes, prototypes, size)."""


@dataclass(frozen=True)
class Heads:
    """The head counts that InternLM2's fused projection is grouped by."""

    attention: int
    key_value: int


@dataclass(frozen=True)
class Target:
    """One of our parameters and how to take it from the official tensor (also from one on the meta device)."""

    name: str
    take: Callable[[Tensor], Tensor] = lambda tensor: tensor


_PREFIXES = (
    (r"^module\.", ""),
    (r"^visual_encoder\.", ""),
    (r"^visual\.trunk\.", "backbone."),
    (r"^llm\.base_model\.model\.", "llm."),
    (r"^(?=(model\.(tok_embeddings|layers|norm)|output)\.)", "llm."),
)

# Parts of the release that OMG-LLaVA never runs: CLIP's text tower and heads, and what is recomputed anyway.
_IGNORED = (
    r"backbone\.(head|norm_pre)\.",
    r"visual\.head\.",
    r"text\.",
    r"(transformer|token_embedding|ln_final)\.",
    r"(positional_embedding|text_projection|logit_scale|logit_bias|attn_mask)$",
    r"llm\..*rotary_emb\.inv_freq$",
)

_BLOCK = {
    "gamma": "layer_scale_parameter",
    "conv_dw": "dwconv",
    "norm": "layernorm",
    "mlp.fc1": "pwconv1",
    "mlp.fc2": "pwconv2",
}
_FFN = {"layers.0.0": "fc1", "layers.1": "fc2"}
_PIXEL_NORMS = {"0": "self_attn_norm", "1": "ffn_norm"}
_QUERY_NORMS = {"0": "cross_attn_norm", "1": "self_attn_norm", "2": "ffn_norm"}
_DECODERS = {"transformer_decoder": "query_decoder", "transformer_decoder_llm": "task_decoder"}
_MASK_HEADS = {"mask_embed": "query_decoder", "mask_embed_llm": "task_decoder"}
_POOLING = {"0": "mask_pooling_norm", "1": "mask_pooling_proj"}
_CONV = {"conv": "0", "gn": "1"}
_PROJECTOR = {"model.": "query_mlp.", "model_feat.": "token_mlp.", "query_proj.": "query_proj."}
_FEED_FORWARD = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
_LAYER_NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}

_RENAMES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"backbone\.stem\.0\.(.+)", lambda m: f"vision.backbone.embeddings.patch_embeddings.{m[1]}"),
    (r"backbone\.stem\.1\.(.+)", lambda m: f"vision.backbone.embeddings.layernorm.{m[1]}"),
    (
        r"backbone\.stages\.(\d+)\.downsample\.([01])\.(.+)",
        lambda m: f"vision.backbone.encoder.stages.{m[1]}.downsampling_layer.{m[2]}.{m[3]}",
    ),
    (
        r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.(gamma|conv_dw|norm|mlp\.fc[12])(.*)",
        lambda m: f"vision.backbone.encoder.stages.{m[1]}.layers.{m[2]}.{_BLOCK[m[3]]}{m[4]}",
    ),
    (
        r"panoptic_head\.pixel_decoder\.input_convs\.(\d+)\.(conv|gn)\.(.+)",
        lambda m: f"vision.pixel_decoder.input_projections.{m[1]}.{_CONV[m[2]]}.{m[3]}",
    ),
    (
        r"panoptic_head\.pixel_decoder\.(lateral|output)_convs\.(\d+)\.(conv|gn)\.(.+)",
        lambda m: f"vision.pixel_decoder.{m[1]}_projections.{m[2]}.{_CONV[m[3]]}.{m[4]}",
    ),
    (
        r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)\.self_attn\.(.+)",
        lambda m: f"vision.pixel_decoder.layers.{m[1]}.self_attn.{m[2]}",
    ),
    (
        r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)\.norms\.([01])\.(.+)",
        lambda m: f"vision.pixel_decoder.layers.{m[1]}.{_PIXEL_NORMS[m[2]]}.{m[3]}",
    ),
    (
        r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)\.ffn\.(layers\.0\.0|layers\.1)\.(.+)",
        lambda m: f"vision.pixel_decoder.layers.{m[1]}.{_FFN[m[2]]}.{m[3]}",
    ),
    (r"panoptic_head\.pixel_decoder\.level_encoding\.weight", lambda m: "vision.pixel_decoder.level_embed"),
    (r"panoptic_head\.pixel_decoder\.mask_feature\.(.+)", lambda m: f"vision.pixel_decoder.mask_projection.{m[1]}"),
    (
        r"panoptic_head\.(transformer_decoder(?:_llm)?)\.layers\.(\d+)\.(cross|self)_attn\.attn\.out_proj\.(.+)",
        lambda m: f"vision.{_DECODERS[m[1]]}.layers.{m[2]}.{m[3]}_attn.out_proj.{m[4]}",
    ),
    (
        r"panoptic_head\.(transformer_decoder(?:_llm)?)\.layers\.(\d+)\.norms\.([012])\.(.+)",
        lambda m: f"vision.{_DECODERS[m[1]]}.layers.{m[2]}.{_QUERY_NORMS[m[3]]}.{m[4]}",
    ),
    (
        r"panoptic_head\.(transformer_decoder(?:_llm)?)\.layers\.(\d+)\.ffn\.(layers\.0\.0|layers\.1)\.(.+)",
        lambda m: f"vision.{_DECODERS[m[1]]}.layers.{m[2]}.{_FFN[m[3]]}.{m[4]}",
    ),
    (
        r"panoptic_head\.(transformer_decoder(?:_llm)?)\.post_norm\.(.+)",
        lambda m: f"vision.{_DECODERS[m[1]]}.post_norm.{m[2]}",
    ),
    (
        r"panoptic_head\.(mask_embed(?:_llm)?)\.([024])\.(.+)",
        lambda m: f"vision.{_MASK_HEADS[m[1]]}.mask_embed.{m[2]}.{m[3]}",
    ),
    (r"panoptic_head\.cls_proj\.([024])\.(.+)", lambda m: f"vision.class_head.cls_proj.{m[1]}.{m[2]}"),
    (r"panoptic_head\.mask_pooling_proj\.([01])\.(.+)", lambda m: f"vision.class_head.{_POOLING[m[1]]}.{m[2]}"),
    (
        r"panoptic_head\.(query_feat|query_embed|level_embed|iou_embed|mask_tokens|pb_embedding|pos_linear)\.(.+)",
        lambda m: f"vision.{m[1]}.{m[2]}",
    ),
    (re.escape(PROTOTYPES), lambda m: "vision.class_head.prototypes"),
    (r"projector\.model\.(model\.|model_feat\.|query_proj\.)(.+)", lambda m: f"projector.{_PROJECTOR[m[1]]}{m[2]}"),
    (r"projector\.model\.seperate_embed\.weight", lambda m: "projector.separator.weight"),
    (r"projector_text2vision\.model\.([02])\.(.+)", lambda m: f"text_projector.mlp.{m[1]}.{m[2]}"),
    (r"llm\.model\.tok_embeddings\.weight", lambda m: "language_model.model.embed_tokens.weight"),
    (r"llm\.model\.norm\.weight", lambda m: "language_model.model.norm.weight"),
    (r"llm\.output\.(?:base_layer\.)?(.+)", lambda m: f"language_model.lm_head.{m[1]}"),
    (
        r"llm\.model\.layers\.(\d+)\.attention\.wo\.(?:base_layer\.)?(.+)",
        lambda m: f"language_model.model.layers.{m[1]}.self_attn.o_proj.{m[2]}",
    ),
    (
        r"llm\.model\.layers\.(\d+)\.feed_forward\.(w[123])\.(?:base_layer\.)?(.+)",
        lambda m: f"language_model.model.layers.{m[1]}.mlp.{_FEED_FORWARD[m[2]]}.{m[3]}",
    ),
    (
        r"llm\.model\.layers\.(\d+)\.(attention_norm|ffn_norm)\.weight",
        lambda m: f"language_model.model.layers.{m[1]}.{_LAYER_NORMS[m[2]]}.weight",
    ),
)
_IN_PROJECTION = re.compile(
    r"panoptic_head\.(transformer_decoder(?:_llm)?)\.layers\.(\d+)\.(cross|self)_attn\.attn\.in_proj_(weight|bias)"
)
_FUSED_QKV = re.compile(
    r"llm\.model\.layers\.(\d+)\.attention\.wqkv\.(?:base_layer\.)?(weight|lora_A\.\w+\.weight|lora_B\.\w+\.weight)"
)


def canonical_key(key: str) -> str:
    """One spelling for a parameter that the released files prefix differently."""
    for pattern, replacement in _PREFIXES:
        key = re.sub(pattern, replacement, key)
    # `layer1` of the full dump is `stages.0` of OpenCLIP.
    return re.sub(r"^backbone\.layer(\d+)\.", lambda m: f"backbone.stages.{int(m[1]) - 1}.", key)


def is_ignored(key: str) -> bool:
    """Whether the model has no use for an official parameter."""
    return any(re.match(pattern, canonical_key(key)) for pattern in _IGNORED)


def targets(key: str, heads: Heads) -> list[Target]:
    """Where an official parameter goes: empty when no pattern knows it."""
    key = canonical_key(key)
    if match := _IN_PROJECTION.fullmatch(key):
        module = f"vision.{_DECODERS[match[1]]}.layers.{match[2]}.{match[3]}_attn"
        return [
            Target(f"{module}.{name}_proj.{match[4]}", lambda tensor, part=part: tensor.chunk(3)[part])  # type: ignore[misc]
            for part, name in enumerate("qkv")
        ]
    if match := _FUSED_QKV.fullmatch(key):
        module = f"language_model.model.layers.{match[1]}.self_attn"
        shared = match[2].startswith("lora_A")  # the low-rank input factor serves all three
        return [
            Target(
                f"{module}.{name}_proj.{match[2]}",
                (lambda tensor: tensor) if shared else (lambda tensor, name=name: select_rows(tensor, name, heads)),  # type: ignore[misc]
            )
            for name in "qkv"
        ]
    for pattern, rename in _RENAMES:
        if match := re.fullmatch(pattern, key):
            return [Target(rename(match))]
    return []


def select_rows(fused: Tensor, part: str, heads: Heads) -> Tensor:
    """The rows of "q", "k" or "v" in InternLM2's fused projection.

    Its rows are grouped by key-value head: first the query heads that share it, then its key, then its value.
    """
    per_group = heads.attention // heads.key_value
    grouped = fused.unflatten(0, (heads.key_value, per_group + 2, -1))
    chosen = {"q": grouped[:, :per_group], "k": grouped[:, -2:-1], "v": grouped[:, -1:]}[part]
    return chosen.flatten(0, 2)
