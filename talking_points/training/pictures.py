"""Pictures with annotated parts as the pretraining of a vision path reads them, and what its tasks share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from talking_points.config import ConfigError
from talking_points.models.omg_llava.image_processing import padding
from talking_points.records import Box, ImageRecord

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


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Of logits (N, C, ...); the background, which most cells and queries show, counts less."""
    weight = torch.ones(logits.shape[1])
    weight[0] = BACKGROUND_WEIGHT
    return functional.cross_entropy(logits, labels, weight)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Percentage of labels other than background that the logits (N, C, ...) name."""
    named = labels > 0
    return 100 * float((logits.argmax(1) == labels)[named].float().mean())


def middles(regions: Tensor, cells: int) -> Tensor:
    """What lies at the middle pixel of each cell: (B, S, S) to (B, cells, cells)."""
    step = regions.shape[-1] // cells
    return regions[:, step // 2 :: step, step // 2 :: step]
