"""COCO segmentations (polygons, run lengths compressed or not) as masks, with their reported defects handled.

All outlines become run-length encodings of pycocotools, whose areas, boxes and intersections need no decoding;
masks are decoded on access only. COCO run lengths are column-major (Lin et al. 2014, COCO API ``maskApi.c``).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from talking_points.grounding.rasters import is_too_long, mask_box
from talking_points.grounding.run_lengths import decompress, fills
from talking_points.records import AnnotatedObject, AnnotatedPart, Box, Mask, MaskCrop
from talking_points.records import Rle as Rle
from talking_points.sources.labels import ObjectLabel, PartLabel


class BadAnnotationError(Exception):
    """An annotation that cannot be used. ``reason`` is a key of ``SKIP_REASONS``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Outline:
    """A region as run lengths. ``exact`` is False when the annotation's box stands in for its outline."""

    rle: Rle
    exact: bool = True

    @property
    def area(self) -> int:
        return int(coco_mask.area(self.rle))

    @property
    def box(self) -> Box:
        """The box of the region's pixels."""
        return mask_box(self.rle)

    def mask(self) -> Mask:
        """Bool array (height, width)."""
        return np.ascontiguousarray(coco_mask.decode(self.rle).view(np.bool_))

    def crop(self) -> MaskCrop:
        """The mask in the box of the region."""
        x, y, width, height = map(int, self.box)
        rows, columns = slice(y, y + height), slice(x, x + width)
        inside = np.ascontiguousarray(coco_mask.decode(self.rle)[rows, columns].view(np.bool_))
        return MaskCrop(tuple(self.rle["size"]), rows, columns, inside)

    def intersection(self, other: Outline) -> Outline:
        return Outline(coco_mask.merge([self.rle, other.rle], intersect=True), self.exact)


def union(outlines: Sequence[Outline]) -> Outline:
    """All pixels of at least one outline; exact when all are."""
    return Outline(coco_mask.merge([outline.rle for outline in outlines]), all(outline.exact for outline in outlines))


def make_outlined_object(
    label: ObjectLabel, whole: Outline, parts: Sequence[tuple[PartLabel, Outline]], instance_exact: bool
) -> AnnotatedObject:
    """A record of an object and its parts from outlines that already lie inside it; masks are decoded on access."""
    return AnnotatedObject(
        label.name,
        label.label,
        label.id,
        whole.box,
        instance_exact,
        tuple(
            AnnotatedPart(part.part, part.label, part.id, own.box, load_mask=own.crop, mask_exact=own.exact)
            for part, own in parts
        ),
        load_mask=whole.crop,
        mask_exact=whole.exact,
    )


def usable_category(annotation: Mapping[str, Any], known: Mapping[int, object] | Sequence[object]) -> int:
    """The category id of an annotation after the checks that need no outline.

    Raises ``BadAnnotationError`` for crowds, zero areas, and ids that are not ``known`` (a mapping, or a sequence
    indexed by id).
    """
    if str(annotation.get("iscrowd") or "0").strip().lower() not in ("0", "0.0", "false"):
        raise BadAnnotationError("crowd")
    area = annotation.get("area")
    if isinstance(area, int | float) and area <= 0:
        raise BadAnnotationError("zero_area")
    category: int = annotation["category_id"]
    if category not in (known if isinstance(known, Mapping) else range(len(known))):
        raise BadAnnotationError("unknown_category", f"category_id {category}")
    return category


_LARGEST = sys.float_info.max


def _numbers(values: object, count: int | None = None) -> list[float] | None:
    if not isinstance(values, list) or (count is not None and len(values) != count):
        return None
    if not all(isinstance(value, int | float) and abs(value) <= _LARGEST for value in values):
        return None  # NaN is not smaller than anything
    return [float(value) for value in values]


def clip_box(bbox: object, width: int, height: int) -> Box:
    """A COCO box ``[x, y, width, height]`` clipped to the image.

    Raises ``BadAnnotationError`` when it is not four numbers, or smaller than 1 x 1 after clipping.
    """
    numbers = _numbers(bbox, 4)
    if numbers is None:
        raise BadAnnotationError("malformed_annotation", f"bbox {bbox!r}")
    x, y, w, h = numbers
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + w, float(width)), min(y + h, float(height))
    if right - left < 1 or bottom - top < 1:
        raise BadAnnotationError("degenerate_box", f"bbox {bbox} in {width}x{height}")
    return (left, top, right - left, bottom - top)


