from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from talking_points.records import Mask
from talking_points.sources.coco_parts import BadAnnotationError, clip_box, outline, union, usable_category
from tests.sources.trees import HEIGHT, WIDTH, annotation, rectangle_polygon

masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def compressed(mask: Mask) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def uncompressed(mask: Mask) -> dict[str, Any]:
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def rectangle(x: int, y: int, width: int, height: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[y : y + height, x : x + width] = True
    return mask


@given(masks)
@pytest.mark.parametrize("encode", [compressed, uncompressed])
def test_run_lengths_of_both_kinds_give_the_mask_back(encode: Any, mask: Mask) -> None:
    height, width = mask.shape
    region = outline({"segmentation": encode(mask)}, width, height)
    assert np.array_equal(region.mask(), mask)
    assert region.area == mask.sum()
    if mask.any():
        _, rows, columns, crop = region.crop()
        assert np.array_equal(mask[rows, columns], crop)
        assert crop.sum() == mask.sum()
        assert region.box == (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)


@pytest.mark.parametrize("encode", [compressed, uncompressed])
def test_run_lengths_may_be_written_as_floats(encode: Any) -> None:
    mask = rectangle(4, 5, 10, 6)
    floats = encode(mask)
    floats["size"] = [float(side) for side in floats["size"]]
    if isinstance(floats["counts"], list):
        floats["counts"] = [float(run) for run in floats["counts"]]
    assert np.array_equal(outline({"segmentation": floats}, WIDTH, HEIGHT).mask(), mask)


@given(masks, st.data())
def test_run_lengths_that_do_not_fill_the_image_are_refused(mask: Mask, data: st.DataObject) -> None:
    height, width = mask.shape
    runs = uncompressed(mask)["counts"]
    wrong = data.draw(st.integers(-height * width, height * width).filter(bool))
    runs[data.draw(st.integers(0, len(runs) - 1))] += wrong
    counts = (
        runs if data.draw(st.booleans()) else "".join(map(chr, data.draw(st.lists(st.integers(0, 127), max_size=8))))
    )
    if isinstance(counts, str) and counts == compressed(mask)["counts"]:
        return
    try:
        region = outline({"segmentation": {"size": [height, width], "counts": counts}}, width, height)
    except BadAnnotationError:
        return
    assert isinstance(counts, str)  # random characters may happen to fill the image
    assert region.mask().shape == mask.shape
    assert region.area == region.mask().sum()


@pytest.mark.parametrize(("counts", "filled"), [(";=:eO", True), (";=:eooooO", True), (";=:eoooooO", False)])
def test_run_lengths_in_more_characters_than_they_need(counts: str, filled: bool) -> None:
    """A sign in the seventh character and beyond is misread by the library that decodes what is accepted here."""
    runs = {"segmentation": {"size": [6, 6], "counts": counts}}
    if filled:
        assert outline(runs, 6, 6).area == 15
        assert outline(runs, 6, 6).mask().sum() == 15
    else:
        with pytest.raises(BadAnnotationError, match="do not fill"):
            outline(runs, 6, 6)


POLYGON = rectangle_polygon(4, 5, 10, 6)


@pytest.mark.parametrize(
    ("segmentation", "expected", "exact"),
    [
        ([POLYGON], rectangle(4, 5, 10, 6), True),
        ([POLYGON, rectangle_polygon(30, 20, 5, 5)], rectangle(4, 5, 10, 6) | rectangle(30, 20, 5, 5), True),
        ([POLYGON, [30.0, 20.0]], rectangle(4, 5, 10, 6), True),
        ([POLYGON, [30.0, 20.0, 33.0, 25.0]], rectangle(4, 5, 10, 6), True),
        ([[30.0, 20.0]], rectangle(2, 3, 20, 10), False),
        ([[2.0, 3.0, 9.0, 9.0]], rectangle(2, 3, 20, 10), False),
        ([[2.0, 3.0, 9.0, 9.0, 2.0, 3.0]], rectangle(2, 3, 20, 10), False),
        ([POLYGON, [2.0, 3.0, 9.0, 9.0, 2.0, 3.0]], rectangle(4, 5, 10, 6), True),
        ([], rectangle(2, 3, 20, 10), False),
        (None, rectangle(2, 3, 20, 10), False),
        ([[0.0, 0.0, 1e12, 0.0, 1e12, 1e12]], rectangle(2, 3, 20, 10), False),
        (
            [[0.0, 0.0, 50.0, 0.0, 0.0, 30.0] * 500],
            rectangle(2, 3, 20, 10),
            False,
        ),  # memory for every pixel
    ],
)
def test_short_polygons_are_dropped_and_the_box_stands_in(segmentation: Any, expected: Mask, exact: bool) -> None:
    region = outline({"bbox": [2, 3, 20, 10], "segmentation": segmentation}, WIDTH, HEIGHT)
    assert region.exact is exact
    assert np.array_equal(region.mask(), expected)


PAIRS = [list(pair) for pair in zip(POLYGON[::2], POLYGON[1::2], strict=True)]
MASK = rectangle(4, 5, 10, 6)


@pytest.mark.parametrize(
    "segmentation",
    [
        POLYGON,
        PAIRS,
        [PAIRS],
        [PAIRS, POLYGON],
        [compressed(MASK)],
        [uncompressed(MASK)],
        [compressed(MASK), uncompressed(MASK)],
        [compressed(MASK), POLYGON],
    ],
    ids=["flat", "pairs", "pairs in a list", "both", "run lengths", "counts", "two run lengths", "mixed"],
)
def test_outlines_of_other_tools_are_read_exactly(segmentation: Any) -> None:
    region = outline({"bbox": [2, 3, 20, 10], "segmentation": segmentation}, WIDTH, HEIGHT)
    assert region.exact
    assert np.array_equal(region.mask(), MASK)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"segmentation": [[1.0, 2.0]], "bbox": None}, "degenerate_outline"),
        ({"segmentation": [[1.0, 2.0]], "bbox": [5, 5, 0, 4]}, "degenerate_box"),
        ({"bbox": [5, 5, 10, 0.5]}, "degenerate_box"),
        ({"bbox": [-20, 5, 20, 5]}, "degenerate_box"),
        ({"bbox": [WIDTH, 5, 20, 5]}, "degenerate_box"),
        ({"bbox": [1, 2, 3]}, "malformed_annotation"),
        ({"bbox": ["1", 2, 3, 4]}, "malformed_annotation"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": "x"}}, "outline_size_mismatch"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "0P`1"}}, "malformed_outline"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 5]}}, "malformed_outline"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH + 1, -1]}}, "malformed_outline"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [0.5, HEIGHT * WIDTH - 0.5]}}, "malformed_outline"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1e308, 1e308]}}, "malformed_outline"),
        ({"segmentation": {"size": [HEIGHT, WIDTH]}}, "malformed_outline"),
        ({"segmentation": {}}, "outline_size_mismatch"),
        ({"segmentation": "polygon"}, "malformed_outline"),
        ({"segmentation": [["5", "5", "15", "5", "15", "15"]]}, "malformed_outline"),
        ({"segmentation": [[5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 7.0]]}, "malformed_outline"),
        ({"segmentation": [POLYGON, None]}, "malformed_outline"),
        ({"segmentation": [[[5, 5, 1], [9, 5, 1], [9, 9, 1]]]}, "malformed_outline"),
        ({"segmentation": [{"x": 5, "y": 5}]}, "outline_size_mismatch"),
        ({"segmentation": 7}, "malformed_outline"),
        ({"segmentation": [[0, 1] * (WIDTH // 2)] * HEIGHT}, "malformed_outline"),
        ({"segmentation": [[0, 0, 1, 0, 1, 1, *[0] * (WIDTH - 6)]] * HEIGHT}, "malformed_outline"),
    ],
)
def test_unusable_outlines_are_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadAnnotationError) as error:
        outline(annotation(1, 1, 0, (5, 5, 10, 10), **changes), WIDTH, HEIGHT)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iscrowd": 1}, "crowd"),
        ({"iscrowd": "1"}, "crowd"),
        ({"iscrowd": True}, "crowd"),
        ({"area": 0}, "zero_area"),
        ({"area": 0.0}, "zero_area"),
        ({"category_id": 3}, "unknown_category"),
        ({"category_id": -1}, "unknown_category"),
    ],
)
def test_unusable_annotations_are_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadAnnotationError) as error:
        usable_category(annotation(1, 1, 0, (5, 5, 10, 10), **changes), "abc")
    assert error.value.reason == reason


def test_category_zero_is_a_category() -> None:
    assert usable_category(annotation(1, 1, 0, (5, 5, 10, 10)), "abc") == 0
    for crowd in (None, 0, "0", 0.0, False, "", "false"):
        assert usable_category(annotation(1, 1, 0, (5, 5, 10, 10), area=None, iscrowd=crowd), {0: "a"}) == 0


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([5, 6, 7, 8], (5, 6, 7, 8)),
        ([-5.5, 6, 10, 8], (0, 6, 4.5, 8)),
        ([50, 30, 100, 100], (50, 30, 10, 10)),
        ([-5, -5, 500, 500], (0, 0, WIDTH, HEIGHT)),
    ],
)
def test_boxes_are_clipped_to_the_image(box: list[float], clipped: tuple[float, ...]) -> None:
    assert clip_box(box, WIDTH, HEIGHT) == clipped


@given(st.lists(st.floats(-100, 100), min_size=4, max_size=4))
def test_a_box_never_stands_for_pixels_outside_the_image(box: list[float]) -> None:
    try:
        region = outline({"bbox": box, "segmentation": []}, WIDTH, HEIGHT)
    except BadAnnotationError:
        return
    x, y, width, height = region.box
    assert min(x, y) >= 0
    assert x + width <= WIDTH
    assert y + height <= HEIGHT
    assert region.area == width * height >= 1


def test_union_and_intersection() -> None:
    first = outline({"segmentation": [rectangle_polygon(0, 0, 10, 10)]}, WIDTH, HEIGHT)
    second = outline({"bbox": [5, 5, 10, 10]}, WIDTH, HEIGHT)
    assert np.array_equal(union([first, second]).mask(), rectangle(0, 0, 10, 10) | rectangle(5, 5, 10, 10))
    assert not union([first, second]).exact
    assert np.array_equal(first.intersection(second).mask(), rectangle(5, 5, 5, 5))
