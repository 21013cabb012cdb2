"""The text of points, boxes and outlines: how it is written, and two ways to read it.

Outlines are ``[[[x, y], [x, y], ...], ...]``; nested once more, each polygon lists its holes after its outer
outline; nested once less, the text is one outline. A point is ``[x, y]``, a box ``[x1, y1, x2, y2]``. Coordinates are
those of ``outlines``, with a fixed number of decimals.

``read_strict`` decides whether an answer is well formed and names the first error if it is not; ``read_lenient`` takes
what can be used, also of an answer that was cut off. Both take time and memory in proportion to the text, whatever
the text is: models write anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from talking_points.config import ConfigError
from talking_points.grounding.outlines import Outlines, Point, Polygon, Ring, drop_repeats, signed_area
from talking_points.records import Box

DECIMALS = 3
MAX_POINTS = 512

UNIT = (1.0, 1.0)
"""Scale of texts whose coordinates are shares of the image's size."""

SMALLEST_AREA = 1e-9
"""Of the image: what a path that is walked to and fro encloses."""

SAME_SCALE = (-0.5, 1.5)
"""An outline with a coordinate beyond was written in other units: to clip it would give a wrong place."""

ReadingError = Literal[
    "no_list",
    "stray_bracket",
    "unclosed",
    "several_lists",
    "syntax",
    "empty",
    "depth",
    "arity",
    "range",
    "too_many",
    "few_points",
    "zero_area",
    "order",
]
"""What can be wrong with a text, roughly in the order of the checks; ``order`` is for boxes alone."""


class UnreadableError(ValueError):
    """A text that is not well formed; ``error`` names the first thing that is wrong."""

    def __init__(self, error: ReadingError) -> None:
        super().__init__(error)
        self.error: ReadingError = error


@dataclass(frozen=True)
class StrictReading:
    """Outlines, or the first error and None."""

    outlines: Outlines | None
    error: ReadingError | None


@dataclass(frozen=True)
class LenientReading:
    """What can be used of an answer, perhaps nothing. ``truncated``: its list never closes."""

    outlines: Outlines
    truncated: bool


def check_decimals(decimals: int) -> None:
    """Raise ``ConfigError`` unless there are 2 to 4: with one less texts are ruined, more add nothing but tokens."""
    if decimals not in (2, 3, 4):
        raise ConfigError(f"expected 2, 3 or 4 decimals for written coordinates, found {decimals!r}")


def round_ring(ring: Iterable[Point], decimals: int = DECIMALS) -> list[Point]:
    """A ring as reading its text will give it: clipped to the image, rounded, without repeats.

    Raises ``ValueError`` for a coordinate that is no finite number.
    """
    return drop_repeats((_round(x, decimals), _round(y, decimals)) for x, y in ring)


def _round(value: float, decimals: int) -> float:
    if not -1e9 < value < 1e9:
        raise ValueError(f"expected a coordinate of an image, in [0, 1]; found {value!r}")
    return round(min(max(0.0, float(value)), 1.0), decimals)


def write_outlines(outlines: Outlines, decimals: int = DECIMALS, holes: bool = False) -> str:
    """The text of outlines in the order given, with their holes only if ``holes``.

    Outlines that rounding leaves with under three points are left out, so that what is written can be read again;
    without any the text is ``[]``.
    """
    check_decimals(decimals)
    polygons = []
    for polygon in outlines.polygons:
        rings = [round_ring(ring, decimals) for ring in (polygon if holes else polygon[:1])]
        if rings and _drawable(rings[0]):
            written = [_list(_numbers(point, decimals) for point in ring) for ring in rings if _drawable(ring)]
            polygons.append(_list(written) if holes else written[0])
    return _list(polygons)


def write_box(corners: Box, decimals: int = DECIMALS, scale: Point = UNIT) -> str:
    """``[x1, y1, x2, y2]``; a box too thin for the decimals becomes one step wide, as none of no size can be read.

    With another ``scale``, as ``write_point`` says.
    """
    check_decimals(decimals)
    if scale != UNIT:
        (left, top), (right, bottom) = (_whole(point, scale) for point in (corners[:2], corners[2:]))
        (left, right), (top, bottom) = _part(left, right, 1, scale[0]), _part(top, bottom, 1, scale[1])
        return _numbers((left, top, right, bottom), 0)
    left, top, right, bottom = (_round(value, decimals) for value in corners)
    step = 10**-decimals
    left, right = _part(left, right, step)
    top, bottom = _part(top, bottom, step)
    return _numbers((left, top, right, bottom), decimals)


