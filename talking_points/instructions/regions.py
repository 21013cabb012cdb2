"""One annotated region as text, point, box and mask, with what its outlines keep of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from talking_points.candidates.build import find_instances
from talking_points.grounding.contours import trace
from talking_points.grounding.grammar import read_strict, write_outlines
from talking_points.grounding.rasters import encode_mask, mask_box, round_trip_iou
from talking_points.instructions.config import InstructionSettings
from talking_points.instructions.described_points import DescribedPoint, PartKey, part_key
from talking_points.instructions.expressions import clean_expressions, name_object, name_part
from talking_points.records import Box, ImageRecord, Mask, MaskCrop, Region, derive_seed, stable_id
from talking_points.sources.coco_parts import Rle

TOKENS_PER_POINT = 14
"""Of ``[0.123, 0.456], `` for a tokenizer that takes digits one by one; each further decimal adds two."""

INNERMOST = 0.1
"""Share of a region's pixels, those farthest from its border, among which its point is drawn."""


class UnusableRegionError(Exception):
    """A region that gives no row. ``reason`` is a short stable word for counting, ``detail`` says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class MeasuredRegion:
    """The four ways to name one region, and what is to be known of them.

    ``region`` is its stable id; ``part`` is empty for a whole object. ``expressions`` is empty where no words mean this
    region alone. ``mask``: run lengths; ``outlines``: their text; ``box`` ``[x, y, width, height]`` and ``point``
    ``(x, y)`` in pixels, a point's integers being pixel centres. ``epsilon``: tolerance, None under a budget of points.
    """

    region: str
    object: str
    part: str
    expressions: tuple[str, ...]
    outlines: str
    mask: Rle
    box: Box
    point: tuple[float, float]
    epsilon: float | None
    points: int
    round_trip_iou: float
    components: int
    holes: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Dropped:
    """A region that gives no row: its id and name, why, and what was found."""

    region: str
    name: str
    reason: str
    detail: str


@dataclass(frozen=True)
class _Listed:
    """A region to be measured: object and part by name, its words, its id, and points of it that are described."""

    object: str
    part: str
    region: Region
    expressions: list[str]
    id: str
    points: list[DescribedPoint] = field(default_factory=list)


def measure_regions(
    record: ImageRecord,
    settings: InstructionSettings,
    seed: int,
    described: Mapping[PartKey, list[DescribedPoint]] | None = None,
) -> Iterator[MeasuredRegion | Dropped]:
    """The regions of an image, in the order of its annotation: each measured, or dropped with its reason.

    ``described`` points of a part take the place of the drawn one, their sentences are expressions of it as well.
    Reasons: no_mask, empty_mask, small_region, too_many_points, too_many_tokens, unwritable_outline, low_round_trip.
    """
    for listed in _list_regions(record, settings, described or {}):
        try:
            yield _measure(listed, settings, seed)
        except UnusableRegionError as unusable:
            shown = f"{listed.object}'s {listed.part}" if listed.part else listed.object
            yield Dropped(listed.id, shown, unusable.reason, unusable.detail)


def _list_regions(
    record: ImageRecord, settings: InstructionSettings, described: Mapping[PartKey, list[DescribedPoint]]
) -> Iterator[_Listed]:
    instances = find_instances(record)
    for number, annotated in enumerate(record.objects):
        identity = (record.source, record.image_id, f"{number}:{annotated.label}")
        if settings.regions != "parts":
            written = clean_expressions(annotated.expressions)
            named = None if annotated.expressions else name_object(annotated, instances[number])
            yield _Listed(annotated.name, "", annotated, written or ([named] if named else []), stable_id(*identity))
        if settings.regions == "objects":
            continue
        for position, part in enumerate(annotated.parts):
            named = name_part(annotated, position, instances[number], record.width)
            key = stable_id(*identity, f"{position}:{part.label}")
            place = part_key(record.source, record.relative_path, annotated.name, part.name, part.bbox)
            points = described.get(place, [])
            words = [named] if named else []
            words += clean_expressions([point.text for point in points])
            yield _Listed(annotated.name, part.name, part, words, key, points)


def _measure(listed: _Listed, settings: InstructionSettings, seed: int) -> MeasuredRegion:
    region, expressions = listed.region, listed.expressions
    crop = region.crop
    if crop is None:
        raise UnusableRegionError("no_mask", "a box alone")
    size = int(np.count_nonzero(crop.mask))
    if size < settings.min_area:
        raise UnusableRegionError(
            "small_region" if size else "empty_mask", f"{size} of at least {settings.min_area} pixels"
        )
    mask = crop.uncrop()
    style = settings.outlines
    outlines = trace(mask, style.tracing)
    text = write_outlines(outlines, style.decimals, style.holes)
    reading = read_strict(text, settings.max_points)
    if reading.outlines is None:
        reason = "too_many_points" if reading.error == "too_many" else "unwritable_outline"
        raise UnusableRegionError(reason, f"{outlines.point_count} points; {reading.error}")
    points = reading.outlines.point_count
    tokens = points * (TOKENS_PER_POINT + 2 * (style.decimals - 3))
    if tokens > settings.max_answer_tokens:
        raise UnusableRegionError("too_many_tokens", f"about {tokens} of at most {settings.max_answer_tokens}")
    runs = encode_mask(mask)
    kept = round_trip_iou(runs, reading.outlines)
    if kept < settings.min_iou:
        raise UnusableRegionError("low_round_trip", f"IoU {kept:.3f} of at least {settings.min_iou:g}")
    components, holes, hole_area = _count_pieces(crop.mask)
    inside = [found for found in listed.points if _is_inside(found.point, mask)]
    flags = {
        "approximate_mask": not region.mask_exact,
        "described_point": bool(inside),
        "components_cut": style.components is not None and components > style.components,
        "holes_filled": not style.holes and hole_area > settings.warn_holes * (size + hole_area),
        "no_text": not expressions,
    }
    return MeasuredRegion(
        region=listed.id,
        object=listed.object,
        part=listed.part,
        expressions=tuple(expressions),
        outlines=text,
        mask={"size": list(runs["size"]), "counts": runs["counts"].decode("ascii")},
        box=region.bbox if getattr(region, "expressions", ()) else mask_box(runs),
        point=inside[0].point if inside else _choose_point(crop, seed, listed.id),
        epsilon=None if style.points is not None else style.tolerance,
        points=points,
        round_trip_iou=kept,
        components=components,
        holes=holes,
        flags=tuple(flag for flag, raised in flags.items() if raised),
    )


def _is_inside(point: tuple[float, float], mask: Mask) -> bool:
    x, y = round(point[0]), round(point[1])
    return 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and bool(mask[y, x])


def _count_pieces(mask: Mask) -> tuple[int, int, int]:
    """Components (8-connected), holes (4-connected), and the pixels of all holes."""
    padded = np.pad(mask.view(np.uint8), 1)
    components = cv2.connectedComponents(padded, connectivity=8)[0] - 1
    surroundings, labels = cv2.connectedComponents(1 - padded, connectivity=4)
    outside = labels[0, 0]
    holes = int(np.count_nonzero((labels != outside) & (padded == 0)))
    return components, surroundings - 2, holes


def _choose_point(crop: MaskCrop, seed: int, identity: str) -> tuple[float, float]:
    """One of the pixels farthest from the border of a region, never its centroid, which may lie outside it."""
    distances = cv2.distanceTransform(np.pad(crop.mask.view(np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    rows, columns = np.nonzero(crop.mask)
    # Squares of these distances are whole numbers; OpenCV's roots differ in their last bit from call to call.
    values = np.rint(distances[1:-1, 1:-1][rows, columns].astype(np.float64) ** 2)
    best = max(1, int(INNERMOST * len(values)))
    deep = np.flatnonzero(values >= np.partition(values, -best)[-best])
    chosen = deep[derive_seed(seed, identity, "point") % len(deep)]
    return float(columns[chosen] + crop.columns.start), float(rows[chosen] + crop.rows.start)
