"""Outlines as masks, and what is measured on masks without decoding them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from talking_points.config import ConfigError
from talking_points.grounding.contours import Tracing, trace
from talking_points.grounding.outlines import (
    Outlines,
    box_to_pixels,
    box_to_unit,
    point_to_pixels,
    point_to_unit,
)
from talking_points.grounding.rasters import (
    area,
    box_iou,
    centroid,
    decode_mask,
    empty_mask,
    encode_mask,
    iou,
    mask_box,
    outlines_box,
    overlap,
    rasterise,
)
from talking_points.records import Mask
from talking_points.sources.coco_parts import Outline, check_rle

WIDTH, HEIGHT = 60, 40
SQUARE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
INNER = ((0.4, 0.6), (0.6, 0.6), (0.6, 0.4), (0.4, 0.4))
CORNER = ((0.5, 0.5), (0.9, 0.5), (0.9, 0.9), (0.5, 0.9))

pairs = st.tuples(*(arrays(np.bool_, (9, 7)) for _ in range(2)))


@pytest.mark.parametrize(
    ("polygons", "pixels"),
    [
        ((), 0),
        (((),), 0),
        (((SQUARE,),), 600),
        (((SQUARE[::-1],),), 600),
        (((SQUARE,), (SQUARE,)), 600),
        (((SQUARE,), (CORNER,)), 600 + 384 - 150),
        (((SQUARE, INNER),), 600 - 96),
        (((SQUARE, INNER), (INNER,)), 600),
        (((SQUARE, CORNER),), 600 - 150),  # a hole that sticks out takes away what it covers
        (((SQUARE + SQUARE,),), 0),  # walked twice: even-odd
        ((((-0.5, -0.5), (1.5, -0.5), (1.5, 1.5), (-0.5, 1.5)),), WIDTH * HEIGHT),
        ((((0.5, 0.5), (0.501, 0.5), (0.501, 0.501)),), 0),
    ],
)
def test_areas(polygons: tuple, pixels: int) -> None:
    nested = polygons if not polygons or not polygons[0] or isinstance(polygons[0][0][0], tuple) else (polygons,)
    rle = rasterise(Outlines(nested), WIDTH, HEIGHT)
    assert area(rle) == decode_mask(rle).sum() == pixels


@pytest.mark.parametrize(
    "ring",
    [
        SQUARE[:2],
        (),
        ((0.1, 0.1), (9.0, 0.1), (0.5, 0.5)),
        ((0, 0), (1, 1), (1, np.nan)),
        ((0, 0), (1, 0), (0, 1)) * 200,
    ],
)
def test_what_the_rasteriser_would_misread_is_refused(ring: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        rasterise(Outlines(((ring,),)), WIDTH, HEIGHT)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_an_image_of_no_size_is_a_damaged_dataset(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="damaged"):
        rasterise(Outlines(), *size)


@given(pairs)
def test_overlap_is_that_of_the_pixels(masks: tuple[Mask, Mask]) -> None:
    first, second = masks
    both, either = int((first & second).sum()), int((first | second).sum())
    runs = encode_mask(first), encode_mask(second)
    assert (decode_mask(runs[0]) == first).all()
    assert overlap(*runs) == (both, either)
    assert iou(*runs) == (both / either if either else 1)


@given(arrays(np.bool_, (9, 7)))
def test_centroid_and_box_are_those_of_the_pixels(mask: Mask) -> None:
    rows, columns = np.nonzero(mask)
    rle = encode_mask(mask)
    if not len(rows):
        assert centroid(rle) is None
        assert mask_box(rle) == (0, 0, 0, 0)
        return
    assert centroid(rle) == pytest.approx((columns.mean() + 0.5, rows.mean() + 0.5))
    assert mask_box(rle) == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    edges = trace(mask, Tracing(tolerance=0, contour="edge", components=None))
    assert outlines_box(edges, 7, 9) == pytest.approx(mask_box(rle))


@pytest.mark.parametrize("runs", [[15], [0, 0, 15], [7, 0, 8], [0, 0, 0, 0, 15]])
def test_an_empty_mask_may_be_written_with_runs_of_no_pixel(runs: list[int]) -> None:
    rle = check_rle({"size": [3, 5], "counts": runs}, 5, 3)
    assert (area(rle), mask_box(rle), centroid(rle)) == (0, (0, 0, 0, 0), None)
    assert Outline(rle).box == (0, 0, 0, 0)


def test_masks_of_two_sizes_have_no_overlap() -> None:
    with pytest.raises(ValueError, match="one size"):
        iou(empty_mask(3, 4), empty_mask(4, 3))
    with pytest.raises(ValueError, match="mask of bool"):
        encode_mask(np.zeros((3, 3), np.int64))


def test_boxes_of_outlines_end_at_the_image() -> None:
    assert outlines_box(Outlines(), 10, 10) is None
    outside = ((-0.2, 0.5), (0.5, 0.2), (0.5, 1.2))
    assert outlines_box(Outlines(((outside,),)), 10, 20) == (0, 4, 5, 16)
    assert box_iou((0, 0, 20, 10), (0, 0, 10, 10)) == 0.5
    assert box_iou((0, 0, 1, 1), (5, 5, 1, 1)) == box_iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0


def test_points_move_by_half_a_pixel_and_boxes_do_not() -> None:
    assert point_to_unit(0, 19, 10, 20) == (0.05, 0.975)
    assert point_to_pixels(point_to_unit(3, 4, 10, 20), 10, 20) == pytest.approx((3, 4))
    assert box_to_unit((0, 10, 5, 10), 10, 20) == (0, 0.5, 0.5, 1)
    assert box_to_pixels((0, 0.5, 0.5, 1), 10, 20) == (0, 10, 5, 10)