def write_point(point: Point, decimals: int = DECIMALS, scale: Point = UNIT) -> str:
    """``[x, y]``; for a model whose 1 is another ``scale``, 1,000 or the pixels of an image, in whole numbers."""
    check_decimals(decimals)
    if scale != UNIT:
        return _numbers(_whole(point, scale), 0)
    return _numbers((_round(point[0], decimals), _round(point[1], decimals)), decimals)


def _whole(point: Point, scale: Point) -> Point:
    """The nearest whole numbers to a unit point in coordinates of another scale."""
    x, y = (float(round(_round(value, 6) * one)) for value, one in zip(point, scale, strict=True))
    return x, y


def _part(low: float, high: float, step: float, most: float = 1) -> tuple[float, float]:
    if high > low:
        return low, high
    return (low, low + step) if low + step <= most else (low - step, low)


def _numbers(values: Iterable[float], decimals: int) -> str:
    return _list(f"{value:.{decimals}f}" for value in values)


def _list(items: Iterable[str]) -> str:
    return f"[{', '.join(items)}]"


_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_TOKENS = re.compile(rf"[ \t\n\r]*(?:([\[\],])|({_NUMBER}))")
_BRACKETS = re.compile(r"[\[\]]")

_LOOSE = r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_POINT = rf"\[\s*{_LOOSE}\s*,\s*{_LOOSE}\s*\]"
_RING_START = re.compile(rf"\[\s*{_POINT}(?:\s*,\s*{_POINT})*")
_RING = re.compile(rf"{_RING_START.pattern}\s*\]")
_PAIRS = re.compile(rf"\[\s*({_LOOSE})\s*,\s*({_LOOSE})\s*\]")

Nested = list["Nested | float"]

_DEEPEST = 4
"""Nesting of the numbers of outlines with holes."""


def read_strict(text: str, max_points: int = MAX_POINTS, scale: Point = UNIT) -> StrictReading:
    """Read a well-formed answer; the reading of any other names its first error.

    Words may stand around the one list, brackets may not. ``scale``: what coordinates are divided by first, for
    models that write in other units (``outlines.scale_of``).
    """
    try:
        return StrictReading(_read_outlines(text, max_points, scale), None)
    except UnreadableError as unreadable:
        return StrictReading(None, unreadable.error)


def read_lenient(text: str, max_points: int = MAX_POINTS, scale: Point = UNIT) -> LenientReading:
    """The strict result where there is one, else all complete outlines in the text, each cleaned.

    The points of an unfinished last outline count only when the list never closes. Cleaning clips to the image,
    drops outlines in other units, of under three points or no area, and cuts points beyond ``max_points``.
    """
    strict = read_strict(text, max_points, scale)
    if strict.outlines is not None:
        return LenientReading(strict.outlines, False)
    truncated = strict.error == "unclosed"
    found = [match[0] for match in _RING.finditer(text)]
    unfinished = _unfinished_ring(text) if truncated else None
    polygons: list[Polygon] = []
    left = max_points
    for written in [*found, unfinished] if unfinished else found:
        ring = _clean(((float(x) / scale[0], float(y) / scale[1]) for x, y in _PAIRS.findall(written)), left)
        if ring is not None:
            polygons.append((ring,))
            left -= len(ring)
    return LenientReading(Outlines(tuple(polygons)), truncated)


def read_box(text: str, scale: Point = UNIT) -> Box:
    """The corners ``(x1, y1, x2, y2)`` of a well-formed box. Raises ``UnreadableError``."""
    left, top, right, bottom = _flat_list(text, 4, scale)
    if not (left < right and top < bottom):
        raise UnreadableError("order")
    return left, top, right, bottom


def read_point(text: str, scale: Point = UNIT) -> Point:
    """A well-formed point. Raises ``UnreadableError``."""
    x, y = _flat_list(text, 2, scale)
    return x, y


def _list_of(text: str) -> str:
    """The one list in a text, from its first bracket to the last."""
    start = text.find("[")
    if start < 0:
        raise UnreadableError("no_list")
    if "]" in text[:start]:
        raise UnreadableError("stray_bracket")
    depth = 0
    for match in _BRACKETS.finditer(text, start):
        depth += 1 if match[0] == "[" else -1
        if depth == 0:
            break
    else:
        raise UnreadableError("unclosed")
    if text.find("[", match.end()) >= 0:
        raise UnreadableError("several_lists")
    if text.find("]", match.end()) >= 0:
        raise UnreadableError("stray_bracket")
    return text[start : match.end()]


