from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from talking_points.config import ConfigError
from talking_points.dataset_files import DatasetError
from talking_points.grounding.grammar import read_box, read_point, read_strict
from talking_points.grounding.outlines import box_to_pixels, point_to_pixels
from talking_points.grounding.rasters import decode_mask, iou, rasterise
from talking_points.instructions.config import TRAINING_KINDS, InstructionSettings, OutlineSettings
from talking_points.instructions.described_points import DescribedPoint, part_key
from talking_points.instructions.elements import KINDS, draw_kinds
from talking_points.instructions.phrasings import load_phrasings
from talking_points.instructions.point_order import PointOrder, order_points
from talking_points.instructions.regions import MeasuredRegion, measure_regions
from talking_points.instructions.rows import (
    ImageFacts,
    InstructionRow,
    count_rows,
    read_instructions,
    write_rows,
)
from talking_points.instructions.schema import INSTRUCTION_SCHEMA, PARQUET_OPTIONS
from talking_points.publishing.row_checks import check_rows
from talking_points.records import AnnotatedObject, AnnotatedPart, ImageRecord, Mask
from tests.instructions.rows_of_images import instruction_table, make_rows

WIDTH, HEIGHT = 160, 120
EVERYTHING = InstructionSettings(kinds=dict.fromkeys(KINDS, 1.0), rows=len(KINDS))


def rectangle(left: int, top: int, right: int, bottom: int, hole: tuple[int, int, int, int] | None = None) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[top:bottom, left:right] = True
    if hole:
        mask[hole[1] : hole[3], hole[0] : hole[2]] = False
    return mask


def thing(name: str, mask: Mask | None, *parts: AnnotatedPart, **more: object) -> AnnotatedObject:
    columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1)) if mask is not None else ([0, 9], [0, 9])
    box = (
        (float(columns[0]), float(rows[0]), float(columns[-1] - columns[0] + 1), float(rows[-1] - rows[0] + 1))
        if len(columns)
        else (0.0, 0.0, 1.0, 1.0)
    )
    load = (lambda: mask) if mask is not None else None
    return AnnotatedObject(name, name, 1, box, parts=parts, load_mask=load, **more)  # type: ignore[arg-type]


def part(name: str, mask: Mask, **more: object) -> AnnotatedPart:
    like = thing(name, mask)
    return AnnotatedPart(name, name, 2, like.bbox, load_mask=lambda: mask, **more)  # type: ignore[arg-type]


def image(*objects: AnnotatedObject) -> ImageRecord:
    return ImageRecord("made", "scene", Path("scene.png"), "scene.png", WIDTH, HEIGHT, "train", objects)


def rows_of(record: ImageRecord, settings: InstructionSettings = EVERYTHING, **more: object) -> list[InstructionRow]:
    return make_rows(record, settings, image_sha256="0" * 64, **more)[0]  # type: ignore[arg-type]


def test_every_kind_asks_with_one_element_and_answers_with_another() -> None:
    mask = rectangle(20, 30, 70, 90)
    rows = {row.kind: row for row in rows_of(image(thing("dog", mask)))}
    assert set(rows) == set(KINDS)
    for kind, row in rows.items():
        asked, answered = KINDS[kind]
        for element, text in ((asked, row.question), (answered, row.answer)):
            if element == "text":
                assert "the dog" in text
            elif element == "point":
                x, y = point_to_pixels(read_point(text), WIDTH, HEIGHT)
                assert abs(x - row.point[0]) < 0.1
                assert abs(y - row.point[1]) < 0.1
                assert mask[round(y), round(x)]
            elif element == "box":
                np.testing.assert_allclose(box_to_pixels(read_box(text), WIDTH, HEIGHT), (20, 30, 50, 60), atol=0.1)
            else:
                outlines = read_strict(text).outlines
                assert outlines is not None
                assert iou(rasterise(outlines, WIDTH, HEIGHT), row.mask) == pytest.approx(row.round_trip_iou)
        assert (decode_mask(row.mask) == mask).all()
        assert (row.object, row.part, row.source, row.width, row.height) == ("dog", "", "made", WIDTH, HEIGHT)
        assert row.box == (20, 30, 50, 60)
        assert row.flags == ()
        assert row.components == 1
        assert row.holes == 0


