"""The masked-attention query decoder (Mask2Former, Cheng et al. 2022) with the heads of OMG-Seg.

One decoder serves three uses that differ only in their queries and in what each query may look at: the learned
object queries of an image, visual prompts (one query each), and [SEG] queries from the language model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.pixel_decoder import GridSize
from talking_points.models.omg_llava.positions import key_positions


@dataclass(frozen=True)
class DecoderContext:
    """What queries look at, per image, computed once: keys and values of each level and mask features.

    values: memory plus level embedding, [(B, h * w, C)], coarsest level first; keys: values plus position.
    mask_features: (B, C, H, W); level_mask_features: the same resized to each level's grid, [(B, C, h, w)].
    """

    keys: list[Tensor]
    values: list[Tensor]
    grids: list[GridSize]
    mask_features: Tensor | None
    level_mask_features: list[Tensor] | None


@dataclass(frozen=True)
class QueryMasks:
    """What each query may look at, per level: bool [(B, Q, h * w)], True where allowed.

    fixed: replaces the predicted masks in the first ``fixed_layers`` layers (in all of them when None).
    within: confines the predicted masks.
    """

    fixed: list[Tensor] | None = None
    within: list[Tensor] | None = None
    fixed_layers: int | None = None

    def is_fixed(self, layer: int) -> bool:
        return self.fixed is not None and (self.fixed_layers is None or layer < self.fixed_layers)


@dataclass
class DecoderTrace:
    """Intermediate values for inspection: queries before and after each layer, and the mask given to each layer."""

    states: list[Tensor] = field(default_factory=list)
    allowed: list[Tensor] = field(default_factory=list)


class Attention(nn.Module):
    """Multi-head attention with separate projections."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(size, size)
        self.k_proj = nn.Linear(size, size)
        self.v_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Queries (B, Q, C), keys and values (B, K, C), ``allowed`` (B, Q, K) bool; gives (B, Q, C)."""

        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        attended = functional.scaled_dot_product_attention(
            split(self.q_proj(queries)),
            split(self.k_proj(keys)),
            split(self.v_proj(values)),
            attn_mask=None if allowed is None else allowed[:, None],
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def alone(self, values: Tensor) -> Tensor:
        """The same when every query sees only itself: the softmax over one key is 1."""
        return self.out_proj(self.v_proj(values))


class QueryDecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward; each with a residual and a norm after it."""

    def __init__(self, config: OmgLlavaConfig) -> None:
        super().__init__()
        size = config.decoder_size
        self.cross_attn = Attention(size, config.decoder_heads)
        self.cross_attn_norm = nn.LayerNorm(size)
        self.self_attn = Attention(size, config.decoder_heads)
        self.self_attn_norm = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, config.query_decoder_ffn_size)
        self.fc2 = nn.Linear(config.query_decoder_ffn_size, size)
        self.ffn_norm = nn.LayerNorm(size)

    def forward(
        self, queries: Tensor, positions: Tensor, keys: Tensor, values: Tensor, allowed: Tensor, isolated: bool
    ) -> Tensor:
        """One layer over queries (B, Q, C). ``isolated`` queries never see one another."""
        queries = self.cross_attn_norm(queries + self.cross_attn(queries + positions, keys, values, allowed))
        if isolated:
            mixed = self.self_attn.alone(queries)
        else:
            located = queries + positions
            mixed = self.self_attn(located, located, queries)
        queries = self.self_attn_norm(queries + mixed)
        return self.ffn_norm(queries + self.fc2(functional.relu(self.fc1(queries))))


