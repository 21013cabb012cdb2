"""The Point Descriptor (paper, section 3.2): an image and a point in, a description of that point out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional
from transformers.utils import ModelOutput

from talking_points.models.base import TalkingPointsModel, check_image_source, chunks, same_length, unique_images
from talking_points.models.omg_llava.chat import Turn, plain_text
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.omg_llava.image_processing import ImageInput
from talking_points.models.omg_llava.modeling import LanguageInputs
from talking_points.models.omg_llava.prompt_forms import point_prompt
from talking_points.models.omg_llava.prompt_masks import gaussian_cells
from talking_points.models.omg_llava.query_decoder import QueryMasks


@dataclass
class DescriptorOutput(ModelOutput):
    """loss: mean cross-entropy of the descriptions' tokens; logits: (M, V) of those tokens, in order of the batch."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class PointDescriptor(TalkingPointsModel):
    """Describes single points. A Gaussian round the point fixes where its query may look in every decoder layer."""

    def unused_prefixes(self) -> tuple[str, ...]:
        return ("text_projector.", "vision.task_decoder.", "vision.iou_embed.")

    def keypoint_masks(self, features: VisionFeatures, points: Tensor, image_index: Tensor) -> QueryMasks:
        """Where the queries of points (N, 2), in frame pixels, may look."""
        config = self.config
        if config.keypoint_mask == "predicted":
            return QueryMasks()
        sigma = torch.full((len(points),), config.gaussian_sigma, device=points.device)
        if config.gaussian_frame == "original":
            side = features.image_sizes[image_index].amax(-1).to(points.device)
            sigma = sigma * max(features.frame) / side
        cells = [
            gaussian_cells(points, sigma, config.gaussian_threshold, features.frame, grid, config.mask_resize)
            for grid in features.grids
        ]
        return QueryMasks(fixed=cells, fixed_layers=config.gaussian_layers)

    def turns(self, count: int, descriptions: Sequence[str] | None = None) -> list[Turn]:
        """The question about a point, ``count`` times, answered where descriptions are given."""
        token = self.config.keypoint_token * self.config.keypoint_tokens
        question = self.config.question
        if "{keypoint}" in question:
            question = question.format(keypoint=token)
        else:
            question = point_prompt(self.config.prompt_form, question, token)
        if descriptions is None:
            return [self.encode_turn(question)] * count
        return [self.encode_turn(question, plain_text(description)) for description in descriptions]

    def language_inputs(
        self, features: VisionFeatures, image_index: Tensor, point_features: Tensor, turns: Sequence[Turn]
    ) -> LanguageInputs:
        """Put turns, images and points together; ``point_features`` (N, 2C) come from ``encode_points``."""
        same_length(turns=turns, image_index=image_index, point_features=point_features)
        if self.config.keypoint_tokens == 2:
            keypoint, region = point_features.chunk(2, dim=-1)
            nothing = torch.zeros_like(keypoint)
            apart = torch.stack((torch.cat((keypoint, nothing), -1), torch.cat((nothing, region), -1)), dim=1)
            point_features = apart.flatten(0, 1)
        is_mark = self.config.keypoint_token == "<mark>"
        return LanguageInputs(
            turns,
            features,
            image_index,
            marks=point_features if is_mark else None,
            regions=None if is_mark else point_features,
        )

    def forward(
        self,
        features: VisionFeatures | None = None,
        image_index: Tensor | None = None,
        points: ArrayLike | Tensor | None = None,
        point_features: Tensor | None = None,
        descriptions: Sequence[str] | None = None,
        turns: Sequence[Turn] | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> DescriptorOutput:
        """Language-model loss on descriptions of N points in B images.

        Images are ``features`` (from ``encode_images``, stored or fresh) or ``pixel_values`` (B, 3, H, W) with
        ``image_sizes`` (B, 2); ``image_index`` (N,) says which image a point lies in (default: one each).
        Points are ``points`` (N, 2) in original pixels or ``point_features`` (N, 2C) from ``encode_points``.
        Texts are ``descriptions``, or answered ``turns``. ``num_items_in_batch`` replaces the number of tokens in
        the mean, for gradient accumulation.
        """
        if features is None:
            if pixel_values is None:
                raise ValueError("expected features or pixel_values, found neither")
            features = self.encode_pixels(pixel_values, image_sizes)
        index = torch.arange(len(features)) if image_index is None else image_index
        if point_features is None:
            if points is None:
                raise ValueError("expected points or point_features, found neither")
            point_features = self.encode_points(features, points, index)
        if turns is None:
            if descriptions is None:
                raise ValueError("expected descriptions or answered turns, found neither")
            turns = self.turns(len(point_features), descriptions)
        hidden, labels, _ = self.read_language(self.language_inputs(features, index, point_features, turns))
        logits, targets, _ = self.answer_logits(hidden, labels)
        total = functional.cross_entropy(logits.float(), targets, reduction="sum")
        count = len(targets) if num_items_in_batch is None else num_items_in_batch
        return DescriptorOutput(loss=total / count, logits=logits)

    @torch.no_grad()
    def describe(
        self,
        images: Sequence[ImageInput] | None,
        points: ArrayLike,
        *,
        features: VisionFeatures | None = None,
        image_index: Tensor | None = None,
        point_features: Tensor | None = None,
        batch_size: int = 32,
        image_batch_size: int = 8,
        **options: Any,
    ) -> list[str]:
        """Describe points (N, 2), in pixels of their images.

        Args:
            images: one image per point (PIL or uint8 array); equal images are encoded once. None with ``features``.
            points: pixel coordinates; unused, and may be None, when ``point_features`` are given.
            features, image_index, point_features: stored results of ``encode_images`` and ``encode_points``.
            batch_size, image_batch_size: how many points are written about, and images encoded, at a time.
            options: passed to transformers' ``generate``; by default greedy, ``max_new_tokens`` of the configuration.
        """
        check_image_source(self, images, features, image_index)
        if images is not None and not images:
            return []
        was_training = self.training
        self.eval()
        if images is not None:
            same_length(images=images, points=np.asarray(points))
            features, image_index, point_features = self.encode(images, points, image_batch_size)
        assert features is not None
        assert image_index is not None
        if point_features is None:
            point_features = self.encode_points(features, points, image_index)
        options = {"max_new_tokens": self.config.max_new_tokens, "do_sample": False, **options}
        order = image_index.argsort(stable=True)
        texts: dict[int, str] = {}
        for part in chunks(len(order), batch_size):
            chosen = order[part]
            inputs = self.language_inputs(
                features, image_index[chosen], point_features[chosen], self.turns(len(chosen))
            )
            texts.update(zip(chosen.tolist(), self.decode(self.generate(inputs, **options)), strict=True))
        self.train(was_training)
        return [texts[index] for index in range(len(order))]

    def encode(
        self, images: Sequence[ImageInput], points: ArrayLike, image_batch_size: int = 8
    ) -> tuple[VisionFeatures, Tensor, Tensor]:
        """The vision path over images with one point (N, 2) each, every different image once.

        Returns compact features of the different images, which image each point is in (N,), and the points'
        features (N, 2C): what ``describe`` and, since the frozen vision path is the same, ``localize`` take.
        """
        unique, image_index = unique_images(images)
        coordinates = torch.as_tensor(np.asarray(points), dtype=torch.float64).reshape(-1, 2)
        encoded = []
        point_features: dict[int, Tensor] = {}
        for part in chunks(len(unique), image_batch_size):
            features = self.encode_images(unique[part])
            here = ((image_index >= part.start) & (image_index < part.stop)).nonzero()[:, 0]
            found = self.encode_points(features, coordinates[here], image_index[here] - part.start)
            point_features.update(zip(here.tolist(), found, strict=True))
            encoded.append(features.compact())
        stacked = torch.stack([point_features[index] for index in range(len(image_index))])
        return VisionFeatures.concatenate(encoded), image_index, stacked