def words(*objects: AnnotatedObject) -> list[str]:
    return sorted({row.expression for row in rows_of(image(*objects))})


def test_words_mean_one_region_alone() -> None:
    left, middle, right = (rectangle(x, 20, x + 30, 60) for x in (10, 60, 110))
    assert words(thing("tvmonitor", left)) == ["the TV monitor"]
    assert words(thing("dog", left), thing("dog", right)) == ["the leftmost of two dogs", "the rightmost of two dogs"]
    inexact = [thing("dog", mask, instance_exact=False) for mask in (left, right)]
    assert words(*inexact) == [""]
    above = thing("dog", rectangle(10, 70, 40, 110))
    assert words(thing("dog", left), above) == [""], "one above the other has no place from the left"
    head = part("head", rectangle(10, 20, 20, 30))
    assert words(thing("dog", left, head)) == ["the dog", "the dog's head"]
    assert "the head of the leftmost of two dogs" in words(thing("dog", left, head), thing("dog", right))
    feet = [part("foot", rectangle(x, 50, x + 6, 60)) for x in (10, 20, 32)]
    assert words(thing("dog", left, *feet[:2])) == [
        "the dog",
        "the dog's foot on the left",
        "the dog's foot on the right",
    ]
    assert words(thing("dog", left, *feet)) == [
        "the dog",
        "the dog's foot in the middle",
        "the dog's foot on the far left",
        "the dog's foot on the far right",
    ]
    assert "" in words(thing("dog", left, *feet), thing("dog", right)), "which foot of which dog is not said"
    said = thing("dog", middle, expressions=("brown  dog", "...", "dog\u200b with ball"))
    assert words(said) == ["brown dog", "dog with ball"]
    assert words(thing("dog", middle, expressions=("?",))) == [""], "no phrase of ours where people wrote some"


def test_regions_without_words_are_asked_about_without_them() -> None:
    record = image(*(thing("dog", rectangle(x, 20, x + 30, 60), instance_exact=False) for x in (10, 110)))
    kinds = {row.kind for row in rows_of(record)}
    assert kinds == {"point_to_mask", "box_to_mask", "point_to_box", "mask_to_box"}
    rows, dropped = make_rows(record, EVERYTHING, side="test", image_sha256="")
    assert not rows
    assert [drop.reason for drop in dropped] == ["no_text", "no_text"]
    assert all("no_text" in row.flags for row in rows_of(record))


def test_a_box_in_place_of_an_outline_is_no_answer() -> None:
    kinds = {row.kind for row in rows_of(image(thing("dog", rectangle(10, 20, 60, 70), mask_exact=False)))}
    assert kinds == {kind for kind, ways in KINDS.items() if "mask" not in ways}


COMB = rectangle(10, 10, 150, 100)
COMB[20:100, 12:148:4] = False
RING = rectangle(10, 10, 110, 110, hole=(30, 30, 90, 90))


@pytest.mark.parametrize(
    ("mask", "changes", "reason"),
    [
        (None, {}, "no_mask"),
        (np.zeros((HEIGHT, WIDTH), np.bool_), {}, "empty_mask"),
        (rectangle(5, 5, 8, 10), {}, "small_region"),
        (COMB, {"max_points": 20}, "too_many_points"),
        (COMB, {}, "too_many_tokens"),
        (RING, {}, "low_round_trip"),
    ],
)
def test_unusable_regions_are_dropped_and_the_others_stay(
    mask: Mask | None, changes: dict[str, int], reason: str
) -> None:
    settings = EVERYTHING.model_copy(update=changes)
    good = thing("cat", rectangle(120, 100, 150, 115))
    rows, dropped = make_rows(image(thing("dog", mask), good), settings, image_sha256="")
    assert [(drop.name, drop.reason) for drop in dropped] == [("dog", reason)]
    assert {row.object for row in rows} == {"cat"}


