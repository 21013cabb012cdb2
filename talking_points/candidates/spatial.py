"""Places into words, and words back into places.

Three levels, as in the paper's descriptions (section 3.1, Figure 2): the object in the image, the part in its object,
the point in its part. Left and right are the viewer's. All phrases are functions of geometry alone; their grammar is

    The point is on {instance_phrase}, which {object_location}, specifically on its head, {part_location},
    and within the head, the keypoint is {point_location}

so ``object_location`` is a verb phrase ("is close to the left edge and slightly above the vertical center of the
image", "spans most of the image"), ``part_location`` an adverbial phrase that names its object ("toward the upper left
of the dog", "spanning most of the dog horizontally, close to the top edge"), and ``point_location`` an adverbial
phrase without its frame ("slightly left of and above the center"); " of the head" may be appended to it.

Part and point are placed relative to *boxes*: the object's and the part's. A part's mask need not be convex, so the
center of its box can lie outside it.

How far along an axis something lies is its displacement from the frame's center in units of half the frame: -1 at the
left or top border, 0 in the center, +1 at the right or bottom border. All comparisons are strict and made on the
magnitude, so mirroring the image exchanges left and right and nothing else, at the thresholds too.

    displacement                     words                            cell of the 3 x 3 grid
    up to CENTER                     in the center                    middle
    above CENTER, up to CELL         slightly left of the center      middle
    above CELL, up to EDGE           toward the left                  left
    above EDGE                       close to the left edge           left

With ``coarse`` words only the cell of the grid is said: "in the center", "toward the left", "toward the upper right".

A box is also "close to" an edge if it lies in an outer cell and its gap to that edge is below GAP of the frame.
A box that takes at least SPAN of the frame along an axis "spans" it instead.

``directions`` (its own module) reads such claims out of any wording; it inverts the phrases of this module exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from talking_points.candidates.directions import (
    NUMBERS,
    ORDINALS,
    Directions,
    contradicts,
    contradicts_order,
    directions,
)
from talking_points.records import Box

__all__ = [
    "Directions",
    "contradicts",
    "contradicts_order",
    "directions",
    "instance_order",
    "instance_phrase",
    "object_location",
    "part_location",
    "plural",
    "point_location",
]

CENTER = 0.1
CELL = 1 / 3
EDGE = 0.7
GAP = 0.05
SPAN = 0.75

ORDER_GAP = 0.02
"""Share of the image width by which the centers of neighboring objects must differ to be ordered from left to right."""

_CENTERED, _SLIGHT, _OUTER, _EDGE, _SPANS = range(5)

_SIDES = {"horizontal": {-1: "left", 1: "right"}, "vertical": {-1: "top", 1: "bottom"}}
_RELATIONS = {"horizontal": {-1: "left of", 1: "right of"}, "vertical": {-1: "above", 1: "below"}}
_CORNERS = {-1: "upper", 1: "lower"}

_IRREGULAR_PLURALS = {"person": "people", "shelf": "shelves", "sheep": "sheep", "fish": "fish"}


def object_location(box: Box, width: int, height: int, *, coarse: bool = False) -> str:
    """Where an object's box lies in its image of ``width`` x ``height`` pixels: a verb phrase."""
    horizontal, vertical = _axes(box, (0, 0, width, height), coarse)
    if _SPANS in (horizontal[0], vertical[0]):
        return f"spans {_extent(horizontal, vertical, 'image')}"
    return f"is {_place(horizontal, vertical, ' of the image')}"


def part_location(part_box: Box, object_box: Box, object_name: str, *, coarse: bool = False) -> str:
    """Where a part's box lies in its object's box: an adverbial phrase that names the object."""
    horizontal, vertical = _axes(part_box, object_box, coarse)
    if _SPANS in (horizontal[0], vertical[0]):
        return f"spanning {_extent(horizontal, vertical, object_name)}"
    return _place(horizontal, vertical, f" of the {object_name}")


def point_location(point: tuple[float, float], part_box: Box, *, coarse: bool = False) -> str:
    """Where a point lies in its part's box: an adverbial phrase. ``point``: pixels, integers are pixel centers."""
    x, y = point
    return _place(*_axes((x + 0.5, y + 0.5, 0.0, 0.0), part_box, coarse))


def instance_phrase(index: int, count: int, name: str) -> str:
    """One of ``count`` objects of a name by its rank ``index`` (0 = leftmost): "the second dog from the left".

    Counted from the nearer side; "the dog" if it is the only one. Beyond twenty no rank is named.
    """
    if not 0 <= index < count:
        raise ValueError(f"expected 0 <= index < count, found index {index} of {count}")
    if count == 1:
        return f"the {name}"
    several = f"{NUMBERS[count - 1] if count <= len(NUMBERS) else 'many'} {plural(name)}"
    if 2 * index == count - 1:
        return f"the middle one of {several}"
    side, rank = ("left", index) if 2 * index < count - 1 else ("right", count - 1 - index)
    if rank == 0:
        return f"the {side}most of {several}"
    if rank < len(ORDINALS):
        return f"the {ORDINALS[rank]} {name} from the {side}"
    return f"one of {several}"


