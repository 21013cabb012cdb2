"""The Point Localizer (paper, section 3.3): an image and a description in, the described point out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init
from transformers.utils import ModelOutput

from talking_points.models.base import TalkingPointsModel, check_image_source, chunks, same_length, unique_images
from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.omg_llava.chat import Turn, plain_text
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.omg_llava.image_processing import ImageInput
from talking_points.models.omg_llava.modeling import LanguageInputs
from talking_points.models.omg_llava.pixel_decoder import ZeroLinear


@dataclass
class LocalizerOutput(ModelOutput):
    """loss: mean squared error (equation 1); coordinates: (N, 2) normalised as the configuration says."""

    loss: Tensor | None = None
    coordinates: Tensor | None = None


class DefaultLinear(nn.Linear):
    """A linear map that starts as PyTorch starts one."""


class HeadSettings(Protocol):
    """What of a model's configuration its coordinate head is made of."""

    @property
    def query_size(self) -> int: ...
    @property
    def coordinate_hidden_size(self) -> int: ...
    @property
    def coordinate_activation(self) -> str: ...
    @property
    def coordinate_output(self) -> str: ...
    @property
    def coordinate_init(self) -> str: ...


class CoordinateHead(nn.Module):
    """Query features (N, 2C) to normalised coordinates (N, 2), in float32 whatever the rest runs in."""

    def __init__(self, config: HeadSettings) -> None:
        super().__init__()
        last = ZeroLinear if config.coordinate_init == "centre" else DefaultLinear
        self.hidden = DefaultLinear(config.query_size, config.coordinate_hidden_size)
        self.output = last(config.coordinate_hidden_size, 2)
        self.activation = functional.relu if config.coordinate_activation == "relu" else functional.gelu
        self.squash = config.coordinate_output == "sigmoid"

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            offset = self.output(self.activation(self.hidden(features.to(self.hidden.weight))))
            return offset.sigmoid() if self.squash else 0.5 + offset


