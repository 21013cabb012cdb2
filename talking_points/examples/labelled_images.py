"""Images with annotated parts as the pretraining of a vision path reads them, and what its tasks share."""

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

BOX_WEIGHT = 4.0
"""Of a mean distance in shares of the frame, beside cross-entropies: such distances are far below 1."""


@dataclass(frozen=True)
class LabelledImages:
    """Images as the model sees them, and the annotated part that each pixel lies on.

    pixels: uint8 (N, S, S, 3); regions: int32 (N, S, S), rows of the tables below, 0 is the background.
    part, object: int64 (R,) labels, 0 is none; instance: int64 (R,) tells the objects of an image apart.
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


def load_labelled_images(records: Iterable[ImageRecord], size: int, stretch: bool = False) -> LabelledImages:
    """Square images of ``size`` pixels, padded as the model pads or stretched, with their annotated parts."""
    part_labels: dict[str, int] = {}
    object_labels: dict[str, int] = {}
    rows: list[tuple[int, int, int, tuple[float, ...]]] = [(0, 0, 0, (0.0,) * 8)]
    pixels, regions = [], []
    for record in records:
        side, left, top = padding(record.width, record.height)
        frame = (side, side)
        if stretch:
            frame, left, top = (record.width, record.height), 0, 0
        region_map = np.zeros(frame[::-1], np.int32)
        inside = (slice(top, top + record.height), slice(left, left + record.width))
        for instance, annotated in enumerate(record.objects, start=1):
            own = object_labels.setdefault(annotated.name, len(object_labels) + 1)
            for part in annotated.parts:
                if part.mask is not None:
                    label = part_labels.setdefault(part.name, len(part_labels) + 1)
                    region_map[inside][part.mask] = len(rows)
                    boxes = (_corners(box, frame, left, top) for box in (annotated.bbox, part.bbox))
                    rows.append((label, own, instance, tuple(value for corners in boxes for value in corners)))
        image = np.full((*frame[::-1], 3), 122, np.uint8)
        image[inside] = record.pixels
        pixels.append(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA))
        smaller = cv2.resize(region_map.astype(np.float64), (size, size), interpolation=cv2.INTER_NEAREST)
        regions.append(smaller.astype(np.int32))
    if not part_labels:
        raise ConfigError("pretraining the vision path needs images with part masks, found none")
    return LabelledImages(
        np.stack(pixels), np.stack(regions), *(torch.tensor(column) for column in zip(*rows, strict=True))
    )


def _corners(box: Box, frame: tuple[int, int], left: int, top: int) -> tuple[float, ...]:
    x, y, width, height = box
    across, down = frame
    return (x + left) / across, (y + top) / down, (x + left + width) / across, (y + top + height) / down


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


def main_regions(regions: Tensor, cells: int) -> Tensor:
    """What fills most of each cell beside the background: (B, h, h) to (B, cells, cells)."""
    step = regions.shape[-1] // cells
    blocks = regions.unflatten(2, (cells, step)).unflatten(1, (cells, step)).transpose(2, 3).flatten(3)
    # Numbers that occur once stand for the background, so that any region that occurs twice is more frequent.
    single = -1 - torch.arange(blocks.shape[-1])
    return torch.where(blocks > 0, blocks, single).mode(-1).values.clamp(min=0)


def cell_middles(cells: int) -> Tensor:
    """The middles (cells * cells, 2) of a square grid's cells, row by row, in shares of the frame."""
    centres = (torch.arange(cells) + 0.5) / cells
    return torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).view(-1, 2)


def box_errors(predicted: Tensor, places: Tensor, boxes: Tensor, regions: Tensor) -> Tensor:
    """Errors (M, 16) of the boxes of object and part for those M of the places (N, 2) that lie on a part.

    ``predicted`` (N, 16) are the boxes in the frame and relative to the place: a language model with rotary positions
    finds the place of a visual token nowhere but in its features. ``regions`` (N,) are rows of ``boxes`` (R, 8).
    """
    inside = regions > 0
    wanted = boxes[regions[inside]]
    return predicted[inside] - torch.cat((wanted, wanted - places[inside].repeat(1, 4)), 1)


def relative_places(points: Tensor, boxes: Tensor) -> Tensor:
    """What words say of places, as numbers (N, 6), for points (N, 2) in shares of the frame and their boxes (N, 8).

    The point in its part and the part's middle in its object, each in half sides from the middle (-1 is left or top),
    and the share of the object's width and height that the part takes.
    """
    (owner_start, owner_end), (part_start, part_end) = (box.chunk(2, 1) for box in boxes.chunk(2, 1))
    owner_size, part_size = (owner_end - owner_start).clamp(min=1e-6), (part_end - part_start).clamp(min=1e-6)
    middle = (part_start + part_end) / 2
    in_part = 2 * (points - middle) / part_size
    in_owner = 2 * (middle - (owner_start + owner_end) / 2) / owner_size
    # A pixel of the small frame may lie just outside of a box that was measured in the large one.
    return torch.cat((in_part.clamp(-1, 1), in_owner.clamp(-1, 1), (part_size / owner_size).clamp(max=1)), 1)


def mirror_boxes(boxes: Tensor) -> Tensor:
    """Boxes (R, 8) of the same images seen in a mirror."""
    left, top, right, bottom = boxes.view(-1, 2, 4).unbind(-1)
    return torch.stack((1 - right, top, 1 - left, bottom), -1).view(-1, 8)