def test_holes_are_written_or_flagged() -> None:
    mask = rectangle(10, 10, 110, 110, hole=(40, 40, 70, 70))
    (filled, *_) = rows_of(image(thing("dog", mask)))
    assert (filled.flags, filled.holes) == (("holes_filled",), 1)
    assert filled.round_trip_iou == pytest.approx(0.91, abs=0.005)
    with_holes = EVERYTHING.model_copy(update={"outlines": OutlineSettings(holes=True)})
    (kept, *_) = rows_of(image(thing("dog", mask)), with_holes)
    assert kept.flags == ()
    assert kept.round_trip_iou > 0.98
    pieces = np.zeros((HEIGHT, WIDTH), np.bool_)
    for number in range(10):
        pieces[10:110, 2 + 15 * number : 10 + 15 * number] = True
    (several, *_) = rows_of(image(thing("fence", pieces)))
    assert several.components == 10
    assert "components_cut" in several.flags


@pytest.mark.parametrize("points", [8, 16])
def test_a_budget_of_points_is_kept(points: int) -> None:
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    disc = (xx - 80) ** 2 + (yy - 60) ** 2 < 50**2
    settings = EVERYTHING.model_copy(update={"outlines": OutlineSettings(points=points)})
    (row, *_) = rows_of(image(thing("ball", disc)), settings)
    assert row.points <= points
    assert row.epsilon is None
    assert row.round_trip_iou > 0.9


def test_the_point_lies_deep_inside_and_the_seed_moves_it() -> None:
    mask = rectangle(10, 10, 130, 110, hole=(25, 25, 115, 95))  # its centroid is in the hole
    settings = EVERYTHING.model_copy(update={"min_iou": 0.0})
    found = {rows_of(image(thing("frame", mask)), settings, seed=seed)[0].point for seed in range(8)}
    assert len(found) > 4
    for x, y in found:
        assert mask[round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5].all()


def test_what_is_drawn_depends_on_seed_and_region_alone() -> None:
    first, second = thing("dog", rectangle(10, 20, 60, 70)), thing("cat", rectangle(80, 20, 140, 90))
    settings = InstructionSettings(rows=3)
    both, alone = rows_of(image(first, second), settings), rows_of(image(first), settings)
    assert [row for row in both if row.object == "dog"] == alone
    assert len({row.id for row in both}) == len(both) == 6
    assert rows_of(image(first), settings, seed=1) != alone
    counts = dict.fromkeys(TRAINING_KINDS, 0)
    for number in range(1200):
        counts[draw_kinds(TRAINING_KINDS, 1, 0, str(number))[0]] += 1
    assert 330 < counts["text_to_mask"] < 470
    assert 160 < counts["point_to_mask"] < 240
    backwards = dict(reversed(TRAINING_KINDS.items()))
    assert draw_kinds(backwards, 8, 0, "a") == draw_kinds(TRAINING_KINDS, 8, 0, "a")


