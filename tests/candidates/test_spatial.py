from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.candidates.spatial import (
    CELL,
    CENTER,
    EDGE,
    GAP,
    SPAN,
    contradicts,
    contradicts_order,
    directions,
    instance_order,
    instance_phrase,
    object_location,
    part_location,
    plural,
    point_location,
)
from talking_points.records import Box

# Quarter pixels are exact in binary, so mirroring and doubling are exact too, and thresholds can be met precisely.
QUARTERS = st.integers(0, 4000).map(lambda n: n / 4)
EXTENTS = st.integers(1, 4000).map(lambda n: n / 4)
BOXES = st.tuples(QUARTERS, QUARTERS, EXTENTS, EXTENTS)


def mirrored(box: Box, width: float) -> Box:
    x, y, w, h = box
    return width - x - w, y, w, h


def swapped(phrase: str) -> str:
    return phrase.replace("left", "\0").replace("right", "left").replace("\0", "right")


def inside(frame: Box, x: float, y: float, w: float, h: float) -> Box:
    """The box at the given shares of the frame."""
    return frame[0] + x * frame[2], frame[1] + y * frame[3], w * frame[2], h * frame[3]


SHARES = st.sampled_from([n / 64 for n in range(65)])


@st.composite
def nested_boxes(draw) -> tuple[Box, Box]:
    frame = draw(st.tuples(QUARTERS, QUARTERS, st.integers(1, 40).map(float), st.integers(1, 40).map(float)))
    x, y = draw(SHARES), draw(SHARES)
    return inside(frame, x, y, draw(SHARES) * (1 - x), draw(SHARES) * (1 - y)), frame


@given(BOXES, st.integers(1, 1000), st.integers(1, 1000))
def test_object_phrase_of_a_mirrored_image_swaps_left_and_right_and_nothing_else(box: Box, width: int, height: int):
    assert object_location(mirrored(box, width), width, height) == swapped(object_location(box, width, height))


@given(nested_boxes())
def test_part_phrase_of_a_mirrored_image_swaps_left_and_right_and_nothing_else(boxes: tuple[Box, Box]):
    part, owner = boxes
    flipped = part_location(mirrored(part, 4096), mirrored(owner, 4096), "dog")
    assert flipped == swapped(part_location(part, owner, "dog"))


@given(BOXES, QUARTERS, QUARTERS)
def test_point_phrase_of_a_mirrored_image_swaps_left_and_right_and_nothing_else(part: Box, x: float, y: float):
    flipped = point_location((2048 - 1 - x, y), mirrored(part, 2048))
    assert flipped == swapped(point_location((x, y), part))


@given(nested_boxes(), st.sampled_from([0.25, 0.5, 2, 4, 8]))
def test_scaling_changes_nothing(boxes: tuple[Box, Box], scale: float):
    part, owner = boxes
    scaled_part, scaled_owner = (tuple(scale * value for value in box) for box in boxes)
    assert part_location(scaled_part, scaled_owner, "dog") == part_location(part, owner, "dog")  # type: ignore[arg-type]
    x, y = part[0] + 0.25 * part[2], part[1] + 0.75 * part[3]
    point, scaled_point = (x - 0.5, y - 0.5), (scale * x - 0.5, scale * y - 0.5)
    assert point_location(scaled_point, scaled_owner) == point_location(point, owner)  # type: ignore[arg-type]


def read_cell(phrase: str) -> tuple[int, int]:
    """The cell of the 3 x 3 grid that a reader of the phrase picks: column and row, each -1, 0 or 1."""
    claims = directions(phrase)

    def along(sides: frozenset[str], low: str, high: str) -> int:
        (side,) = sides
        return 0 if side in claims.slight else {low: -1, high: 1}.get(side, 0)

    return along(claims.horizontal, "left", "right"), along(claims.vertical, "top", "bottom")


@given(BOXES, SHARES, SHARES)
def test_the_phrase_of_a_point_lets_a_reader_pick_the_cell(part: Box, across: float, down: float):
    point = part[0] + across * part[2] - 0.5, part[1] + down * part[3] - 0.5
    cell = tuple(-1 if share < 1 / 3 else 1 if share > 2 / 3 else 0 for share in (across, down))
    assert read_cell(point_location(point, part)) == cell


@given(nested_boxes())
def test_every_phrase_claims_exactly_one_thing_on_each_axis(boxes: tuple[Box, Box]):
    part, owner = boxes
    for phrase in (part_location(part, owner, "chest of drawers"), point_location((part[0], part[1]), owner)):
        claims = directions(phrase)
        assert len(claims.horizontal) == len(claims.vertical) == 1
        assert not claims.ordinals


@pytest.mark.parametrize(
    ("displacement", "phrase"),
    [
        (0, "in the center"),
        (-CENTER, "in the center"),
        (-CENTER - 1e-9, "slightly left of the center"),
        (-CELL, "slightly left of the center"),
        (-CELL - 1e-9, "toward the left and vertically centered"),
        (-EDGE, "toward the left and vertically centered"),
        (-EDGE - 1e-9, "close to the left edge and vertically centered"),
        (1, "close to the right edge and vertically centered"),
    ],
)
def test_degrees_of_a_point_along_one_axis(displacement: float, phrase: str):
    assert point_location((displacement - 0.5, -0.5), (-1, -1, 2, 2)) == phrase


@pytest.mark.parametrize(
    ("x", "y", "phrase"),
    [
        (0, 0, "close to the left and top edges"),
        (25, 0, "close to the top edge and toward the left"),
        (75, 25, "toward the upper right"),
        (25, 60, "toward the left and slightly below the vertical center"),
        (40, 75, "toward the bottom and slightly left of the horizontal center"),
        (40, 40, "slightly left of and above the center"),
        (60, 40, "slightly right of and above the center"),
        (50, 60, "slightly below the center"),
        (99, 50, "close to the right edge and vertically centered"),
        (50, 99, "close to the bottom edge and horizontally centered"),
    ],
)
def test_points_read_naturally(x: float, y: float, phrase: str):
    assert point_location((x - 0.5, y - 0.5), (0, 0, 100, 100)) == phrase


