"""Pretraining of a small vision path on part masks, in place of OMG-Seg's.

A model that starts from random weights has a vision path that knows nothing, and it is frozen in all later stages.
As OMG-Seg's, it learns to segment: object queries find objects (Mask2Former, Cheng et al. 2022) and every cell of the
mask features names its part. Besides, every visual token and the query of a point, confined to its Gaussian, learn
the object and the part that they lie on with both boxes, and the point's query the colour there: what a description
speaks of. The heads of these tasks are thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional

from talking_points.config import ConfigError
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.omg_llava.image_processing import padding
from talking_points.records import Box, ImageRecord
from talking_points.training.config import VisionConfig

POINTS_PER_IMAGE = 16

BOX_WEIGHT = 4.0
"""Of a mean distance in shares of the frame, beside cross-entropies: such distances are far below 1."""

BACKGROUND_WEIGHT = 0.1
"""Of cells and queries without an object (Mask2Former)."""


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures as the model sees them, and the annotated part that each pixel lies on.

    pixels: uint8 (N, S, S, 3); regions: int32 (N, S, S), rows of the tables below, 0 is the background.
    part, object: int64 (R,) labels, 0 is none; instance: int64 (R,) tells the objects of a picture apart.
    boxes: float32 (R, 8), left, top, right and bottom of the object and of the part, in shares of the frame.
    """

    pixels: NDArray[np.uint8]
    regions: NDArray[np.int32]
    part: Tensor
    object: Tensor
    instance: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


def labelled_pictures(records: Iterable[ImageRecord], size: int) -> LabelledPictures:
    """Square pictures of ``size`` pixels, padded as the model pads, with their annotated parts."""
    part_labels: dict[str, int] = {}
    object_labels: dict[str, int] = {}
    rows: list[tuple[int, int, int, tuple[float, ...]]] = [(0, 0, 0, (0.0,) * 8)]
    pixels, regions = [], []
    for record in records:
        side, left, top = padding(record.width, record.height)
        region_map = np.zeros((side, side), np.int32)
        inside = (slice(top, top + record.height), slice(left, left + record.width))
        for instance, annotated in enumerate(record.objects, start=1):
            own = object_labels.setdefault(annotated.name, len(object_labels) + 1)
            for part in annotated.parts:
                if part.mask is not None:
                    label = part_labels.setdefault(part.name, len(part_labels) + 1)
                    region_map[inside][part.mask] = len(rows)
                    boxes = (_corners(box, side, left, top) for box in (annotated.bbox, part.bbox))
                    rows.append((label, own, instance, tuple(value for corners in boxes for value in corners)))
        picture = np.full((side, side, 3), 122, np.uint8)
        picture[inside] = record.pixels
        pixels.append(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA))
        smaller = cv2.resize(region_map.astype(np.float64), (size, size), interpolation=cv2.INTER_NEAREST)
        regions.append(smaller.astype(np.int32))
    if not part_labels:
        raise ConfigError("pretraining the vision path needs pictures with part masks, found none")
    return LabelledPictures(
        np.stack(pixels), np.stack(regions), *(torch.tensor(column) for column in zip(*rows, strict=True))
    )


def _corners(box: Box, side: int, left: int, top: int) -> tuple[float, ...]:
    x, y, width, height = box
    return (x + left) / side, (y + top) / side, (x + left + width) / side, (y + top + height) / side