def test_phrasings_are_many_and_plain_first() -> None:
    shipped = load_phrasings("instructions")
    for kind in KINDS:
        assert len(set(shipped.questions[kind])) >= 5
        assert len(set(shipped.answers[kind])) >= 4
    one = EVERYTHING.model_copy(update={"variants": 1})
    row = next(
        row for row in rows_of(image(thing("dog", rectangle(20, 30, 70, 90))), one) if row.kind == "text_to_mask"
    )
    assert row.question == "Outline the dog."
    assert row.answer.startswith("[[[")
    assert row.answer.endswith("]]]")
    drawn = {shipped.fill("text_to_box", {"expression": "a", "box": "[]"}, 0, str(n)) for n in range(200)}
    assert len(drawn) == len(shipped.questions["text_to_box"]) * len(shipped.answers["text_to_box"])
    tricky = shipped.fill("text_to_mask", {"expression": "{mask} {0} {x.__class__}", "mask": "M"}, 0, "x", 1)
    assert tricky == ("Outline {mask} {0} {x.__class__}.", "M"), "nothing in an expression is filled in"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "expected a mapping"),
        ("text_to_mask: 1", "missing: point_to_mask"),
        ("a: &a [*a]", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_bad_phrasings_are_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        load_phrasings(str(tmp_path / "mine.yaml"))


def test_phrasings_with_other_places_are_refused(tmp_path: Path) -> None:
    shipped = (Path(__file__).parents[2] / "prompts" / "instructions.yaml").read_text()
    for before, after in (("Outline {expression}.", "Outline it."), ("It is at {point}.", "It is [0, 0] at {point}.")):
        (tmp_path / "mine.yaml").write_text(shipped.replace(before, after))
        with pytest.raises(ConfigError, match="once, no other place, no brackets"):
            load_phrasings(str(tmp_path / "mine.yaml"))
    with pytest.raises(ConfigError, match="expected 'instructions', or the path"):
        load_phrasings("none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for side, split in (("train", "train"), ("test", "testA")):
        rows = rows_of(image(thing("dog", rectangle(20, 30, 70, 90))), side="train")
        rows = [replace(row, split=split, image=b"pixels") for row in rows]
        table = instruction_table(rows, INSTRUCTION_SCHEMA)
        pq.write_table(table, tmp_path / f"data/{side}-00000-of-00001.parquet", **PARQUET_OPTIONS)
    return tmp_path


def test_rows_are_read_as_written(folder: Path) -> None:
    (row, *others) = read_instructions(folder, "train")
    made = next(row_ for row_ in rows_of(image(thing("dog", rectangle(20, 30, 70, 90)))) if row_.id == row.id)
    assert replace(row, round_trip_iou=made.round_trip_iou, epsilon=made.epsilon) == replace(made, image=b"pixels")
    assert row.round_trip_iou == pytest.approx(made.round_trip_iou)
    assert {row.split for row in others} == {"train"}
    assert {row.split for row in read_instructions(folder, "testA")} == {"testA"}
    assert len(list(read_instructions(folder))) == 2 * len(KINDS)
    assert all(row.image is None for row in read_instructions(folder, images=False))


def test_folders_without_the_rows_are_refused(folder: Path, tmp_path: Path) -> None:
    for where, split, told in (
        (tmp_path / "none", None, "build-instructions"),
        (folder, "val", "no row of split 'val'"),
        (folder, "../x", "expected a split"),
    ):
        with pytest.raises(DatasetError, match=told):
            list(read_instructions(where, split))
    path = folder / "data/train-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop(["mask"]), path)
    with pytest.raises(DatasetError, match="lacks the columns"):
        list(read_instructions(folder))
    path.write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        list(read_instructions(folder))


def test_a_sentence_about_a_point_is_an_expression_of_its_part() -> None:
    head = part("head", rectangle(10, 20, 40, 50))
    record = image(thing("dog", rectangle(10, 20, 60, 70), head))
    key = part_key("made", "scene.png", "dog", "head", head.bbox)
    for point, flags in (((12.0, 22.0), ("described_point",)), ((100.0, 100.0), ())):
        found = measure_regions(record, EVERYTHING, 0, {key: [DescribedPoint(point, "a spot on the\nnose")]})
        _, measured = found
        assert isinstance(measured, MeasuredRegion)
        assert measured.expressions == ("the dog's head", "a spot on the nose")
        assert measured.flags == flags
        assert (measured.point == point) is bool(flags), "a point outside the part is none of it"


def test_a_sentence_is_quoted_and_is_no_name_to_answer_with() -> None:
    head = part("head", rectangle(10, 20, 40, 50))
    record = image(thing("dog", rectangle(10, 20, 60, 70), head))
    key = part_key("made", "scene.png", "dog", "head", head.bbox)
    sentence = "The point is on the dog's nose."
    facts = ImageFacts("scene", "scene.png", "", WIDTH, HEIGHT, "made")
    _, measured = measure_regions(record, EVERYTHING, 0, {key: [DescribedPoint((12.0, 22.0), sentence)]})
    assert isinstance(measured, MeasuredRegion)
    rows = write_rows(measured, facts, EVERYTHING, 0, side="train", split="train")
    own = [row for row in rows if row.expression == sentence]
    assert len(rows) == count_rows(measured.expressions, measured.flags, EVERYTHING, "train") == 10 + 7
    assert all(not row.kind.endswith("_to_text") for row in own)
    asked = [row.question for row in own if row.kind.startswith("text")]
    assert asked
    assert all('what is meant by "The point is on the dog\'s nose"' in question for question in asked)


def spoil(folder: Path, **values: object) -> None:
    """Other values in the first row of the training file."""
    path = folder / "data/train-00000-of-00001.parquet"
    first, *others = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([first | values, *others], schema=INSTRUCTION_SCHEMA), path)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"mask": {"size": [HEIGHT, WIDTH], "counts": "~~~~"}}, "a mask is damaged"),
        ({"mask": {"size": [10**9, 10**9], "counts": "0"}}, "a mask is damaged"),
        ({"mask": {"size": [HEIGHT, WIDTH], "counts": ""}}, "a mask is damaged"),
        ({"mask": {"size": [HEIGHT, WIDTH], "counts": "\u00e9"}}, "a mask is damaged"),
        ({"mask": {"size": None, "counts": None}}, "a mask is damaged"),
        ({"kind": "text_to_video"}, "expected kinds of"),
        ({"box": [float("nan")] * 4}, "not finite"),
        ({"width": 0}, "sizes below one pixel"),
        ({"question": None}, "empty cells"),
        ({"image": {"bytes": None, "path": "/etc/passwd"}}, "names of files without their bytes"),
    ],
)
def test_damaged_rows_are_refused(values: dict[str, object], told: str, folder: Path) -> None:
    spoil(folder, **values)
    with pytest.raises(DatasetError, match=told):
        list(read_instructions(folder))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, None),
        ({"point": [WIDTH + 1.0, 1.0]}, "the point of the row .* lies outside its image"),
        ({"mask": {"size": [HEIGHT, WIDTH], "counts": "~~~~"}}, "a mask is damaged"),
        ({"id": "again"}, "several rows have the id"),
    ],
)
def test_rows_are_judged_before_they_go_up(values: dict[str, object], told: str | None, folder: Path) -> None:
    spoil(folder, **values)
    if "id" in values:
        path = folder / "data/train-00000-of-00001.parquet"
        pq.write_table(pa.concat_tables([pq.read_table(path)] * 2), path)
    files = [{"path": "data/train-00000-of-00001.parquet"}]
    with pytest.raises(DatasetError, match=told) if told else nullcontext():
        check_rows(folder, {"kind": "instructions", "files": files})


