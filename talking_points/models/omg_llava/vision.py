"""OMG-Seg's vision path as OMG-LLaVA uses it: images to visual tokens, prompts to queries, queries to masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from talking_points.models.omg_llava.backbone import OmgBackbone
from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.omg_llava.perception_prior import (
    perception_prior,
    query_scores,
    valid_queries,
    weigh_masks,
)
from talking_points.models.omg_llava.pixel_decoder import PixelDecoder
from talking_points.models.omg_llava.positions import box_positions
from talking_points.models.omg_llava.query_decoder import (
    ClassHead,
    DecoderContext,
    DecoderTrace,
    QueryDecoder,
    QueryMasks,
    decoder_context,
    three_layer_mlp,
)


class OmgVision(nn.Module):
    """Backbone, pixel decoder, query decoder and heads. Everything here is frozen in OMG-LLaVA's later stages."""

    def __init__(self, config: OmgLlavaConfig) -> None:
        super().__init__()
        size = config.decoder_size
        self.config = config
        self.backbone = OmgBackbone(config.vision_config)
        self.pixel_decoder = PixelDecoder(config)
        self.query_decoder = QueryDecoder(config)
        self.task_decoder = QueryDecoder(config) if config.task_decoder else None
        self.class_head = ClassHead(config)
        self.iou_embed = three_layer_mlp(size, size, 1)
        self.query_feat = nn.Embedding(config.num_queries, size)
        self.query_embed = nn.Embedding(config.num_queries, size)
        self.level_embed = nn.Embedding(config.deformable_levels, size)
        self.mask_tokens = nn.Embedding(1, size)
        self.pb_embedding = nn.Embedding(2, size)
        self.pos_linear = nn.Linear(2 * size, size)

    def context(self, features: VisionFeatures) -> DecoderContext:
        """What prompts and [SEG] queries look at; refuses compact features."""
        return decoder_context(list(features.levels), features.mask_features, self.level_embed.weight)

    def object_queries(self, context: DecoderContext, trace: DecoderTrace | None = None) -> tuple[Tensor, Tensor]:
        """The main pass of the learned queries: features and positions, both (B, Q, C)."""
        batch = context.values[0].shape[0]
        queries = self.query_feat.weight.expand(batch, -1, -1)
        positions = self.query_embed.weight.expand(batch, -1, -1)
        return self.query_decoder(queries, positions, context, trace=trace), positions

    def space_to_depth(self, coarsest: Tensor) -> Tensor:
        """Blocks of cells of (B, C, h, w) as tokens (B, T, block * C), row by row, the cell's place slowest."""
        block = self.config.space_to_depth
        batch, channels, height, width = coarsest.shape
        cells = coarsest.view(batch, channels, height // block, block, width // block, block)
        return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, block * block * channels)

    def forward(self, pixel_values: Tensor, image_sizes: Tensor | None = None) -> VisionFeatures:
        """Normalised pixels (B, 3, H, W), both sides multiples of the visual token stride.

        ``image_sizes`` (B, 2) are width and height of the images before padding (default: the frame's).
        """
        height, width = pixel_values.shape[2:]
        stride = self.config.visual_token_stride
        if height % stride or width % stride:
            raise ValueError(f"expected image sides that are multiples of {stride}, found {height} x {width}")
        stages = self.backbone(pixel_values)
        memories, mask_features = self.pixel_decoder(stages)
        context = decoder_context(memories, mask_features, self.level_embed.weight)
        queries, positions = self.object_queries(context)
        mask_logits = self.query_decoder.mask_logits(queries, mask_features)
        normed = self.query_decoder.post_norm(queries)
        scores = query_scores(self.class_head(normed, mask_logits, mask_features))
        tokens = (height // stride, width // stride)
        weighted = weigh_masks(mask_logits, scores, (height, width), tokens)
        object_queries = torch.cat((queries, positions), dim=-1)
        prior = perception_prior(weighted, object_queries)
        if image_sizes is None:
            image_sizes = torch.tensor([[width, height]]).expand(len(pixel_values), -1)
        return VisionFeatures(
            visual_tokens=torch.cat((self.space_to_depth(stages[-1]), prior), dim=-1),
            object_queries=object_queries,
            object_valid=valid_queries(weighted),
            image_sizes=image_sizes.to(pixel_values.device),
            frame=(height, width),
            memories=tuple(memories),
            mask_features=mask_features,
        )

    def prompt_queries(self, centres: Tensor, frame: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Initial query and position, both (N, C), of prompts with centres (N, 2) in frame pixels.

        Whatever the prompt, its position is that of a small box round its centre.
        """
        size = centres.new_tensor([frame[1], frame[0]])
        side = centres.new_full((len(centres), 2), 2 * self.config.prompt_box_half_side) / size
        encoded = box_positions(torch.cat((centres / size, side), dim=1), self.config.decoder_size // 2)
        positions = self.pos_linear(encoded.to(self.pos_linear.weight.dtype))
        queries = (self.pb_embedding.weight[0] + self.mask_tokens.weight[0]).expand_as(positions)
        return queries, positions

    def decode_single(
        self,
        decoder: QueryDecoder,
        queries: Tensor,
        positions: Tensor,
        context: DecoderContext,
        image_index: Tensor,
        masks: QueryMasks | None = None,
        trace: DecoderTrace | None = None,
    ) -> Tensor:
        """Refine N independent queries (N, C), each in its own image (N,), with masks [(N, h * w)]; gives (N, C).

        Queries of one image share its keys and values, but never see one another.
        """
        masks = masks or QueryMasks()
        slots = _Slots(image_index, context.values[0].shape[0])
        packed_masks = QueryMasks(
            fixed=None if masks.fixed is None else [slots.pack(mask) for mask in masks.fixed],
            within=None if masks.within is None else [slots.pack(mask) for mask in masks.within],
            fixed_layers=masks.fixed_layers,
        )
        refined = decoder(slots.pack(queries), slots.pack(positions), context, packed_masks, isolated=True, trace=trace)
        if trace is not None:
            trace.states = [slots.unpack(state) for state in trace.states]
            trace.allowed = [slots.unpack(allowed) for allowed in trace.allowed]
        return slots.unpack(refined)

    def encode_prompts(
        self,
        features: VisionFeatures,
        centres: Tensor,
        image_index: Sequence[int] | Tensor,
        masks: QueryMasks | None = None,
        trace: DecoderTrace | None = None,
    ) -> Tensor:
        """Visual prompts to (N, 2C): the refined query (Talking Points: keypoint features) and its position
        (region features).

        ``centres`` (N, 2) in frame pixels, ``image_index`` (N,) the image of each. Without ``masks`` the
        decoder predicts where to look, as for OMG-LLaVA's point prompts.
        """
        device = features.visual_tokens.device
        index = torch.as_tensor(image_index, dtype=torch.long, device=device)
        queries, positions = self.prompt_queries(centres.to(device=device, dtype=torch.float32), features.frame)
        context = self.context(features)
        refined = self.decode_single(self.query_decoder, queries, positions, context, index, masks, trace)
        return torch.cat((refined, positions), dim=-1)

    def decode_masks(
        self,
        features: VisionFeatures,
        seg_queries: Tensor,
        image_index: Sequence[int] | Tensor,
        trace: DecoderTrace | None = None,
    ) -> Tensor:
        """[SEG] queries (N, 2C) from the language model to mask logits (N, H, W) at the stride of the mask features."""
        decoder = self.task_decoder or self.query_decoder
        context = self.context(features)
        if context.mask_features is None:
            raise ValueError("masks need the mask features: encode the images with them")
        index = torch.as_tensor(image_index, dtype=torch.long, device=seg_queries.device)
        queries, positions = seg_queries.to(context.values[0].dtype).chunk(2, dim=-1)
        refined = self.decode_single(decoder, queries, positions, context, index, trace=trace)
        return decoder.mask_logits(refined[:, None], context.mask_features[index])[:, 0]


class _Slots:
    """Places N items of several images in a padded (B, P) table, so that items of an image share one batch entry."""

    def __init__(self, image_index: Tensor, batch: int) -> None:
        membership = nn.functional.one_hot(image_index, batch)
        order = membership.cumsum(0) - 1
        self.image = image_index
        self.slot = order.gather(1, image_index[:, None])[:, 0]
        self.shape = (batch, int(membership.sum(0).max()) if len(image_index) else 0)

    def pack(self, items: Tensor) -> Tensor:
        table = items.new_zeros(*self.shape, *items.shape[1:])
        table[self.image, self.slot] = items
        return table

    def unpack(self, table: Tensor) -> Tensor:
        return table[self.image, self.slot]