def instance_order(boxes: Sequence[Box], width: int) -> tuple[list[int], bool]:
    """Rank of each box from the left (by center; ties by y) and whether the order is plain to see.

    It is not where two neighbors' centers differ by less than ``ORDER_GAP`` of the image ``width``: one above the
    other, or one behind the other.
    """
    centers = [x + w / 2 for x, _, w, _ in boxes]
    order = sorted(range(len(boxes)), key=lambda i: (centers[i], boxes[i][1], i))
    ranks = [0] * len(boxes)
    for rank, index in enumerate(order):
        ranks[index] = rank
    return ranks, all(centers[b] - centers[a] >= ORDER_GAP * width for a, b in pairwise(order))


def plural(name: str) -> str:
    """The plural of an object name: "bus" -> "buses", "chest of drawers" -> "chests of drawers"."""
    head, of, rest = name.partition(" of ")
    *modifiers, noun = head.split(" ")
    if noun in _IRREGULAR_PLURALS:
        noun = _IRREGULAR_PLURALS[noun]
    elif noun.endswith(("s", "x", "z", "ch", "sh")):
        noun += "es"
    elif noun.endswith("y") and noun[-2:-1] not in "aeiou":
        noun = noun[:-1] + "ies"
    else:
        noun += "s"
    return " ".join([*modifiers, noun]) + of + rest


Position = tuple[int, int]
"""Degree (``_CENTERED`` to ``_SPANS``) and side (-1 left or top, 1 right or bottom) along one axis."""


_CELLS = {_SLIGHT: _CENTERED, _EDGE: _OUTER}


def _axes(box: Box, frame: Box, coarse: bool) -> tuple[Position, Position]:
    horizontal, vertical = _axis(box[0], box[2], frame[0], frame[2]), _axis(box[1], box[3], frame[1], frame[3])
    return (_cell(horizontal), _cell(vertical)) if coarse else (horizontal, vertical)


def _cell(position: Position) -> Position:
    degree, side = position
    return _CELLS.get(degree, degree), side


def _axis(start: float, extent: float, frame_start: float, frame_extent: float) -> Position:
    # Twice the distance between the two centers; the frame's half extent is the unit.
    offset = (2 * start + extent) - (2 * frame_start + frame_extent)
    side = -1 if offset < 0 else 1
    magnitude = abs(offset)
    if extent >= SPAN * frame_extent:
        return _SPANS, side
    if magnitude > CELL * frame_extent:
        gap = start - frame_start if side < 0 else (frame_start + frame_extent) - (start + extent)
        close = magnitude > EDGE * frame_extent or gap < GAP * frame_extent
        return (_EDGE if close else _OUTER), side
    return (_SLIGHT if magnitude > CENTER * frame_extent else _CENTERED), side


def _extent(horizontal: Position, vertical: Position, frame: str) -> str:
    if horizontal[0] == vertical[0] == _SPANS:
        return f"most of the {frame}"
    if horizontal[0] == _SPANS:
        return f"most of the {frame} horizontally, {_along(vertical, 'vertical')}"
    return f"most of the {frame} vertically, {_along(horizontal, 'horizontal')}"


def _place(horizontal: Position, vertical: Position, of: str = "") -> str:
    (across, x_side), (down, y_side) = horizontal, vertical
    if max(across, down) <= _SLIGHT:
        relations = []
        if across == _SLIGHT:
            relations.append(_RELATIONS["horizontal"][x_side])
        if down == _SLIGHT:
            relations.append(_RELATIONS["vertical"][y_side])
        return (f"slightly {' and '.join(relations)} the center" if relations else "in the center") + of
    if across == down == _EDGE:
        return f"close to the {_SIDES['horizontal'][x_side]} and {_SIDES['vertical'][y_side]} edges{of}"
    if across == down == _OUTER:
        return f"toward the {_CORNERS[y_side]} {_SIDES['horizontal'][x_side]}{of}"
    if down == _CENTERED:
        return f"{_along(horizontal, 'horizontal')}{of} and vertically centered"
    if across == _CENTERED:
        return f"{_along(vertical, 'vertical')}{of} and horizontally centered"
    # The stronger statement first, so that "slightly" cannot be read as belonging to both.
    phrases = [(across, _along(horizontal, "horizontal")), (down, _along(vertical, "vertical"))]
    return " and ".join(phrase for _, phrase in sorted(phrases, key=lambda phrase: -phrase[0])) + of


def _along(position: Position, axis: str) -> str:
    degree, side = position
    if degree == _EDGE:
        return f"close to the {_SIDES[axis][side]} edge"
    if degree == _OUTER:
        return f"toward the {_SIDES[axis][side]}"
    if degree == _SLIGHT:
        return f"slightly {_RELATIONS[axis][side]} the {axis} center"
    return f"at the {axis} center"
