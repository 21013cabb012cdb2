"""Outlines of any mask: exact along pixel edges, and short ones that keep nearly all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from talking_points.config import ConfigError
from talking_points.grounding.contours import Tracing, trace
from talking_points.grounding.grammar import read_lenient, read_strict, write_outlines
from talking_points.grounding.outlines import Outlines, is_clockwise, signed_area
from talking_points.grounding.rasters import encode_mask, round_trip_iou
from talking_points.records import Mask
from talking_points.sources import open_source
from tests.shared_data import shared_path

EXACT = Tracing(tolerance=0, contour="edge", components=None, holes=True)

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))
tracings = st.builds(
    Tracing,
    tolerance=st.sampled_from([0, 0.001, 0.03, 0.2, 0.49]),
    tolerance_of=st.sampled_from(["area", "length"]),
    points=st.sampled_from([None, 4, 5, 24]),
    balanced=st.booleans(),
    contour=st.sampled_from(["mid_edge", "edge", "centres"]),
    direction=st.sampled_from(["clockwise", "counterclockwise"]),
    components=st.sampled_from([None, 1, 3]),
    holes=st.booleans(),
)


def ellipse(height: int = 90, width: int = 120) -> Mask:
    y, x = np.mgrid[:height, :width]
    return ((x - width / 2) / (0.4 * width)) ** 2 + ((y - height / 2) / (0.4 * height)) ** 2 < 1


def starts_at_top(ring: tuple) -> bool:
    return ring[0] == min(ring, key=lambda point: (point[1], point[0]))


@given(masks)
def test_exact_outlines_enclose_the_mask_and_nothing_else(mask: Mask) -> None:
    outlines = trace(mask, EXACT)
    assert round_trip_iou(mask, outlines) == 1
    height, width = mask.shape
    assert sum(map(signed_area, outlines.rings)) * height * width == pytest.approx(mask.sum(), abs=1e-6)
    for outer, *holes in outlines.polygons:
        assert is_clockwise(outer)
        assert not any(map(is_clockwise, holes))
        assert all(map(starts_at_top, (outer, *holes)))
    areas = [round(signed_area(outer) * height * width) for outer, *_ in outlines.polygons]
    assert areas == sorted(areas, reverse=True)


@given(masks, tracings)
@settings(max_examples=300)
def test_any_mask_has_outlines_under_any_setting(mask: Mask, tracing: Tracing) -> None:
    outlines = trace(mask, tracing)
    assert all(0 <= value <= 1 for ring in outlines.rings for point in ring for value in point)
    assert len(outlines.polygons) <= (tracing.components or 1000)
    assert tracing.points is None or outlines.point_count <= tracing.points
    assert tracing.holes or all(len(polygon) == 1 for polygon in outlines.polygons)
    assert all(map(starts_at_top, outlines.rings))
    if tracing.contour != "centres":
        assert bool(outlines.polygons) == mask.any()
        clockwise = tracing.direction == "clockwise"
        assert all(is_clockwise(polygon[0]) == clockwise for polygon in outlines.polygons)
    read_lenient(write_outlines(outlines, holes=tracing.holes))


@given(masks)
def test_middles_of_edges_lose_no_pixel_centre(mask: Mask) -> None:
    outlines = trace(mask, Tracing(tolerance=0, components=None, holes=True))
    height, width = mask.shape
    inside = np.zeros(mask.shape, int)
    rows, columns = np.mgrid[:height, :width] + 0.5
    for ring in outlines.rings:
        points = np.array(ring) * [width, height]
        for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y1 != y2:
                crosses = (y1 > rows + 1e-7) != (y2 > rows + 1e-7)
                inside += crosses & (columns < x1 + (rows + 1e-7 - y1) * (x2 - x1) / (y2 - y1))
    assert (inside % 2 == mask).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (3, 70_000), (40_000, 1)])
def test_odd_sizes(shape: tuple[int, int]) -> None:
    assert trace(np.zeros(shape, np.bool_)) == Outlines()
    if all(shape):
        assert round_trip_iou(np.ones(shape, np.bool_), trace(np.ones(shape, np.bool_))) == 1


def test_shapes_that_break_tracers() -> None:
    pixel, frame = np.zeros((8, 10), np.bool_), np.ones((8, 10), np.bool_)
    pixel[3, 4] = True
    frame[1:-1, 1:-1] = False
    checkers = (np.indices((9, 9)).sum(axis=0) % 2).astype(np.bool_)
    specks = np.zeros((30, 60), np.bool_)
    specks[2:29:6, 2:59:10] = True
    assert write_outlines(trace(pixel)) == "[[[0.400, 0.375], [0.500, 0.375], [0.500, 0.500], [0.400, 0.500]]]"
    assert trace(frame, EXACT).point_count == 8
    assert round_trip_iou(frame, trace(frame, Tracing(holes=True))) == 1
    assert len(trace(checkers, Tracing(holes=True)).polygons) == 1  # 8-connected
    assert round_trip_iou(checkers, trace(checkers, EXACT)) == 1
    assert len(trace(specks, Tracing(components=None)).polygons) == 30
    assert len(trace(specks).polygons) == 8


def test_views_of_masks() -> None:
    mask = ellipse()
    for view in (mask[::2, ::3], mask.T, mask[::-1, ::-1], np.asfortranarray(mask)):
        assert trace(view) == trace(view.copy())
    mask.flags.writeable = False
    assert trace(mask).point_count > 8


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4)),
        np.zeros(4, np.bool_),
        np.zeros((2, 2, 2), np.bool_),
        [[True, False]],
        None,
    ],
)
@pytest.mark.parametrize("take", [trace, encode_mask])
def test_what_is_no_mask_is_refused(wrong: Any, take: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a mask of bool.*found.*make it one"):
        take(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tolerance": -0.1},
        {"tolerance": 0.5},
        {"tolerance": float("nan")},
        {"points": 3},
        {"components": 0},
        {"contour": "middle"},
        {"tolerance_of": "box"},
        {"direction": "left"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"expected .* found"):
        Tracing(**wrong)


def test_tolerance_budget_and_balance() -> None:
    mask = ellipse()
    counts = [trace(mask, Tracing(tolerance=tolerance)).point_count for tolerance in (0, 0.01, 0.03, 0.1)]
    assert counts == sorted(counts, reverse=True)
    kept = [round_trip_iou(mask, trace(mask, Tracing(points=points))) for points in (4, 6, 8, 16)]
    assert kept == sorted(kept)
    assert kept[-1] > 0.97
    plain, balanced = (trace(mask, Tracing(tolerance=0.06, balanced=balanced)) for balanced in (False, True))
    assert plain.point_count == balanced.point_count
    assert round_trip_iou(mask, balanced) > round_trip_iou(mask, plain) + 0.02
    official = trace(mask, Tracing(tolerance=0, contour="centres"))
    assert round_trip_iou(mask, official) < 0.97 < round_trip_iou(mask, trace(mask, Tracing(tolerance=0)))


SAMPLES = {
    "pascal_part116": "pascal_part116/PascalPart116",
    "ade20k_part234": "ade20k_part234/ADE20KPart234",
    "partimagenet": "partimagenet/PartImageNet_OOD",
}


def test_short_outlines_of_real_masks_keep_nearly_all_of_them() -> None:
    kept, points = [], []
    for name, folder in SAMPLES.items():
        for record in open_source(name, shared_path("samples", folder)):
            for region in (region for item in record.objects for region in (item, *item.parts)):
                assert region.mask is not None
                reading = read_strict(write_outlines(trace(region.mask)))
                assert reading.outlines is not None
                kept.append(round_trip_iou(region.mask, reading.outlines))
                points.append(reading.outlines.point_count)
    assert np.mean(kept) > 0.975
    assert np.mean(points) < 24