class PointLocalizer(TalkingPointsModel):
    """Finds described points in one forward pass, without generating anything or decoding masks."""

    _keep_in_fp32_modules_strict = ("vision", "coordinate_head")
    optional_parameters = ("coordinate_head.",)

    def _build(self, config: TalkingPointsConfig) -> None:
        self.coordinate_head = CoordinateHead(config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, DefaultLinear):
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)

    def trainable_prefixes(self) -> tuple[str, ...]:
        own = ("coordinate_head.", *(("text_projector.",) if self.config.train_text_projector else ()))
        return (*super().trainable_prefixes(), *own)

    def output_layers(self) -> list[nn.Module]:
        return [*super().output_layers(), self.coordinate_head.output]

    def unused_prefixes(self) -> tuple[str, ...]:
        prompts = (
            "vision.task_decoder.",
            "vision.iou_embed.",
            "vision.mask_tokens.",
            "vision.pb_",
            "vision.pos_linear.",
        )
        return prompts if self.config.localizer_lm_weight else (*prompts, "language_model.lm_head.")

    def turns(self, descriptions: Sequence[str]) -> list[Turn]:
        """Question and teacher-forced answer, cut off behind [SEG]: nothing after it can change what is read there."""
        turns = [
            self.encode_turn(
                self.config.localizer_question.format(description=plain_text(description)), self.config.localizer_answer
            )
            for description in descriptions
        ]
        if self.config.localizer_lm_weight:
            return turns
        ends = [self._seg_position(turn) + 1 for turn in turns]
        return [Turn(turn.ids[:end], turn.labels[:end]) for turn, end in zip(turns, ends, strict=True)]

    def _at_seg(self, hidden: Tensor, turns: Sequence[Turn], offsets: Sequence[Tensor]) -> Tensor:
        """Hidden states (N, D) at [SEG], whose place is counted from the end of a turn."""
        columns = [
            offset[self._seg_position(turn) - len(turn.ids)] for offset, turn in zip(offsets, turns, strict=True)
        ]
        return hidden[torch.arange(len(turns), device=hidden.device), torch.stack(columns).to(hidden.device)]

    def _seg_position(self, turn: Turn) -> int:
        return int((turn.ids == self.config.seg_token_id).nonzero()[-1])

    def coordinates(self, hidden: Tensor) -> Tensor:
        """Hidden states (N, D) at [SEG] to normalised coordinates (N, 2)."""
        return self.coordinate_head(self.text_projector(hidden))

    def normalise(self, points: Tensor, image_sizes: Tensor) -> Tensor:
        """Points (N, 2) in original pixels to the coordinates that are learnt; ``image_sizes`` (N, 2)."""
        if self.config.coordinate_frame == "image":
            return points / image_sizes
        side = image_sizes.amax(-1, keepdim=True)
        return (points + (side - image_sizes) // 2) / side

    def to_pixels(self, coordinates: Tensor, image_sizes: Tensor) -> Tensor:
        """The inverse of ``normalise``."""
        if self.config.coordinate_frame == "image":
            return coordinates * image_sizes
        side = image_sizes.amax(-1, keepdim=True)
        return coordinates * side - (side - image_sizes) // 2

    def forward(
        self,
        features: VisionFeatures | None = None,
        image_index: Tensor | None = None,
        descriptions: Sequence[str] | None = None,
        turns: Sequence[Turn] | None = None,
        points: ArrayLike | Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
    ) -> LocalizerOutput:
        """Coordinates of N described points in B images, and their loss when ``points`` (N, 2) in pixels are given.

        Images are ``features`` (from ``encode_images``, stored or fresh; compact ones suffice) or ``pixel_values``
        (B, 3, H, W) with ``image_sizes`` (B, 2); ``image_index`` (N,) says which image a text is about (default:
        one each). Texts are ``descriptions`` or ``turns``.
        """
        if features is None:
            if pixel_values is None:
                raise ValueError("expected features or pixel_values, found neither")
            features = self.encode_pixels(pixel_values, image_sizes)
        index = torch.arange(len(features)) if image_index is None else image_index
        if turns is None:
            if descriptions is None:
                raise ValueError("expected descriptions or turns, found neither")
            turns = self.turns(descriptions)
        same_length(turns=turns, image_index=index)
        hidden, labels, offsets = self.read_language(LanguageInputs(turns, features, index))
        coordinates = self.coordinates(self._at_seg(hidden, turns, offsets))
        if points is None:
            return LocalizerOutput(coordinates=coordinates)
        sizes = features.image_sizes[index.to(features.image_sizes.device)].to(coordinates.device)
        target = torch.as_tensor(points, dtype=torch.float32, device=coordinates.device).reshape(-1, 2)
        squared = (coordinates.float() - self.normalise(target, sizes)) ** 2
        loss = squared.mean() if self.config.coordinate_loss == "mean" else squared.sum(-1).mean()
        if self.config.localizer_lm_weight:
            logits, answers, _ = self.answer_logits(hidden, labels)
            loss = loss + self.config.localizer_lm_weight * functional.cross_entropy(logits.float(), answers)
        return LocalizerOutput(loss=loss, coordinates=coordinates)

    @torch.no_grad()
    def localize(
        self,
        images: Sequence[ImageInput] | None,
        descriptions: Sequence[str],
        *,
        features: VisionFeatures | None = None,
        image_index: Tensor | None = None,
        batch_size: int = 32,
        image_batch_size: int = 8,
    ) -> NDArray[np.float64]:
        """Locate described points: float array (N, 2), pixels of the original images, inside the image.

        Args:
            images: one image per description (PIL or uint8 array); equal images are encoded and read once.
                None with ``features``.
            features, image_index: stored results of ``encode_images``, and the image of each description.
            batch_size, image_batch_size: how many descriptions are read, and images encoded, at a time.
        """
        check_image_source(self, images, features, image_index)
        if not descriptions:
            return np.zeros((0, 2))
        was_training = self.training
        self.eval()
        if images is not None:
            same_length(images=images, descriptions=descriptions)
            unique, image_index = unique_images(images)
            features = VisionFeatures.concatenate(
                [self.encode_images(unique[part]).compact() for part in chunks(len(unique), image_batch_size)]
            )
        assert features is not None
        assert image_index is not None
        turns = self.turns(descriptions)
        order = image_index.argsort(stable=True)
        found = torch.zeros(len(order), 2)
        for part in chunks(len(order), batch_size):
            chosen = order[part]
            here = LanguageInputs([turns[index] for index in chosen.tolist()], features, image_index[chosen])
            found[chosen] = self._locate(here).float().cpu()
        self.train(was_training)
        sizes = features.image_sizes.cpu()[image_index.cpu()]
        pixels = self.to_pixels(found, sizes).double().numpy()
        return pixels.clip(0, sizes.numpy() - 1)

    def _locate(self, inputs: LanguageInputs) -> Tensor:
        """Coordinates of a batch, for which nothing behind [SEG] is read."""
        cut = [self._seg_position(turn) + 1 for turn in inputs.turns]
        turns = [Turn(turn.ids[:end], turn.labels[:end]) for turn, end in zip(inputs.turns, cut, strict=True)]
        hidden, _, offsets = self.read_language(replace(inputs, turns=turns))
        return self.coordinates(self._at_seg(hidden, turns, offsets))
