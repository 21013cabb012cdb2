"""The text of points, boxes and outlines: what is written is read, and nothing that is read can do harm."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.config import ConfigError
from talking_points.grounding.grammar import (
    UnreadableError,
    read_box,
    read_lenient,
    read_point,
    read_strict,
    write_box,
    write_outlines,
    write_point,
)
from talking_points.grounding.outlines import Outlines, crosses_itself, is_clockwise, scale_of, signed_area

SQUARE = ((0.1, 0.2), (0.5, 0.2), (0.5, 0.6), (0.1, 0.6))
TRIANGLE = ((0.7, 0.7), (0.9, 0.7), (0.8, 0.9))
HOLE = ((0.2, 0.3), (0.2, 0.4), (0.3, 0.4))
TEXT = "[[[0.100, 0.200], [0.500, 0.200], [0.500, 0.600], [0.100, 0.600]]]"


def read(text: str, max_points: int = 512) -> object:
    strict = read_strict(text, max_points)
    assert (strict.outlines is None) == (strict.error is not None)
    return strict.outlines.polygons if strict.outlines else strict.error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEXT, ((SQUARE,),)),
        (f"It is at {TEXT}.", ((SQUARE,),)),
        (TEXT[1:-1], ((SQUARE,),)),
        (f"[{TEXT}]", ((SQUARE,),)),
        (TEXT.replace(" ", ""), ((SQUARE,),)),
        (TEXT.replace(" ", "\n\t\r "), ((SQUARE,),)),
        (TEXT.replace("0.100", "1e-1").replace("0.200", "0.02E+1"), ((SQUARE,),)),
        (TEXT.replace("0.600", "0.600], [0.500, 0.600", 1), ((SQUARE,),)),  # a repeated neighbour
        (TEXT.replace("]]]", "], [0.1, 0.2]]]"), ((SQUARE,),)),  # a repeated first point
        ("[[[-0, 0], [1, 0], [1, 1]]]", ((((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)),),)),
        ("", "no_list"),
        ("0.1, 0.2] there", "no_list"),
        ("] then [[0, 0], [1, 0], [1, 1]]", "stray_bracket"),
        ("[[0, 0], [1, 0], [1, 1]", "unclosed"),
        ("[[", "unclosed"),
        (f"{TEXT} and {TEXT}", "several_lists"),
        (f"{TEXT} and [", "several_lists"),
        (f"{TEXT}]", "stray_bracket"),
        (f"{TEXT}] [0]", "several_lists"),
        ("[nothing]", "syntax"),
        *((f"[[[0.1, 0.2], [0.5, {wrong}], [0.5, 0.6]]]", "syntax") for wrong in (
            "NaN", "null", "true", '"0.2"', ".5", "+1", "1.", "01", "0.5 0.6", "0.5,,0.6", "0.5,", "1e", "--1", "٠.٥",
            "Infinity", "0x1", "1_0", ",", "",
        )),
        ("[,]", "syntax"),
        ("[[0, 0],]", "syntax"),
        ("[[0, 0] [1, 0]]", "syntax"),
        ("[0 [1]]", "syntax"),
        ("[]", "empty"),
        ("[[[0, 0], []]]", "empty"),
        ("[[[[[[]]]]]]", "empty"),
        ("[0.1, 0.2]", "depth"),
        ("[[[[[0, 0], [1, 0], [1, 1]]]]]", "depth"),
        ("[[[0, 0], [1, 0], 1]]", "depth"),
        ("[[[0, 0]], [0, 0]]", "depth"),
        ("[[[0], [1, 0], [1, 1]]]", "arity"),
        ("[[[0, 0, 0], [2, 0], [1, 1]]]", "arity"),
        ("[[[0, 0], [1.001, 0], [1, 1]]]", "range"),
        ("[[[0, -0.001], [1, 0], [1, 1]]]", "range"),
        ("[[[0, 1e999], [1, 0], [1, 1]]]", "range"),
        (f"[[[0, 0], [1, 0], [1, {'1' * 5000}]]]", "range"),
        ("[[[0, 0], [1, 0], [0, 0], [1, 0]]]", "few_points"),
        ("[[[0, 0], [1, 0], [1, 1], [1, 0]]]", "zero_area"),
        (f"[[{json.dumps(SQUARE)}, [[0.2, 0.3], [0.2, 0.4]]]]", "few_points"),
    ],
)  # fmt: skip
def test_the_strict_reader_names_the_first_error(text: str, expected: object) -> None:
    assert read(text) == expected


def test_too_many_points_are_counted_over_all_outlines() -> None:
    text = json.dumps([SQUARE, TRIANGLE])
    assert read(text, max_points=7) == ((SQUARE,), (TRIANGLE,))
    assert read(text, max_points=6) == "too_many"
    assert read_lenient(text, max_points=6).outlines.polygons == ((SQUARE,),)
    assert read_lenient(text, max_points=3).outlines.polygons == ((SQUARE[:3],),)


def test_nesting_tells_components_from_holes() -> None:
    assert read(json.dumps([SQUARE, TRIANGLE])) == ((SQUARE,), (TRIANGLE,))
    assert read(json.dumps([[SQUARE, HOLE], [TRIANGLE]])) == ((SQUARE, HOLE), (TRIANGLE,))


@pytest.mark.parametrize(
    ("text", "expected", "truncated"),
    [
        ("nothing there", (), False),
        ("[[", (), True),
        (TEXT[:-1], ((SQUARE,),), True),
        (TEXT[:-12], ((SQUARE[:3],),), True),
        ("It is [[[0.1, 0.2], [0.5, 0.2], [0.5, 0.6], ", ((SQUARE[:3],),), True),
        ("[[[0.1, 0.2], [0.5, 0.2], [0.5", (), True),  # two complete points only
        (f"{TEXT[:-1]}, [[0.7, 0.7], [0.9, 0.7], [0.8, 0.9], [0.", ((SQUARE,), (TRIANGLE,)), True),
        (f"{TEXT} {json.dumps(TRIANGLE)}", ((SQUARE,), (TRIANGLE,)), False),
        (f"{json.dumps(TRIANGLE)}]", ((TRIANGLE,),), False),
        (f"[{json.dumps(TRIANGLE)}, [[0.1, 0.2, 0.3], [0.1, 0.2], [0.5, 0.5]]]", ((TRIANGLE,),), False),
        ("[[[-0.3, 0], [+1.2, 0], [1, 1e0]]]", ((((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)),),), False),
        (f"[[[10, 20], [30, 20], [30, 40]], {json.dumps(SQUARE)}]", ((SQUARE,),), False),
        ("[[[0.1, 0.2], [1.2, 0.2], [0.5, NaN]]]", (), False),
        ("[[[1e999, 0.2], [0.5, 0.2], [0.5, 0.6]]]", (), False),
        ("[[[1.2, 0.2], [1.3, 0.2], [1.2, 0.6]]]", (), False),  # nothing is left of it in the image
    ],
)
def test_the_lenient_reader_takes_what_can_be_used(text: str, expected: object, truncated: bool) -> None:
    reading = read_lenient(text)
    assert (reading.outlines.polygons, reading.truncated) == (expected, truncated)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[0.404, 0.423, 0.590, 0.832]", (0.404, 0.423, 0.59, 0.832)),
        ("box: [0, 0, 1, 1].", (0.0, 0.0, 1.0, 1.0)),
        ("[0.1, 0.2, 0.3]", "arity"),
        ("[[0.1, 0.2, 0.3, 0.4]]", "depth"),
        ("[0.1, [0.2], 0.3]", "depth"),
        ("[0.1, 0.2, 0.3, 1.4]", "range"),
        ("[0.6, 0.2, 0.3, 0.4]", "order"),
        ("[0.1, 0.4, 0.3, 0.4]", "order"),
        ("[]", "empty"),
        ("[0.1, 0.2, 0.3, 0.4", "unclosed"),
        ("none", "no_list"),
    ],
)
def test_boxes(text: str, value: object) -> None:
    if isinstance(value, str):
        with pytest.raises(UnreadableError) as caught:
            read_box(text)
        assert caught.value.error == value
    else:
        assert read_box(text) == value


@pytest.mark.parametrize(("text", "error"), [("[[0.1, 0.2]]", "depth"), ("[0.1]", "arity"), ("[1, 1.5]", "range")])
def test_points(text: str, error: str) -> None:
    assert read_point("Here: [0.483, 0]") == (0.483, 0.0)
    with pytest.raises(UnreadableError, match=error):
        read_point(text)


def test_coordinates_of_other_models_are_divided_by_their_scale() -> None:
    square = ((0.1, 0.2), (0.5, 0.2), (0.5, 0.6), (0.1, 0.6))
    for coordinates, text in (
        ("thousand", "[[[100, 200], [500, 200], [500, 600], [100, 600]]]"),
        ("pixels", "[[[20, 20], [100, 20], [100, 60], [20, 60]]]"),
    ):
        scale = scale_of(coordinates, 200, 100)  # type: ignore[arg-type]
        assert read_strict(text, scale=scale).outlines == Outlines(((square,),))
        assert read_lenient(text[:-1], scale=scale).outlines == Outlines(((square,),))
        assert read_strict(text).error == "range"
    assert read_box("[100, 20, 150, 100]", scale_of("pixels", 200, 100)) == (0.5, 0.2, 0.75, 1.0)
    assert read_point("[500, 250]", scale_of("thousand", 200, 100)) == (0.5, 0.25)
    with pytest.raises(ConfigError, match="expected coordinates of unit, thousand, pixels"):
        scale_of("percent", 1, 1)  # type: ignore[arg-type]


def test_what_is_written() -> None:
    outlines = Outlines(((SQUARE, HOLE), (TRIANGLE,)))
    assert write_outlines(Outlines(((SQUARE, HOLE),))) == TEXT
    assert read(write_outlines(outlines, holes=True)) == outlines.polygons
    assert write_outlines(outlines, 2).startswith("[[[0.10, 0.20], [0.50, 0.20]")
    assert write_outlines(Outlines()) == write_outlines(Outlines(), holes=True) == "[]"
    speck = ((0.5, 0.5), (0.5001, 0.5), (0.5001, 0.5001))
    assert write_outlines(Outlines(((speck,), (TRIANGLE,)))) == write_outlines(Outlines(((TRIANGLE,),)))
    assert write_point((-0.1, 1.00001)) == "[0.000, 1.000]"
    assert write_box((0.1, 0.2, 0.3, 0.4), 4) == "[0.1000, 0.2000, 0.3000, 0.4000]"
    assert write_point((0.2504, 1.5), scale=(1000.0, 1000.0)) == "[250, 1000]"
    assert write_box((0.1, 0.2, 0.3, 0.4), scale=(640.0, 480.0)) == "[64, 96, 192, 192]"
    assert write_box((0.9999, 0.2, 0.9999, 0.2), scale=(1000.0, 1000.0)) == "[999, 200, 1000, 201]"


@pytest.mark.parametrize("decimals", [1, 5, 0])
def test_other_decimals_are_refused(decimals: int) -> None:
    for write in (
        lambda: write_point((0.1, 0.2), decimals),
        lambda: write_box((0.1, 0.2, 0.3, 0.4), decimals),
        lambda: write_outlines(Outlines(), decimals),
    ):
        with pytest.raises(ConfigError, match="2, 3 or 4 decimals"):
            write()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1e300])
def test_what_is_no_coordinate_is_not_written(wrong: float) -> None:
    with pytest.raises(ValueError, match="expected a coordinate"):
        write_point((wrong, 0.5))


unit = st.floats(0, 1)
rings = st.lists(st.tuples(unit, unit), min_size=3, max_size=12).map(tuple)


@given(st.lists(st.lists(rings, min_size=1, max_size=3).map(tuple), max_size=4).map(tuple), st.booleans())
def test_what_is_written_is_read_as_it_is(polygons: tuple, holes: bool) -> None:
    text = write_outlines(Outlines(polygons), holes=holes)
    if text == "[]":
        assert read(text) == "empty"
        return
    outlines = read_strict(text).outlines
    assert outlines is not None
    assert write_outlines(outlines, holes=holes) == text
    assert read_lenient(text).outlines == outlines


@given(unit, unit, unit, unit)
def test_every_written_box_is_read(x1: float, y1: float, x2: float, y2: float) -> None:
    corners = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    assert read_box(write_box(corners)) == pytest.approx(corners, abs=0.00151)


pieces = st.sampled_from(
    ["[", "[[", "]", "]]", ",", "0.5", "0.1", "1", "-0", "1e9", "+1", ".5", "nan", " ", "０", "\x00", "[0.1, 0.2], "]
)


@given(st.one_of(st.text(), st.lists(pieces, max_size=60).map("".join)))
def test_any_text_gives_outlines_or_an_error(text: str) -> None:
    strict, lenient = read_strict(text), read_lenient(text)
    if strict.outlines is not None:
        assert lenient.outlines == strict.outlines
    for polygon in lenient.outlines.polygons:
        for ring in polygon:
            assert len(set(ring)) >= 3
            assert abs(signed_area(ring)) >= 1e-9
            assert all(0 <= value <= 1 for point in ring for value in point)
    for reader in (read_box, read_point):
        with suppress(UnreadableError):
            assert all(0 <= value <= 1 for value in reader(text))


MANY = 100_000


@pytest.mark.parametrize(
    "text",
    [
        "[[[" + "1" * MANY,
        "[[[0." + "1" * MANY + ", 0.2]]]",
        "[[[1e" + "9" * MANY + ", 0]]]",
        "[" * MANY,
        "[" * MANY + "]" * MANY,
        "[ " * MANY,
        "[" + " " * MANY,
        "[[0" + " " * MANY + ",",
        "[" + "[0.1, 0.2]," * (MANY // 8),
        "[[0, 0]" * (MANY // 4),
        "[[0.1, 0.2], [0.3," * (MANY // 4),
        "]" * MANY,
        "[-" * MANY,
    ],
    ids=range(13),
)
def test_long_texts_take_time_in_proportion(text: str) -> None:
    began = time.process_time()
    read_strict(text)
    read_lenient(text)
    with suppress(UnreadableError):
        read_box(text)
    assert time.process_time() - began < 5


def test_direction_and_crossings() -> None:
    assert is_clockwise(SQUARE)
    assert not is_clockwise(SQUARE[::-1])
    assert not crosses_itself(SQUARE)
    assert not crosses_itself(TRIANGLE)
    assert crosses_itself((SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3]))
    touching = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.0), (0.0, 1.0))
    assert crosses_itself(touching)
