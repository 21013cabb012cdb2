"""Where the query of a visual prompt may look: boolean masks over the cells of a decoder level.

All masks are bool (N, h * w), row by row, True where allowed; coordinates are pixels of the padded frame.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from talking_points.models.omg_llava.pixel_decoder import GridSize

MaskResize = Literal["center", "nearest", "maxpool"]


def box_cells(boxes: Tensor, frame: GridSize, grid: GridSize) -> Tensor:
    """Cells that boxes (N, 4) as corners x0, y0, x1, y1 touch."""
    (frame_height, frame_width), (height, width) = frame, grid
    scale = boxes.new_tensor([frame_width, frame_height, frame_width, frame_height])
    x0, y0, x1, y1 = (boxes / scale).clamp(0, 1).unbind(-1)
    columns = torch.arange(width, device=boxes.device)
    rows = torch.arange(height, device=boxes.device)
    inside_x = (columns >= (x0 * width).floor()[:, None]) & (columns < (x1 * width + 1).floor()[:, None])
    inside_y = (rows >= (y0 * height).floor()[:, None]) & (rows < (y1 * height + 1).floor()[:, None])
    return (inside_y[:, :, None] & inside_x[:, None, :]).flatten(1)


def region_cells(masks: Tensor, grid: GridSize) -> Tensor:
    """Cells whose top-left pixel lies in masks (N, H, W): the nearest-neighbour resize of the official code."""
    height, width = grid
    rows = torch.arange(height, device=masks.device) * masks.shape[1] // height
    columns = torch.arange(width, device=masks.device) * masks.shape[2] // width
    return (masks[:, rows[:, None], columns[None, :]] != 0).flatten(1)


def gaussian_cells(
    points: Tensor, sigma: Tensor, threshold: float, frame: GridSize, grid: GridSize, resize: MaskResize
) -> Tensor:
    """Cells where a Gaussian of height 1 round points (N, 2) reaches ``threshold``; ``sigma`` (N,) in pixels.

    ``resize`` says where a cell is judged: at its centre, at its top-left pixel ("nearest"), or at its best
    pixel ("maxpool"). The cell that holds the point is always allowed, so no mask is ever empty.
    """
    radius = sigma * math.sqrt(-2 * math.log(threshold))
    squared = []
    own = []
    for axis, (pixels, cells) in enumerate(zip(reversed(frame), reversed(grid), strict=True)):
        coordinate = points[:, axis, None]
        index = torch.arange(cells, device=points.device)
        first = index * pixels // cells
        if resize == "center":
            position = (index + 0.5) * pixels / cells
        elif resize == "nearest":
            position = first
        else:
            last = (index + 1) * pixels // cells - 1
            position = torch.minimum(torch.maximum(coordinate.round(), first), last)
        squared.append((position - coordinate) ** 2)
        own.append(index == (coordinate * cells / pixels).floor().clamp(0, cells - 1))
    near = squared[1][:, :, None] + squared[0][:, None, :] <= (radius**2)[:, None, None]
    holds_point = own[1][:, :, None] & own[0][:, None, :]
    return (near | holds_point).flatten(1)
