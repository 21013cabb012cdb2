"""The Gaussian-weighted crop around a keypoint: the one image that every local captioner sees.

Paper section 3.1: "LLaVA processes a Gaussian-masked region centered at the keypoint to extract fine-grained
local features". The same crop feeds the ``rules`` backend, every vision model and the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.build_config import CropConfig
from talking_points.records import Box

GREY = 128
_BLUR_SIGMA = 0.12
"""Of the blurred surround, relative to the crop's side: shapes disappear, colours stay."""


def crop_side(part_bbox: Box, config: CropConfig) -> int:
    """Side of the square crop in image pixels: the part's longer side times ``part_scale``, within the limits."""
    _, _, width, height = part_bbox
    return int(np.clip(round(config.part_scale * max(width, height)), config.min_side, config.max_side))


def gaussian_weight(side: int, sigma: float) -> NDArray[np.float32]:
    """The weight of each pixel of a square crop: 1 at its centre, falling off as a Gaussian.

    ``sigma`` is relative to ``side``. Returns float32 (side, side).
    """
    offsets = (2 * np.arange(side, dtype=np.float32) + 1 - side) / (2 * side)
    profile = np.exp(-0.5 * (offsets / sigma) ** 2)
    return np.outer(profile, profile).astype(np.float32, copy=False)


@lru_cache(maxsize=4)
def _weights(side: int, sigma: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of the crop and of its surround: those of many rows, as small parts get the smallest side."""
    weight = gaussian_weight(side, sigma)
    return weight, 1 - weight


def gaussian_crop(
    pixels: NDArray[np.uint8], keypoint: tuple[float, float], part_bbox: Box, config: CropConfig
) -> NDArray[np.uint8]:
    """Cut the square around a keypoint and fade it into the configured surround.

    Args:
        pixels: the image, uint8 RGB (height, width, 3).
        keypoint: (x, y) in pixels; must lie in the image. Its pixel lands in the middle of the crop.
        part_bbox: ``[x, y, width, height]`` of the part in pixels; gives the crop its scale.
        config: side, limits, sigma, surround and the size of the result.

    Returns:
        uint8 RGB (config.size, config.size, 3). Where the square leaves the image, the image's border pixels
        are continued: no false edge appears, and no mirrored detail.

    Raises:
        ValueError: when the keypoint is not a pixel of the image.
    """
    height, width = pixels.shape[:2]
    column, row = round(keypoint[0]), round(keypoint[1])
    if not (0 <= column < width and 0 <= row < height):
        raise ValueError(
            f"keypoint {tuple(keypoint)} lies outside the {width}x{height} image: "
            "expected pixel coordinates (x, y) of this very image, not of a resized copy"
        )
    side = crop_side(part_bbox, config)
    left, top = column - side // 2, row - side // 2
    inside_left, inside_top = max(left, 0), max(top, 0)
    inside = pixels[inside_top : min(top + side, height), inside_left : min(left + side, width)]
    above, before = inside_top - top, inside_left - left
    below, after = side - above - inside.shape[0], side - before - inside.shape[1]
    square = np.asarray(cv2.copyMakeBorder(inside, above, below, before, after, cv2.BORDER_REPLICATE), np.uint8)
    result = np.asarray(cv2.blendLinear(square, _surround(square, config), *_weights(side, config.sigma)), np.uint8)
    if side == config.size:
        return result
    shrinks = side > config.size
    return np.asarray(
        cv2.resize(result, (config.size, config.size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC),
        dtype=np.uint8,
    )


def _surround(square: NDArray[np.uint8], config: CropConfig) -> NDArray[np.uint8]:
    """What the crop fades into, of the crop's shape."""
    if config.surround != "blur":
        return np.full_like(square, 0 if config.surround == "black" else GREY)
    # A wide blur of a small copy: the same image as of the full one, many times faster.
    small = cv2.resize(square, (32, 32), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), 32 * _BLUR_SIGMA, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(blurred, square.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def contact_sheet(
    crops: Sequence[NDArray[np.uint8]], titles: Sequence[str] = (), columns: int = 6, tile: int = 168
) -> NDArray[np.uint8]:
    """Lay crops out on a white page, each with a title below and a thin ring around its centre.

    Args:
        crops: uint8 RGB images of any size, shown as squares of ``tile`` pixels.
        titles: one short line per crop; ASCII, as OpenCV's font has no other characters. May be empty.

    Returns:
        uint8 RGB (rows * (tile + caption), columns * tile, 3).
    """
    if not crops:
        raise ValueError("a contact sheet needs at least one crop")
    caption = 18 if titles else 0
    rows = -(-len(crops) // columns)
    sheet = np.full((rows * (tile + caption), min(columns, len(crops)) * tile, 3), 255, np.uint8)
    for index, crop in enumerate(crops):
        top, left = index // columns * (tile + caption), index % columns * tile
        image = cv2.resize(crop, (tile - 4, tile - 4), interpolation=cv2.INTER_AREA)
        cv2.circle(image, (tile // 2 - 2, tile // 2 - 2), tile // 24, (255, 40, 40), 1, cv2.LINE_AA)
        sheet[top + 2 : top + tile - 2, left + 2 : left + tile - 2] = image
        if titles:
            text = titles[index].encode("ascii", "replace").decode()[: tile // 7]
            origin = (left + 3, top + tile + 11)
            cv2.putText(sheet, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (30, 30, 30), 1, cv2.LINE_AA)
    return sheet
