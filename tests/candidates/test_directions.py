from __future__ import annotations

import pytest

from talking_points.candidates.directions import Directions, contradicts, contradicts_order, directions


def claims(horizontal: str = "", vertical: str = "", slight: str = "") -> Directions:
    return Directions(frozenset(horizontal.split()), frozenset(vertical.split()), frozenset(slight.split()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the paper's own wording (Figure 2, Table 5)
        ("which spans most of the horizontal and vertical axis in the image", claims("spans", "spans")),
        ("situated to the left and close to the top edge of the bike", claims("left", "top")),
        ("slightly above and to the right of the center", claims("right", "top", "right top")),
        (
            "positioned close to the left edge and slightly above the vertical center of the image",
            claims("left", "top", "top"),
        ),
        ("near the right edge and below the vertical center of the head", claims("right", "bottom")),
        ("close to the right and bottom edges of the picture", claims("right", "bottom")),
        ("that spans most of the image", claims("spans", "spans")),
        # how language models reword it
        ("in the upper-left corner", claims("left", "top")),
        ("towards the bottom", claims("", "bottom")),
        ("on the lower right-hand side", claims("right", "bottom")),
        ("in the top right", claims("right", "top")),
        ("just left of the midline", claims("left", "center", "left")),
        ("a little below the centre", claims("center", "bottom", "bottom")),
        ("a bit to the left of, and slightly below, the middle", claims("left", "bottom", "left bottom")),
        ("above and slightly to the left of the center", claims("left", "top", "left")),
        ("at its very center", claims("center", "center")),
        ("the central region", claims("center", "center")),
        ("center-left", claims("left", "center")),
        ("the bottom center", claims("center", "bottom")),
        ("horizontally centered and close to the top edge", claims("center", "top")),
        ("vertically centered, toward the right", claims("right", "center")),
        ("centered both horizontally and vertically", claims("center", "center")),
        ("halfway up, near the left side", claims("left", "center")),
        ("midway between the left and right edges, at the bottom", claims("center", "bottom")),
        ("stretches from the left edge to the right edge near the bottom", claims("spans", "bottom")),
        ("occupying nearly the entire height of the frame, on the left", claims("left", "spans")),
        ("filling the whole picture", claims("spans", "spans")),
        ("right at the bottom", claims("", "bottom")),
        ("right next to the left edge", claims("left")),
        ("on the right in the image", claims("right")),
        ("the leftmost part of the head", claims("left")),
        # nothing is claimed
        ("a dark spot above the nose", claims()),
        ("standing on top of the table", claims()),
        ("to the left of a dark stripe", claims()),
        ("left behind on the grass, bright and upright", claims()),
        ("at a right angle", claims()),
        ("just off-center", claims()),
        ("a small circle with a lighter center", claims()),
        ("covered in fur", claims()),
        ("", claims()),
    ],
)
def test_wording(text: str, expected: Directions):
    assert directions(text) == expected
    assert directions(text.upper()) == expected


@pytest.mark.parametrize(
    ("text", "ordinals"),
    [
        ("the rightmost dog in the image", {("right", 1)}),
        ("it is the second dog from the left, on its eye", {("left", 2)}),
        ("the 3rd person from the right", {("right", 3)}),
        ("the third from left", {("left", 3)}),
        ("from left to right, the second car", {("left", 2)}),
        ("the second-leftmost chair", {("left", 2)}),
        ("the left-most of the two cats", {("left", 1)}),
        ("the right one of two dogs", {("right", 1)}),
        ("the middle one of three buses", {("middle", 0)}),
        ("the first in line", set()),
    ],
)
def test_instance_order_is_no_side(text: str, ordinals: set[tuple[str, int]]):
    found = directions(text)
    assert found.ordinals == ordinals
    assert not found.horizontal
    assert not found.vertical


def test_ordinals_and_sides_in_one_sentence():
    found = directions("the second dog from the left, which is close to the right edge of the image")
    assert found == Directions(frozenset({"right"}), ordinals=frozenset({("left", 2)}))


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("specifically on its top, toward the left", ["top"], claims("left")),
        ("within the top, close to the top edge", ["top"], claims("", "top")),
        ("the table's top is at the bottom", ["table", "top"], claims("", "bottom")),
        ("on the person's lower arm, toward the top", ["lower arm"], claims("", "top")),
        ("on the side mirror, toward the top", ["side mirror"], claims("", "top")),
    ],
)
def test_names_that_sound_like_places_are_no_claims(text: str, names: list[str], expected: Directions):
    assert directions(text, names) == expected


@pytest.mark.parametrize(
    ("text", "truth", "expected"),
    [
        ("on the right", "toward the left and vertically centered", True),
        ("on the left", "slightly left of the center", False),
        ("in the middle", "slightly left of the center", False),
        ("in the middle", "toward the left and vertically centered", True),
        ("slightly left of the center", "in the center", True),
        ("at the top", "close to the top edge and toward the left", False),
        ("in the lower half", "close to the top edge and toward the left", True),
        ("in the center", "spans most of the image", False),
        ("spans most of the image", "toward the upper left", True),
        ("between the left and the right, left of the center, on the right", "toward the upper left", True),
        ("a fine animal", "toward the upper left", False),
    ],
)
def test_contradictions(text: str, truth: str, expected: bool):
    assert contradicts(directions(text), directions(truth)) is expected


@pytest.mark.parametrize(
    ("text", "index", "count", "expected"),
    [
        ("the leftmost dog", 0, 3, False),
        ("the leftmost dog", 1, 3, True),
        ("the second dog from the right", 1, 3, False),
        ("the second dog from the right", 2, 4, False),
        ("the second dog from the right", 1, 4, True),
        ("the middle one of three dogs", 1, 3, False),
        ("the middle one of three dogs", 1, 2, True),
        ("the dog on the left", 1, 2, False),
    ],
)
def test_order_contradictions(text: str, index: int, count: int, expected: bool):
    assert contradicts_order(directions(text), index, count) is expected
