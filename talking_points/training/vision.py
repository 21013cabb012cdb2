"""Pretraining of a small vision path on part masks, in place of OMG-Seg's.

A model that starts from random weights has a vision path that knows nothing, and it is frozen in all later stages.
Three tasks teach it what those stages read: every cell of the mask features names its part, every visual token its
object, and the query of a point, confined to its Gaussian, the part and the object that it lies on. The linear heads
of these tasks are thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from talking_points.config import ConfigError
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.image_processing import padding
from talking_points.records import ImageRecord
from talking_points.training.config import VisionConfig

POINTS_PER_IMAGE = 8


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures as the model sees them with a label per pixel; 0 is the background.

    pixels: uint8 (N, S, S, 3); parts, objects: int16 (N, S, S); part_count, object_count: labels, background included.
    """

    pixels: NDArray[np.uint8]
    parts: NDArray[np.int16]
    objects: NDArray[np.int16]
    part_count: int
    object_count: int

    def __len__(self) -> int:
        return len(self.pixels)


def labelled_pictures(records: Iterable[ImageRecord], size: int) -> LabelledPictures:
    """Square pictures of ``size`` pixels, padded as the model pads, with the labels of their annotated parts."""
    part_labels: dict[str, int] = {}
    object_labels: dict[str, int] = {}
    pixels, parts, objects = [], [], []
    for record in records:
        side, left, top = padding(record.width, record.height)
        part_map = np.zeros((side, side), np.int16)
        object_map = np.zeros((side, side), np.int16)
        inside = (slice(top, top + record.height), slice(left, left + record.width))
        for annotated in record.objects:
            own = object_labels.setdefault(annotated.name, len(object_labels) + 1)
            for part in annotated.parts:
                if part.mask is not None:
                    part_map[inside][part.mask] = part_labels.setdefault(part.name, len(part_labels) + 1)
                    object_map[inside][part.mask] = own
        picture = np.full((side, side, 3), 122, np.uint8)
        picture[inside] = record.pixels
        pixels.append(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA))
        parts.append(cv2.resize(part_map, (size, size), interpolation=cv2.INTER_NEAREST))
        objects.append(cv2.resize(object_map, (size, size), interpolation=cv2.INTER_NEAREST))
    if not part_labels:
        raise ConfigError("pretraining the vision path needs pictures with part masks, found none")
    return LabelledPictures(
        np.stack(pixels), np.stack(parts), np.stack(objects), len(part_labels) + 1, len(object_labels) + 1
    )


class PartTasks(nn.Module):
    """The three losses over one vision path, with their heads."""

    def __init__(self, model: PointDescriptor, data: LabelledPictures) -> None:
        super().__init__()
        config = model.config
        self.model = model
        self.data = data
        self.pixel_head = nn.Conv2d(config.decoder_size, data.part_count, 1)
        self.token_head = nn.Linear(config.visual_token_size, data.object_count)
        self.point_head = nn.Linear(config.decoder_size, data.part_count + data.object_count)
        processor = model.image_processor
        self.register_buffer("mean", torch.tensor(processor.image_mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(processor.image_std).view(3, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, index: NDArray[np.intp], random: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of some pictures, and the accuracy of each task on what is not background."""
        pixels = torch.from_numpy(self.data.pixels[index]).permute(0, 3, 1, 2).float() / 255
        features = self.model.encode_images((pixels - self.mean) / self.std)
        assert features.mask_features is not None
        parts = torch.from_numpy(self.data.parts[index]).long()
        objects = torch.from_numpy(self.data.objects[index]).long()
        grid = features.mask_features.shape[-1]
        # The label of a cell is that of its middle pixel.
        step, half = pixels.shape[-1] // grid, pixels.shape[-1] // grid // 2
        tasks = {"pixel": (self.pixel_head(features.mask_features), parts[:, half::step, half::step])}
        tokens = features.visual_tokens[..., : self.model.config.visual_token_size]
        side = round(tokens.shape[1] ** 0.5)
        wide = pixels.shape[-1] // side
        cells = objects[:, wide // 2 :: wide, wide // 2 :: wide].flatten(1)
        tasks["token"] = (self.token_head(tokens).transpose(1, 2), cells)
        points, owner = self._points(index, random)
        if len(points):
            query = self.model.encode_points(features, points, owner)[:, : self.model.config.decoder_size]
            part_logits, object_logits = self.point_head(query).split((self.data.part_count, self.data.object_count), 1)
            rows, columns = points[:, 1].long(), points[:, 0].long()
            tasks["point part"] = (part_logits, parts[owner, rows, columns])
            tasks["point object"] = (object_logits, objects[owner, rows, columns])
        loss = torch.stack([functional.cross_entropy(logits, labels) for logits, labels in tasks.values()]).sum()
        return loss, {name: _accuracy(logits, labels) for name, (logits, labels) in tasks.items()}

    def _points(self, index: NDArray[np.intp], random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Random points on parts: (M, 2) in pixels of the frame, and which of the pictures each is in."""
        points, owner = [], []
        for row, picture in enumerate(index):
            ys, xs = np.nonzero(self.data.parts[picture])
            for chosen in random.integers(len(xs), size=POINTS_PER_IMAGE) if len(xs) else ():
                points.append((float(xs[chosen]), float(ys[chosen])))
                owner.append(row)
        return torch.tensor(points).reshape(-1, 2), torch.tensor(owner, dtype=torch.long)


def pretrain_vision(
    model: PointDescriptor, data: LabelledPictures, config: VisionConfig, seed: int = 0
) -> dict[str, float]:
    """Train the model's vision path in place for ``config.steps`` steps; returns the accuracies of the last tenth."""
    tasks = PartTasks(model, data)
    model.requires_grad_(False)
    model.vision.requires_grad_(True)
    trained = [parameter for parameter in tasks.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.steps)
    random = np.random.default_rng(seed)
    late: dict[str, list[float]] = {}
    tasks.train()
    for step in range(config.steps):
        index = random.choice(len(data), size=min(config.batch_size, len(data)), replace=False)
        loss, accuracies = tasks(index, random)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step >= 0.9 * config.steps:
            for name, value in accuracies.items():
                late.setdefault(name, []).append(value)
    model.eval().vision.requires_grad_(False)
    return {name: float(np.nanmean(values)) for name, values in late.items()}


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    """Percentage of labels other than background that the logits (N, C, ...) name."""
    named = labels > 0
    return 100 * float((logits.argmax(1) == labels)[named].float().mean())