class PartTasks(nn.Module):
    """The losses over one vision path, with their heads."""

    def __init__(self, model: PointDescriptor, data: LabelledPictures) -> None:
        super().__init__()
        config = model.config
        self.model = model
        self.data = data
        size, self.parts, self.objects = config.decoder_size, int(data.part.max()) + 1, int(data.object.max()) + 1
        self.pixel_head = nn.Conv2d(size, self.parts, 1)
        self.token_head = nn.Linear(config.visual_token_size, self.parts + self.objects + 16)
        self.point_head = nn.Linear(size, self.parts + self.objects + 16 + 3)
        self.query_head = nn.Linear(size, self.objects + 4)
        processor = model.image_processor
        self.register_buffer("mean", torch.tensor(processor.image_mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(processor.image_std).view(3, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, index: NDArray[np.intp], random: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of some pictures; the accuracy of each task on what is not background, and errors of boxes."""
        pixels = torch.from_numpy(self.data.pixels[index]).permute(0, 3, 1, 2).float() / 255
        regions = torch.from_numpy(self.data.regions[index]).long()
        features = self.model.encode_images((pixels - self.mean) / self.std)
        assert features.mask_features is not None
        at_cells = _middles(regions, features.mask_features.shape[-1])
        named = {"pixel part": (self.pixel_head(features.mask_features), self.data.part[at_cells])}
        boxes = {}

        tokens = features.visual_tokens[..., : self.model.config.visual_token_size]
        side = round(tokens.shape[1] ** 0.5)
        at_tokens = _main_regions(at_cells, side).flatten()
        part, obj, box = self.token_head(tokens.flatten(0, 1)).split((self.parts, self.objects, 16), 1)
        named["token part"] = (part, self.data.part[at_tokens])
        named["token object"] = (obj, self.data.object[at_tokens])
        middles = (torch.arange(side) + 0.5) / side
        grid = torch.stack(torch.meshgrid(middles, middles, indexing="xy"), -1).view(-1, 2).repeat(len(index), 1)
        boxes["token box"] = self._box_errors(box, grid, at_tokens)

        points, owner = _points(regions, random)
        at_points = regions[owner, points[:, 1].long(), points[:, 0].long()]
        queries = self.model.encode_points(features, points, owner)[:, : self.model.config.decoder_size]
        part, obj, box, colour = self.point_head(queries).split((self.parts, self.objects, 16, 3), 1)
        named["point part"] = (part, self.data.part[at_points])
        named["point object"] = (obj, self.data.object[at_points])
        boxes["point box"] = self._box_errors(box, points / pixels.shape[-1], at_points)
        around = functional.avg_pool2d(pixels, 4)
        boxes["point colour"] = colour - around[owner, :, points[:, 1].long() // 4, points[:, 0].long() // 4]

        losses = [_cross_entropy(logits, labels) for logits, labels in named.values()]
        losses += [BOX_WEIGHT * errors.abs().mean() for errors in boxes.values()]
        losses.append(self._object_loss(features, at_cells))
        measured = {name: _accuracy(logits, labels) for name, (logits, labels) in named.items()}
        errors = {name: float(errors.detach().abs().mean()) for name, errors in boxes.items()}
        return torch.stack(losses).sum(), measured | errors

    def _box_errors(self, predicted: Tensor, places: Tensor, regions: Tensor) -> Tensor:
        """Errors (M, 16) of boxes, predicted in the frame and relative to places (N, 2), for places that lie on parts.

        A language model with rotary positions finds the place of a visual token nowhere but in its features.
        """
        inside = regions > 0
        boxes = self.data.boxes[regions[inside]]
        return predicted[inside] - torch.cat((boxes, boxes - places[inside].repeat(1, 4)), 1)

    def _object_loss(self, features: VisionFeatures, regions: Tensor) -> Tensor:
        """Set prediction: every object of a picture is matched with the query that fits it best, the others are void.

        ``regions`` (B, h, w) at the cells of the mask features.
        """
        assert features.mask_features is not None
        decoder = self.model.vision.query_decoder
        queries = features.object_queries[..., : self.model.config.decoder_size]
        logits = decoder.mask_logits(queries, features.mask_features).flatten(2)
        classes, boxes = self.query_head(decoder.post_norm(queries)).split((self.objects, 4), -1)
        labels = torch.zeros(classes.shape[:2], dtype=torch.long)
        losses = []
        for row, picture in enumerate(regions.flatten(1)):
            instances, first = np.unique(self.data.instance[picture].numpy(), return_index=True)
            found = picture[torch.from_numpy(first[instances > 0])]
            if not len(found):
                continue
            masks = (self.data.instance[picture] == self.data.instance[found][:, None]).float()
            wanted, corners = self.data.object[found], self.data.boxes[found, :4]
            with torch.no_grad():
                cost = _mask_costs(logits[row], masks) - classes[row].softmax(-1)[:, wanted]
                cost += BOX_WEIGHT * torch.cdist(boxes[row], corners, p=1) / 4
            chosen, order = (torch.from_numpy(side) for side in linear_sum_assignment(cost.numpy()))
            labels[row, chosen] = wanted[order]
            losses.append(_mask_costs(logits[row, chosen], masks[order]).diagonal().mean())
            losses.append(BOX_WEIGHT * (boxes[row, chosen] - corners[order]).abs().mean())
        named = _cross_entropy(classes.flatten(0, 1), labels.flatten())
        return named + torch.stack(losses).sum() / max(1, len(regions)) if losses else named


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Of logits (N, C, ...); the background, which most cells and queries show, counts less."""
    weight = torch.ones(logits.shape[1])
    weight[0] = BACKGROUND_WEIGHT
    return functional.cross_entropy(logits, labels, weight)


def _mask_costs(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy plus Dice of every mask logit (Q, K) with every mask (O, K): (Q, O)."""
    entropy = functional.softplus(logits).mean(1, keepdim=True) - logits @ masks.T / logits.shape[1]
    inside = logits.sigmoid()
    dice = 1 - (2 * inside @ masks.T + 1) / (inside.sum(1, keepdim=True) + masks.sum(1) + 1)
    return entropy + dice


def _middles(regions: Tensor, cells: int) -> Tensor:
    """What lies at the middle pixel of each cell: (B, S, S) to (B, cells, cells)."""
    step = regions.shape[-1] // cells
    return regions[:, step // 2 :: step, step // 2 :: step]


def _main_regions(regions: Tensor, cells: int) -> Tensor:
    """What fills most of each cell beside the background: (B, h, h) to (B, cells, cells)."""
    step = regions.shape[-1] // cells
    blocks = regions.unflatten(2, (cells, step)).unflatten(1, (cells, step)).transpose(2, 3).flatten(3)
    # Numbers that occur once stand for the background, so that any region that occurs twice is more frequent.
    single = -1 - torch.arange(blocks.shape[-1])
    return torch.where(blocks > 0, blocks, single).mode(-1).values.clamp(min=0)


def _points(regions: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random points on parts, every part as likely: (M, 2) in pixels of the frame, and the picture of each."""
    points, owner = [], []
    for row, picture in enumerate(regions.numpy()):
        present = np.unique(picture[picture > 0])
        for region in random.choice(present, POINTS_PER_IMAGE) if len(present) else ():
            ys, xs = np.nonzero(picture == region)
            chosen = random.integers(len(xs))
            points.append((float(xs[chosen]), float(ys[chosen])))
            owner.append(row)
    return torch.tensor(points).reshape(-1, 2), torch.tensor(owner, dtype=torch.long)


def pretrain_vision(
    model: PointDescriptor, data: LabelledPictures, config: VisionConfig, seed: int = 0
) -> dict[str, float]:
    """Train the model's vision path in place for ``config.steps`` steps.

    Returns accuracies in percent and errors in shares of the frame (of the range, for colours) on the last twentieth
    of the pictures, which are not trained on.
    """
    tasks = PartTasks(model, data)
    model.requires_grad_(False)
    model.vision.requires_grad_(True)
    trained = [parameter for parameter in tasks.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.steps)
    random = np.random.default_rng(seed)
    seen = max(1, len(data) - len(data) // 20)
    tasks.train()
    for _ in range(config.steps):
        index = random.choice(seen, size=min(config.batch_size, seen), replace=False)
        loss, _ = tasks(index, random)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval().vision.requires_grad_(False)
    with torch.no_grad():
        held_out = np.arange(seen, len(data)) if seen < len(data) else np.arange(len(data))
        batches = np.array_split(held_out, -(-len(held_out) // config.batch_size))
        measured = [tasks(batch, random)[1] for batch in batches]
    return {name: float(np.nanmean([values[name] for values in measured])) for name in measured[0]}


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    """Percentage of labels other than background that the logits (N, C, ...) name."""
    named = labels > 0
    return 100 * float((logits.argmax(1) == labels)[named].float().mean())