def three_layer_mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """The prediction MLPs of Mask2Former: two hidden layers with ReLU."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


class QueryDecoder(nn.Module):
    """The layers, with the head that turns a query into a mask: its product with the mask features."""

    def __init__(self, config: OmgLlavaConfig) -> None:
        super().__init__()
        size = config.decoder_size
        self.layers = nn.ModuleList(QueryDecoderLayer(config) for _ in range(config.query_decoder_layers))
        self.post_norm = nn.LayerNorm(size)
        self.mask_embed = three_layer_mlp(size, size, size)

    def mask_logits(self, queries: Tensor, mask_features: Tensor) -> Tensor:
        """Mask logits (B, Q, H, W) of queries (B, Q, C), before any threshold."""
        return torch.einsum("bqc,bchw->bqhw", self.mask_embed(self.post_norm(queries)), mask_features)

    def _find_allowed(self, queries: Tensor, layer: int, context: DecoderContext, masks: QueryMasks) -> Tensor:
        """Where queries may look in one layer: (B, Q, h * w), every row with at least one cell."""
        level = layer % len(context.grids)
        if masks.fixed is not None and masks.is_fixed(layer):
            allowed = masks.fixed[level]
        else:
            if context.level_mask_features is None:
                raise ValueError("predicted masks need the mask features: encode the images with them")
            # Resizing is linear, so resized features give the resized logits at a fraction of the cost.
            logits = self.mask_logits(queries.detach(), context.level_mask_features[level])
            allowed = logits.flatten(2).sigmoid() >= 0.5
            if masks.within is not None:
                allowed = allowed & masks.within[level]
        return allowed | ~allowed.any(-1, keepdim=True)

    def forward(
        self,
        queries: Tensor,
        positions: Tensor,
        context: DecoderContext,
        masks: QueryMasks | None = None,
        *,
        isolated: bool = False,
        trace: DecoderTrace | None = None,
    ) -> Tensor:
        """Refine queries (B, Q, C) with positions (B, Q, C); the result is taken before the final norm.

        Layer i reads level i mod levels. A query whose mask is empty sees the whole level (as in Mask2Former).
        """
        masks = masks or QueryMasks()
        if trace is not None:
            trace.states.append(queries)
        for index, layer in enumerate(self.layers):
            level = index % len(context.grids)
            allowed = self._find_allowed(queries, index, context, masks)
            queries = layer(queries, positions, context.keys[level], context.values[level], allowed, isolated)
            if trace is not None:
                trace.allowed.append(allowed)
                trace.states.append(queries)
        return queries


def decoder_context(memories: list[Tensor], mask_features: Tensor | None, level_embed: Tensor) -> DecoderContext:
    """Prepare memories [(B, C, h, w)] and mask features (B, C, H, W) for the decoder."""
    grids: list[GridSize] = [(memory.shape[2], memory.shape[3]) for memory in memories]
    values = [memory.flatten(2).transpose(1, 2) + level_embed[level] for level, memory in enumerate(memories)]
    keys = [
        value + key_positions(*grid, value.shape[2], value.device).to(value.dtype)
        for value, grid in zip(values, grids, strict=True)
    ]
    resized = None
    if mask_features is not None:
        resized = [
            functional.interpolate(mask_features, size=grid, mode="bilinear", align_corners=False) for grid in grids
        ]
    return DecoderContext(keys, values, grids, mask_features, resized)


class ClassHead(nn.Module):
    """Open-vocabulary class logits: cosines of pooled queries with text prototypes, the best prototype per class."""

    prototypes: Tensor

    def __init__(self, config: OmgLlavaConfig) -> None:
        super().__init__()
        size = config.decoder_size
        self.scale = config.logit_scale
        self.mask_pooling_norm = nn.LayerNorm(size)
        self.mask_pooling_proj = nn.Linear(size, size)
        self.cls_proj = three_layer_mlp(size, size, config.prototype_size)
        shape = (config.num_classes, config.num_prototypes, config.prototype_size)
        self.register_buffer("prototypes", torch.zeros(shape))

    def forward(self, queries: Tensor, mask_logits: Tensor, mask_features: Tensor) -> Tensor:
        """Normed queries (B, Q, C) with their masks (B, Q, H, W) to logits (B, Q, classes + 1), void last."""
        inside = (mask_logits > 0).to(mask_features.dtype)
        area = inside.sum((-2, -1))[..., None] + 1e-8
        pooled = torch.einsum("bchw,bqhw->bqc", mask_features, inside) / area
        queries = queries + self.mask_pooling_proj(self.mask_pooling_norm(pooled))
        queries = functional.normalize(self.cls_proj(queries), dim=-1)
        cosines = torch.einsum("bqd,kpd->bqkp", queries, self.prototypes.to(queries.dtype)).amax(-1)
        void = cosines.new_zeros(*cosines.shape[:2], 1)
        return torch.cat((cosines, void), dim=-1) * torch.tensor(self.scale).exp().item()
