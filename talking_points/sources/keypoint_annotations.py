"""COCO keypoint annotations: what AP-10K, MP-100 and a user's own files share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from talking_points.records import Box, Keypoint
from talking_points.sources.coco_parts import BadAnnotationError
from talking_points.sources.json_text import NOT_A_NUMBER
from talking_points.sources.protocol import Source

EDGES = 20
"""Edges of a skeleton for each of its keypoints, at most."""


def without_blanks(values: object) -> object:
    """A list of keypoints in which those without a place or a visibility, written as null or NaN, are (0, 0, 0)."""
    if not isinstance(values, list) or len(values) % 3 or not any(one in (None, NOT_A_NUMBER) for one in values):
        return values
    triples = (values[start : start + 3] for start in range(0, len(values), 3))
    return [one for triple in triples for one in ([0, 0, 0] if None in triple or NOT_A_NUMBER in triple else triple)]


def raw_keypoints(annotation: Mapping[str, Any]) -> list[tuple[float, float, bool]]:
    """(x, y, labelled) of every keypoint of an annotation; visibility 1 and 2 are both labelled.

    Raises ``BadAnnotationError`` when the list is not triples of numbers, or no keypoint is labelled.
    """
    values = annotation.get("keypoints")
    if not isinstance(values, list) or len(values) % 3 or not all(isinstance(v, int | float) for v in values):
        raise BadAnnotationError(
            "malformed_annotation", f"expected keypoints as one list x, y, visibility, x, ..., found {str(values)[:40]}"
        )
    triples = [(float(x), float(y), v > 0) for x, y, v in zip(values[::3], values[1::3], values[2::3], strict=True)]
    if annotation.get("num_keypoints") == 0 or not any(labelled for _, _, labelled in triples):
        raise BadAnnotationError("no_keypoints")
    return triples


def without_placeholders(
    triples: Sequence[tuple[float, float, bool]], box: Box, source: Source, where: str
) -> list[tuple[float, float, bool]]:
    """The same, but labelled keypoints at (0, 0) of an object that does not reach there are unlabelled, and counted.

    Converters from formats without visibilities label everything and write what is absent so. ``box`` is [x, y,
    width, height].
    """
    kept = []
    for x, y, labelled in triples:
        if labelled and x == y == 0 and max(box[:2]) >= 1:
            source.skip("keypoint_at_origin", where)
            labelled = False
        kept.append((x, y, labelled))
    return kept


def refuse_scores(annotation: Mapping[str, Any]) -> None:
    """Raise ``BadAnnotationError`` for fractions as visibilities: they are scores of predictions."""
    values = annotation.get("keypoints")
    for visibility in values[2::3] if isinstance(values, list) else ():
        if isinstance(visibility, float) and visibility % 1:
            raise BadAnnotationError("malformed_annotation", f"visibility {visibility:g}, expected 0, 1 or 2")


def check_count(triples: Sequence[object], names: Sequence[str]) -> None:
    """Raise ``BadAnnotationError`` (keypoint_count) unless there is one name for every annotated keypoint."""
    if len(triples) != len(names):
        raise BadAnnotationError("keypoint_count", f"{len(triples)} keypoints, the category has {len(names)} names")


def usable_skeleton(listed: object, count: int, first: int = 0) -> tuple[tuple[int, int], ...]:
    """The edges of a category's ``skeleton`` as pairs of indices; those that name no keypoint are left out, and all of
    a list that is longer than any skeleton: every image carries it.

    ``first``: the number of the first keypoint, 1 in COCO's own files and 0 in MP-100's.
    """
    edges = []
    for edge in listed if isinstance(listed, list) and len(listed) <= EDGES * count else []:
        if isinstance(edge, list) and len(edge) == 2 and all(isinstance(end, int) for end in edge):
            one, other = edge[0] - first, edge[1] - first
            if one != other and min(one, other) >= 0 and max(one, other) < count:
                edges.append((one, other))
    return tuple(edges)


def name_keypoints(
    triples: Sequence[tuple[float, float, bool]],
    names: Sequence[str],
    width: int,
    height: int,
    source: Source,
    where: str,
) -> tuple[Keypoint, ...]:
    """One ``Keypoint`` per name; unlabelled ones are not visible and lie at (0, 0).

    A labelled keypoint outside the image is counted on ``source`` and becomes an unlabelled one: clipping it
    would name a wrong place.
    """
    keypoints = []
    for (x, y, labelled), name in zip(triples, names, strict=True):
        if labelled and not in_image(x, y, width, height):
            source.skip("keypoint_outside_image", f"{where}: {name} at ({x:g}, {y:g}) in {width}x{height}")
            labelled = False
        keypoints.append(Keypoint(name, x, y, True) if labelled else Keypoint(name, 0.0, 0.0, False))
    return tuple(keypoints)


def in_image(x: float, y: float, width: int, height: int) -> bool:
    """Whether the pixel (round(x), round(y)) exists and x / width, y / height lie in [0, 1)."""
    return math.isfinite(x) and math.isfinite(y) and x >= 0 and y >= 0 and round(x) < width and round(y) < height