@pytest.mark.parametrize(
    ("box", "phrase"),
    [
        ((0, 0, 100, 100), "spans most of the image"),
        ((0, 0, 100 * SPAN, 100 * SPAN), "spans most of the image"),
        ((0, 10, 90, 40), "spans most of the image horizontally, toward the top"),
        ((5, 20, 90, 60), "spans most of the image horizontally, at the vertical center"),
        ((0, 5, 20, 90), "spans most of the image vertically, close to the left edge"),
        ((12, 40, 50, 20), "is slightly left of the center of the image"),
        ((8, 36, 55, 16), "is slightly left of and above the center of the image"),
        ((80, 80, 20, 20), "is close to the right and bottom edges of the image"),
        ((100 * GAP, 45, 45, 10), "is toward the left of the image and vertically centered"),
        ((100 * GAP - 1, 45, 45, 10), "is close to the left edge of the image and vertically centered"),
        ((45, 45, 10, 10), "is in the center of the image"),
    ],
)
def test_objects_in_the_image(box: Box, phrase: str):
    assert object_location(box, 100, 100) == phrase


def test_a_part_that_spans_its_object():
    assert part_location((0, 0, 10, 10), (0, 0, 12, 12), "dog") == "spanning most of the dog"
    assert (
        part_location((0, 0, 12, 2), (0, 0, 12, 12), "bed")
        == "spanning most of the bed horizontally, close to the top edge"
    )


@pytest.mark.parametrize(
    ("count", "name", "phrases"),
    [
        (1, "dog", ["the dog"]),
        (2, "dog", ["the leftmost of two dogs", "the rightmost of two dogs"]),
        (3, "bus", ["the leftmost of three buses", "the middle one of three buses", "the rightmost of three buses"]),
        (
            4,
            "person",
            [
                "the leftmost of four people",
                "the second person from the left",
                "the second person from the right",
                "the rightmost of four people",
            ],
        ),
    ],
)
def test_instances_in_order(count: int, name: str, phrases: list[str]):
    assert [instance_phrase(index, count, name) for index in range(count)] == phrases


@given(st.integers(1, 60), st.data())
def test_instance_phrases_mirror_and_read_back(count: int, data):
    index = data.draw(st.integers(0, count - 1))
    phrase = instance_phrase(index, count, "sheep")
    assert instance_phrase(count - 1 - index, count, "sheep") == swapped(phrase)
    claims = directions(phrase)
    assert not claims.horizontal
    assert not claims.vertical
    for other in range(count):
        if claims.ordinals:
            assert contradicts_order(claims, other, count) == (other != index)


def test_an_impossible_instance_is_refused():
    with pytest.raises(ValueError, match="index 2 of 2"):
        instance_phrase(2, 2, "dog")


def test_instance_order_is_by_centers_and_knows_when_it_cannot_be_seen():
    boxes: list[Box] = [(60, 0, 20, 20), (0, 0, 100, 20), (10, 0, 20, 20)]
    assert instance_order(boxes, 100) == ([2, 1, 0], True)
    stacked: list[Box] = [(10, 50, 20, 20), (10, 0, 21, 20)]
    assert instance_order(stacked, 100) == ([0, 1], False)


@pytest.mark.parametrize(
    ("singular", "expected"),
    [
        ("chest of drawers", "chests of drawers"),
        ("bookcase", "bookcases"),
        ("bench", "benches"),
        ("coffee table", "coffee tables"),
        ("shelf", "shelves"),
        ("fish", "fish"),
        ("ferry", "ferries"),
    ],
)
def test_plurals(singular: str, expected: str):
    assert plural(singular) == expected


@given(nested_boxes(), nested_boxes())
def test_contradiction_is_what_a_reader_would_see(first: tuple[Box, Box], second: tuple[Box, Box]):
    truth, other = (directions(part_location(*boxes, "dog")) for boxes in (first, second))
    assert not contradicts(truth, truth)
    if "left" in truth.horizontal and "right" in other.horizontal:
        assert contradicts(other, truth)
        assert contradicts(truth, other)


@given(nested_boxes(), QUARTERS, QUARTERS)
def test_coarse_words_name_the_cell_and_no_degree(boxes: tuple[Box, Box], x: float, y: float):
    part, owner = boxes
    phrases = {
        coarse: (
            object_location(part, 1000, 1000, coarse=coarse),
            part_location(part, owner, "dog", coarse=coarse),
            point_location((x, y), part, coarse=coarse),
        )
        for coarse in (False, True)
    }
    for fine, coarse in zip(phrases[False], phrases[True], strict=True):
        assert "slightly" not in coarse
        assert "close" not in coarse
        said, meant = directions(coarse), directions(fine)
        assert not said.slight
        assert not contradicts(said, meant)
        for axis in ("horizontal", "vertical"):
            sides = getattr(meant, axis)
            assert getattr(said, axis) == (frozenset({"center"}) if sides & meant.slight else sides)


def test_coarse_words_read_naturally():
    assert object_location((3, 3, 20, 20), 100, 100) == "is close to the left and top edges of the image"
    assert object_location((3, 3, 20, 20), 100, 100, coarse=True) == "is toward the upper left of the image"
    assert point_location((55, 49.5), (0, 0, 100, 100)) == "slightly right of the center"
    assert point_location((55, 49.5), (0, 0, 100, 100), coarse=True) == "in the center"