def _parse(text: str) -> Nested:
    """JSON of numbers and lists alone, read without recursion. All numbers become floats.

    What is nested deeper than any form of outlines is checked, but not kept.
    """
    outermost: Nested = []
    kept = [outermost]  # the open lists, as deep as they matter
    depth = end = 0
    value_allowed, close_allowed = True, False  # what may come next; "[" closes at once, "," does not
    empty = False
    while end < len(text):
        match = _TOKENS.match(text, end)
        if match is None:
            raise UnreadableError("syntax")
        end = match.end()
        mark, number = match.groups()
        if not (close_allowed if mark == "]" else not value_allowed if mark == "," else value_allowed):
            raise UnreadableError("syntax")
        if number and depth < len(kept):
            kept[-1].append(float(number))
        elif mark == "[":
            depth += 1
            if depth <= _DEEPEST + 1:
                kept.append([])
                kept[-2].append(kept[-1])
        elif mark == "]":
            empty = empty or value_allowed
            depth -= 1
            del kept[depth + 1 :]
        value_allowed, close_allowed = mark in ("[", ","), mark != ","
    if empty:
        raise UnreadableError("empty")
    (parsed,) = outermost
    assert isinstance(parsed, list)
    return parsed


def _flat_list(text: str, count: int, scale: Point) -> list[float]:
    values = _parse(_list_of(text))
    numbers = [value for value in values if isinstance(value, float)]
    if len(numbers) < len(values):
        raise UnreadableError("depth")
    if len(numbers) != count:
        raise UnreadableError("arity")
    unit = [number / scale[place % 2] + 0.0 for place, number in enumerate(numbers)]  # -0.0 is 0.0
    if not all(0 <= number <= 1 for number in unit):
        raise UnreadableError("range")
    return unit


def _levels(parsed: Nested) -> tuple[int, list[list[float]]]:
    """The nesting of the numbers and their innermost lists. Raises for numbers at several depths, or deep ones."""
    level: list[Nested] = [parsed]
    for depth in range(1, _DEEPEST + 1):
        inner = [item for items in level for item in items]
        lists = [item for item in inner if isinstance(item, list)]
        if not lists:
            return depth, [[value for value in point if isinstance(value, float)] for point in level]
        if len(lists) < len(inner):
            break
        level = lists
    raise UnreadableError("depth")


def _read_outlines(text: str, max_points: int, scale: Point) -> Outlines:
    parsed = _parse(_list_of(text))
    depth, numbers = _levels(parsed)
    if depth < 2:
        raise UnreadableError("depth")
    if any(len(point) != 2 for point in numbers):
        raise UnreadableError("arity")
    points = [(x / scale[0] + 0.0, y / scale[1] + 0.0) for x, y in numbers]  # -0.0 is 0.0
    if not all(0 <= x <= 1 and 0 <= y <= 1 for x, y in points):
        raise UnreadableError("range")
    if len(points) > max_points:
        raise UnreadableError("too_many")
    polygons = tuple(_polygons(parsed, depth, iter(points)))
    rings = [ring for polygon in polygons for ring in polygon]
    if any(len(set(ring)) < 3 for ring in rings):
        raise UnreadableError("few_points")
    if any(abs(signed_area(ring)) < SMALLEST_AREA for ring in rings):
        raise UnreadableError("zero_area")
    return Outlines(polygons)


def _polygons(parsed: Nested, depth: int, points: Iterator[Point]) -> Iterator[Polygon]:
    """The points, in the order of the text, grouped as the lists of the text group them."""
    polygons = [[parsed]] if depth == 2 else [[ring] for ring in parsed] if depth == 3 else parsed
    for polygon in polygons:
        assert isinstance(polygon, list)
        rings: list[Ring] = []
        for ring in polygon:
            assert isinstance(ring, list)
            rings.append(tuple(drop_repeats([next(points) for _ in ring])))
        yield tuple(rings)


def _drawable(ring: list[Point]) -> bool:
    return len(set(ring)) >= 3 and abs(signed_area(ring)) >= SMALLEST_AREA


def _unfinished_ring(text: str) -> str | None:
    """The complete points of the innermost outline that is still open at the end of the text."""
    open_brackets: list[int] = []
    for match in _BRACKETS.finditer(text):
        if match[0] == "[":
            open_brackets.append(match.start())
        elif open_brackets:
            open_brackets.pop()
    for start in reversed(open_brackets):
        if started := _RING_START.match(text, start):
            return started[0]
    return None


def _clean(points: Iterable[Point], most: int) -> Ring | None:
    listed = list(points)
    low, high = SAME_SCALE
    if not all(low <= value <= high for point in listed for value in point):
        return None
    clipped = drop_repeats((min(max(0.0, x), 1.0), min(max(0.0, y), 1.0)) for x, y in listed)
    kept = drop_repeats(clipped[: max(most, 0)])
    return tuple(kept) if _drawable(kept) else None
