"""SIFT keypoints inside annotated parts: detection only, and the rule that picks one (paper section 3.1; Lowe 1999).

The detector runs once on the whole image with OpenCV's coordinates left as they are. Keypoints are then looked up in
the masks at their own pixels only, so that the cost of the rule is small against the detection itself. Parts (or
images) that the first pass leaves empty get a second pass with a lower contrast threshold on small crops, which keeps
smooth parts reachable; such points say so. SIFT takes about 0.22 GiB a megapixel, so what is larger than
``max_pixels``, be it the image or a crop, is reduced before: memory is bounded whatever the image, and such points say
so too.

Nothing here depends on OpenCV's number of threads or on the order in which images are read. OpenCV releases the GIL
while it detects; a process that works on several images in threads should call ``cv2.setNumThreads(1)`` once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.build_config import KeypointConfig
from talking_points.records import ImageRecord, MaskCrop

CROP_MARGIN = 32
"""Pixels around a part in the second pass. SIFT ignores 5 pixels at each border of an octave, which is 20 pixels of the
image in the third octave; the rest lets the blur settle."""

CROP_ALIGNMENT = 16
"""Crops begin at multiples of this, so that the octaves of a crop sample the same pixels as those of the image."""


@dataclass(frozen=True)
class PointInPart:
    """A SIFT keypoint and the part it lies in: ``record.objects[object_index].parts[part_index]``.

    ``x``, ``y`` are pixels as OpenCV gives them (float32 values), ``size`` is the diameter in pixels, ``angle`` is in
    degrees. Those of a point that was found in a reduced image (``reduced``) are in pixels of the full one.
    """

    object_index: int
    part_index: int
    x: float
    y: float
    response: float
    size: float
    angle: float
    low_contrast: bool = False
    reduced: bool = False


@dataclass(frozen=True)
class _Part:
    object_index: int
    part_index: int
    crop: MaskCrop
    area: int


def select_keypoints(record: ImageRecord, config: KeypointConfig) -> tuple[list[PointInPart], Counter[str]]:
    """The keypoints of one image under the configured rule, and counts by reason of what gave none.

    With ``per="image"`` at most one point: the highest response inside any annotated part, never background. With
    ``per="part"`` at most one point for each annotated part; pieces annotated one by one and the parts of several
    instances are parts of their own. The pixel of a point, ``(round(x), round(y))``, lies in the part's mask and at
    least ``border_margin`` pixels from the image border. Where parts overlap, a keypoint belongs to the smallest part
    by area, which is the most specific thing it can be said to lie on. Equal responses are ordered by y, then x.

    Reasons: ``part_without_mask``, ``part_below_min_area``, ``part_without_keypoint`` (per part),
    ``image_without_parts`` (no part can hold a point), ``image_without_keypoint`` (per image).
    """
    reasons: Counter[str] = Counter()
    parts = _usable_parts(record, config, reasons)
    if not parts:
        reasons["image_without_parts"] += 1
        return [], reasons
    grey = np.asarray(cv2.cvtColor(record.pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    chosen = _best_per_part(grey, (0, 0), parts, config, low_contrast=False)
    if not chosen or (config.per == "part" and len(chosen) < len(parts)):
        empty = [index for index in range(len(parts)) if index not in chosen]
        for (x0, y0, x1, y1), inside in _crops(parts, empty):
            found = _best_per_part(grey[y0:y1, x0:x1], (x0, y0), parts, config, low_contrast=True)
            chosen.update({index: found[index] for index in inside if index in found})
    points = sorted(chosen.values(), key=_rank)[:1] if config.per == "image" else [chosen[i] for i in sorted(chosen)]

    if config.per == "part" and len(points) < len(parts):
        reasons["part_without_keypoint"] += len(parts) - len(points)
    if config.per == "image" and not points:
        reasons["image_without_keypoint"] += 1
    return points, reasons


def _usable_parts(record: ImageRecord, config: KeypointConfig, reasons: Counter[str]) -> list[_Part]:
    parts = []
    for object_index, annotated in enumerate(record.objects):
        for part_index, part in enumerate(annotated.parts):
            crop = part.crop
            if crop is None:
                reasons["part_without_mask"] += 1
                continue
            area = int(np.count_nonzero(crop.mask))
            if area < config.min_part_area:
                reasons["part_below_min_area"] += 1
                continue
            parts.append(_Part(object_index, part_index, crop, area))
    return parts


def _best_per_part(
    grey: NDArray[np.uint8],
    origin: tuple[int, int],
    parts: Sequence[_Part],
    config: KeypointConfig,
    *,
    low_contrast: bool,
) -> dict[int, PointInPart]:
    """Detect in ``grey``, which begins at pixel ``origin`` of the image; the best point of each part."""
    detector = cv2.SIFT.create(
        nfeatures=0,
        nOctaveLayers=config.octave_layers,
        contrastThreshold=config.low_contrast_threshold if low_contrast else config.contrast_threshold,
        edgeThreshold=config.edge_threshold,
        sigma=config.sigma,
    )
    seen = _reduce(grey, config.max_pixels)
    keypoints = detector.detect(seen, None)
    if not keypoints:
        return {}
    positions, scale = np.asarray(cv2.KeyPoint.convert(keypoints), dtype=np.float32), 1.0
    if seen is not grey:
        factors = np.array(grey.shape[::-1], np.float32) / np.array(seen.shape[::-1], np.float32)
        positions = np.asarray((positions + np.float32(0.5)) * factors - np.float32(0.5), dtype=np.float32)
        scale = float(factors.mean())
    positions += np.array(origin, dtype=np.float32)
    owners = _owners(positions, parts, config.border_margin)
    inside = np.flatnonzero(owners >= 0)
    responses = np.array([keypoints[index].response for index in inside.tolist()], dtype=np.float32)
    order = np.lexsort((positions[inside, 0], positions[inside, 1], -responses))
    best = {}
    for owner, first in zip(*np.unique(owners[inside[order]], return_index=True), strict=True):
        index = int(inside[order[first]])
        best[int(owner)] = PointInPart(
            object_index=parts[owner].object_index,
            part_index=parts[owner].part_index,
            x=float(positions[index, 0]),
            y=float(positions[index, 1]),
            response=keypoints[index].response,
            size=keypoints[index].size * scale,
            angle=keypoints[index].angle,
            low_contrast=low_contrast,
            reduced=seen is not grey,
        )
    return best


def _reduce(grey: NDArray[np.uint8], max_pixels: int) -> NDArray[np.uint8]:
    """The image itself (height, width), or reduced to at most ``max_pixels``."""
    height, width = grey.shape
    if height * width <= max_pixels:
        return grey
    factor = (max_pixels / (height * width)) ** 0.5
    size = [min(max(1, int(side * factor)), max_pixels) for side in (width, height)]
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _owners(positions: NDArray[np.float32], parts: Sequence[_Part], margin: int) -> NDArray[np.signedinteger]:
    """For each position (N, 2) the index of the smallest part whose mask holds its pixel, or -1."""
    height, width = parts[0].crop.shape
    owners = np.full((height, width), -1, dtype=np.min_scalar_type(-len(parts)))  # one byte a pixel, as a rule
    # From the largest to the smallest, so that a smaller part overrides; among equal areas the first annotated wins.
    for index in sorted(range(len(parts)), key=lambda index: (-parts[index].area, -index)):
        crop = parts[index].crop
        np.copyto(owners[crop.rows, crop.columns], index, where=crop.mask)
    columns, rows = np.rint(positions).astype(np.int64).T
    allowed = (columns >= margin) & (columns < width - margin) & (rows >= margin) & (rows < height - margin)
    return np.where(allowed, owners[rows.clip(0, height - 1), columns.clip(0, width - 1)], -1)


def _crops(parts: Sequence[_Part], empty: list[int]) -> list[tuple[tuple[int, int, int, int], list[int]]]:
    """Windows (x0, y0, x1, y1) and the parts to look for in each: one per part, or one for all if that is less work."""
    windows = [_window(parts[index].crop) for index in empty]
    x0, y0, x1, y1 = zip(*windows, strict=True)
    union = (min(x0), min(y0), max(x1), max(y1))
    if sum(map(_area, windows)) >= _area(union):
        return [(union, empty)]
    return [(window, [index]) for window, index in zip(windows, empty, strict=True)]


def _window(crop: MaskCrop) -> tuple[int, int, int, int]:
    height, width = crop.shape
    rows = crop.rows.start + np.flatnonzero(crop.mask.any(axis=1))
    columns = crop.columns.start + np.flatnonzero(crop.mask.any(axis=0))
    x0, y0 = (max(0, int(start) - CROP_MARGIN) // CROP_ALIGNMENT * CROP_ALIGNMENT for start in (columns[0], rows[0]))
    return x0, y0, min(width, int(columns[-1]) + 1 + CROP_MARGIN), min(height, int(rows[-1]) + 1 + CROP_MARGIN)


def _area(window: tuple[int, int, int, int]) -> int:
    return (window[2] - window[0]) * (window[3] - window[1])


def _rank(point: PointInPart) -> tuple[float, float, float]:
    return -point.response, point.y, point.x