def outline(annotation: Mapping[str, Any], width: int, height: int) -> Outline:
    """The region of an annotation in an image of ``width`` x ``height`` pixels.

    Read are run lengths, a list of polygons, one polygon alone, and lists of run lengths; a polygon is a flat list of
    coordinates or a list of (x, y) pairs. Polygons under three points are dropped; when none is left the clipped box
    stands in (``exact=False``). Raises ``BadAnnotationError`` for any other form, when nothing usable is left, or when
    the annotated box (where there is one) is degenerate.
    """
    box = clip_box(annotation["bbox"], width, height) if annotation.get("bbox") is not None else None
    segmentation = annotation.get("segmentation")
    if _is_bitmap(segmentation, width, height):  # whose rows would read as polygons of points from 0 to 1
        raise BadAnnotationError("malformed_outline", "a bitmap of the image, expected polygons or run lengths")
    pieces = _pieces(segmentation)
    found = [check_rle(piece, width, height) for piece in pieces if isinstance(piece, Mapping)]
    polygons = [piece for piece in pieces if isinstance(piece, list) and _can_be_filled(piece, width, height)]
    if polygons:
        found += coco_mask.frPyObjects(polygons, height, width)
    if found:
        return Outline(found[0] if isinstance(segmentation, Mapping) else coco_mask.merge(found))
    if box is None:
        raise BadAnnotationError("degenerate_outline", "no polygon of three points and no box")
    return _box_outline(box, width, height)


def _is_bitmap(segmentation: object, width: int, height: int) -> bool:
    """Whether a mask was written as rows of 0 and 1, one for every row of the image."""
    return (
        isinstance(segmentation, list)
        and len(segmentation) == height
        and all(isinstance(row, list) and len(row) == width for row in segmentation)
        and all(value in (0, 1) for row in segmentation for value in row)
    )


def _pieces(segmentation: object) -> list[list[float] | Mapping[str, Any]]:
    """Polygons (x, y, x, y, ...) and run lengths of a segmentation in any form that COCO tools write."""
    if isinstance(segmentation, Mapping):
        return [segmentation]
    if not segmentation and isinstance(segmentation, list | None):
        return []
    if (alone := _coordinates(segmentation)) is not None:
        return [alone]
    listed = segmentation if isinstance(segmentation, list) else [segmentation]
    pieces: list[list[float] | Mapping[str, Any]] = []
    for item in listed:
        piece = item if isinstance(item, Mapping) else _coordinates(item)
        if piece is None:
            raise BadAnnotationError("malformed_outline", f"segmentation {str(segmentation)[:60]!r}")
        pieces.append(piece)
    return pieces


def _coordinates(polygon: object) -> list[float] | None:
    """A polygon as a flat list; None for anything that is not pairs of numbers. Three pairs are a polygon, two are not:
    they may be two polygons of one point."""
    if not isinstance(polygon, list):
        return None
    pairs = [_numbers(item, 2) for item in polygon] if len(polygon) > 2 else []
    if pairs and None not in pairs:
        return [number for pair in pairs if pair for number in pair]
    numbers = _numbers(polygon)
    return None if numbers is None or len(numbers) % 2 else numbers


def _can_be_filled(polygon: list[float], width: int, height: int) -> bool:
    """Whether a polygon has three points, no absurd ones and no absurd length: they exhaust the rasteriser's memory."""
    if len(set(zip(polygon[::2], polygon[1::2], strict=True))) < 3:
        return False  # among them two points that some tool has closed to three
    return max(map(abs, polygon)) <= 10 * max(width, height) and not is_too_long(polygon, width, height)


def _box_outline(box: Box, width: int, height: int) -> Outline:
    x, y, w, h = box
    mask = np.zeros((height, width), dtype=np.bool_)
    # At least one pixel: a box of 1 x 1 may straddle two pixel centres.
    mask[int(y) : max(round(y + h), int(y) + 1), int(x) : max(round(x + w), int(x) + 1)] = True
    return Outline(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)), exact=False)


def check_rle(segmentation: Mapping[str, Any], width: int, height: int) -> Rle:
    """Run lengths that fill the image exactly: pycocotools leaves memory uninitialised when they do not."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise BadAnnotationError("outline_size_mismatch", f"run lengths for {size}, image is {[height, width]}")
    if isinstance(counts, str):
        runs = decompress(counts)
        rle: Rle = {"size": [height, width], "counts": counts.encode()} if runs is not None else {}
    else:
        numbers = _numbers(counts)
        runs = None if numbers is None else np.asarray(numbers)
        rle = {}
        if runs is not None and fills(runs, width, height):
            whole = {"size": [height, width], "counts": runs.astype(np.int64).tolist()}
            rle = coco_mask.frPyObjects(whole, height, width)
    if not fills(runs, width, height):
        raise BadAnnotationError("malformed_outline", "run lengths do not fill the image")
    return rle