@given(
    arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24))),
    st.lists(st.text(max_size=20), max_size=3),
    st.integers(0, 2**32),
)
@settings(max_examples=120, deadline=None)
def test_any_mask_and_any_words_give_rows_or_a_reason(mask: Mask, texts: list[str], seed: int) -> None:
    height, width = mask.shape
    box = (0.0, 0.0, float(width), float(height))
    one = AnnotatedObject("dog", "dog", 1, box, expressions=tuple(texts), load_mask=lambda: mask)
    record = ImageRecord("made", "scene", Path("scene.png"), "scene.png", width, height, "train", (one,))
    wanted = EVERYTHING.model_copy(update={"min_area": 1, "min_iou": 0.0})
    rows, dropped = make_rows(record, wanted, seed, image_sha256="")
    assert bool(rows) != bool(dropped)
    for row in rows:
        assert mask[round(row.point[1]), round(row.point[0])]
        assert row.question.isprintable()
        if row.kind.endswith("to_mask"):
            outlines = read_strict(row.answer).outlines
            assert outlines is not None
            assert iou(rasterise(outlines, width, height), row.mask) == pytest.approx(row.round_trip_iou)
    instruction_table(rows, INSTRUCTION_SCHEMA)


@pytest.mark.parametrize("order", ["outline", "rows", "random"])
def test_points_in_another_order_are_the_same_points(order: PointOrder) -> None:
    text = "[[[0.500, 0.100], [0.900, 0.500], [0.100, 0.500]], [[0.200, 0.700], [0.300, 0.700], [0.200, 0.900]]]"
    found = order_points(text, order, 0, "row")
    first, second = json.loads(found)
    before = json.loads(text)
    assert [sorted(ring) for ring in (first, second)] == [sorted(ring) for ring in before]
    assert (found == text) == (order == "outline")
    assert found == order_points(text, order, 0, "row")
    if order == "rows":
        assert first == [[0.5, 0.1], [0.1, 0.5], [0.9, 0.5]]
    square = "[[[0.000, 0.000], [1.000, 0.000], [1.000, 1.000], [0.000, 1.000]]]"
    assert len(order_points(square, order, 1, "row")) == len(square), "also where a path goes to and fro"
