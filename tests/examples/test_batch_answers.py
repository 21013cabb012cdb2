"""Many rows: every good one is answered as it would be alone, bad ones are said to be bad, and no cut loses one."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from talking_points import describe_rows, localize_rows
from talking_points.config import ConfigError
from talking_points.dataset_files import DatasetError
from talking_points.errors import RunError
from talking_points.examples.answer_files import AnswerFile
from talking_points.examples.asked_rows import open_rows
from talking_points.examples.batch_answers import answer_rows, name_model
from talking_points.locks import FolderInUseError
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from tests.training.conftest import small, write_dataset

SIZE = (50, 40)
Lines = list[dict[str, Any]]


def pixels(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8))


def png(number: int) -> bytes:
    file = io.BytesIO()
    pixels(number).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images, one of them deeper, and a text that is none."""
    root = tmp_path_factory.mktemp("images")
    (root / "more").mkdir()
    for number, name in enumerate(("a.png", "b.PNG", "more/c.png")):
        (root / name).write_bytes(png(number))
    (root / "notes.txt").write_text("no image")
    (root / "linked").symlink_to(root.parent)
    return root


@pytest.fixture(scope="module")
def descriptor() -> PointDescriptor:
    model = small(PointDescriptor, max_new_tokens=6)
    assert isinstance(model, PointDescriptor)
    return model


@pytest.fixture(scope="module")
def localizer() -> PointLocalizer:
    model = small(PointLocalizer)
    assert isinstance(model, PointLocalizer)
    return model


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read_lines(path: Path) -> Lines:
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


# ------------------------------------------------------------------ what rows come from


def test_every_source_gives_the_answers_of_its_points(
    folder: Path, tmp_path: Path, descriptor: PointDescriptor
) -> None:
    names, points = ["a.png", "b.PNG", "more/c.png"], [(3.0, 4.0), (20.0, 10.5), (49.0, 39.0)]
    expected = descriptor.describe([pixels(number) for number in range(3)], points)
    rows = [{"image": name, "point": list(point)} for name, point in zip(names, points, strict=True)]
    sources: dict[str, Any] = {
        "lines": write_lines(folder / "rows.jsonl", rows),
        "base64": write_lines(
            folder / "embedded.jsonl",
            [{**row, "image": {"bytes": base64.b64encode(png(n)).decode()}} for n, row in enumerate(rows)],
        ),
        "python": [{**row, "image": pixels(number)} for number, row in enumerate(rows)],
        "paths": rows,
    }
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for name, images in {
        "bytes": pa.array([png(number) for number in range(3)]),
        "struct": pa.array([{"bytes": png(number), "path": names[number]} for number in range(3)], struct),
        "names": pa.array(names),
    }.items():
        sources[name] = folder / f"{name}.parquet"
        pq.write_table(pa.table({"image": images, "keypoint": points, "other": [1, 2, 3]}), sources[name])
    for name, source in sources.items():
        found = list(describe_rows(descriptor, source, images=folder, batch_size=2))
        assert [line["description"] for line in found] == expected, name
        assert [line["id"] for line in found] == [1, 2, 3]
        assert [tuple(line["point"]) for line in found] == points


def test_the_images_of_a_folder_have_one_point_or_their_centre(folder: Path, descriptor: PointDescriptor) -> None:
    names = ["a.png", "b.PNG", "more/c.png"]
    for point, asked in (((5.0, 6.0), [5.0, 6.0]), (None, [24.5, 19.5])):
        found = list(describe_rows(descriptor, folder, point=point))
        assert [line["id"] for line in found] == names
        assert [line["point"] for line in found] == [asked] * 3
        assert [line["description"] for line in found] == descriptor.describe(
            [pixels(number) for number in range(3)], [asked] * 3
        )


def test_texts_of_a_dataset_are_found(tmp_path: Path, localizer: PointLocalizer, descriptor: PointDescriptor) -> None:
    dataset = write_dataset(tmp_path / "dataset", split="test")
    found = list(localize_rows(localizer, dataset))
    images = [Image.new("RGB", SIZE, (number // 2,) * 3) for number in range(6)]
    places = localizer.localize(images, [f"text {number}" for number in range(6)])
    np.testing.assert_allclose([line["point"] for line in found], places, atol=0.01)
    assert found[5] == {
        "id": f"{5:016x}", "text": "text 5", "point": found[5]["point"], "model": "unnamed",
    }  # fmt: skip
    described = list(describe_rows(descriptor, str(dataset)))
    assert [line["point"] for line in described] == [[float(number), 3.0] for number in range(6)]


def test_what_was_described_can_be_looked_for(folder: Path, tmp_path: Path, localizer: PointLocalizer) -> None:
    described = write_lines(
        tmp_path / "described.jsonl", [{"image": "a.png", "point": [1, 2], "description": "an ear"}]
    )
    (line,) = localize_rows(localizer, described, images=folder)
    assert line["text"] == "an ear"


def test_a_row_with_many_questions_has_many_answers(folder: Path, localizer: PointLocalizer) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "x", "image": "a.png", "texts": ["an ear", "a leg"], "name": "dog", "box": [1, 2, 3, 4]},
        {"id": "y", "image": "a.png", "text": "a leg"},
    ]
    first, second = localize_rows(localizer, rows, images=folder)
    assert first == {
        "id": "x", "image": "a.png", "name": "dog", "box": [1, 2, 3, 4], "texts": ["an ear", "a leg"],
        "points": first["points"], "model": "unnamed",
    }  # fmt: skip
    assert len(first["points"]) == 2
    assert second["point"] == first["points"][1]


# ------------------------------------------------------------------ bad rows

GOOD = {"image": "a.png", "point": [1, 2]}
BAD: list[tuple[object, str]] = [
    ('{"image": ', "the line is no JSON"),
    ("[1, 2]", "expected an object"),
    ({**GOOD, "image": "none.png"}, "no file"),
    ({**GOOD, "image": "notes.txt"}, "expected an image"),
    ({**GOOD, "image": "../a.png"}, "is not in"),
    ({**GOOD, "image": "/etc/hostname"}, "is not in"),
    ({**GOOD, "image": "linked/a.png"}, "is not in"),
    ({**GOOD, "image": 7}, "expected an image, its path or its bytes"),
    ({**GOOD, "image": "a\0.png"}, "cannot be read"),
    ({**GOOD, "image": {"bytes": "no base64!"}}, "base64"),
    ({**GOOD, "point": [1]}, "expected a point"),
    ({**GOOD, "point": [1, "2"]}, "expected a point"),
    ({**GOOD, "point": [True, 2]}, "expected a point"),
    ('{"image": "a.png", "point": [NaN, 1]}', "expected a point"),
    ('{"image": "a.png", "point": [1e999, 1]}', "expected a point"),
    ('{"image": "a.png", "point": [1' + "0" * 400 + ", 1]}", "expected a point"),
    ({**GOOD, "point": [50, 3]}, "is not in the image of 50x40"),
    ({**GOOD, "point": None}, "expected a point"),
    ({"image": "a.png", "points": [[1, 2], [1, 99]]}, "is not in the image"),
    ({**GOOD, "id": [1]}, "whole number as id"),
    ({**GOOD, "id": True}, "whole number as id"),
    ({**GOOD, "box": [1, 2]}, "expected a box"),
    ({**GOOD, "name": 3}, "expected a text as name"),
    ({**GOOD, "id": "twice"}, "that of an earlier row"),
]


def test_bad_rows_cost_no_good_one(folder: Path) -> None:
    """One file with all of them, good rows between them; the answers are no model's, so that it is quick."""
    rows: list[object] = [{**GOOD, "id": "twice"}]
    for number, (row, _) in enumerate(BAD):
        rows += [row, {**GOOD, "id": f"good {number}"}, ""]
    source = write_lines(folder / "mixed.jsonl", rows)
    found = list(answer_rows("describe", open_rows(source, "describe"), says(), AnswerFile(None, "describe", "m"), 4))
    assert [line["id"] for line in found if "description" in line] == [
        "twice", *(f"good {number}" for number in range(len(BAD))),
    ]  # fmt: skip
    errors = [line["error"] for line in found if "error" in line]
    for (row, expected), error in zip(BAD, errors, strict=True):
        assert expected in error, row


def test_a_question_that_the_model_refuses_fails_alone(folder: Path) -> None:
    rows = [{"image": "a.png", "text": text} for text in ("one", "far too long", "three")]
    answer = says(refused="far too long")
    found = list(
        answer_rows(
            "localize", open_rows(rows, "localize", images=folder), answer, AnswerFile(None, "localize", "m"), 8
        )
    )
    assert [line.get("point") for line in found] == ["said of one", None, "said of three"]
    assert found[1]["error"] == "too long"


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("empty.jsonl", [], "the file is empty"),
        ("words.jsonl", ["words"], "one JSON object in every line"),
        ("columns.jsonl", [{"file": "a.png", "point": [1, 2]}], r"a column for the image \(image, image_path, path\)"),
        ("columns.jsonl", [{"image": "a.png", "xy": [1, 2]}], r"what is asked \(point, points, keypoint\), found 'im"),
        ("rows.csv", ["image,x,y"], "expected a folder of images, a file of rows"),
    ],
)
def test_files_without_rows_are_refused(tmp_path: Path, name: str, rows: list[object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        open_rows(write_lines(tmp_path / name, rows), "describe")


def test_a_column_of_hours_in_no_zone_is_refused(tmp_path: Path) -> None:
    hours = pa.array([1], pa.timestamp("us", "Not/AZone"))
    pq.write_table(pa.table({"image": ["a.png"], "text": hours}), tmp_path / "rows.parquet")
    with pytest.raises(DatasetError, match=r"holds what cannot be read .*Not/AZone"):
        list(open_rows(tmp_path / "rows.parquet", "localize"))


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        open_rows(tmp_path / "rows.parquet", "describe")


# ------------------------------------------------------------------ the file of answers


def says(asked: list[Any] | None = None, refused: str | None = None, stop_after: int | None = None) -> Any:
    """What stands in for a model: quick, sure, and it remembers what it was asked."""
    asked = [] if asked is None else asked

    def answer(images: Sequence[Image.Image], questions: Sequence[Any]) -> list[str]:
        if refused in questions:
            raise ValueError("too long")
        if stop_after is not None and len(asked) >= stop_after:
            raise KeyboardInterrupt
        asked.extend(questions)
        return [f"said of {question}" for question in questions]

    return answer


def answered(output: Path, asked: list[Any], rows: int = 9, model: str = "m", **options: Any) -> Lines:
    given = [{"id": f"row {n}", "image": pixels(0), "point": [n, 1]} for n in range(rows)]
    given[4] = {"id": "row 4", "image": "none.png", "point": [1, 1]}
    file = AnswerFile(output, "describe", model)
    return list(answer_rows("describe", open_rows(given, "describe"), says(asked, **options), file, 2))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1))
def test_a_file_that_was_cut_anywhere_is_completed(tmp_path: Path, cut: float) -> None:
    output = tmp_path / "answers.jsonl"
    output.unlink(missing_ok=True)
    first: list[Any] = []
    whole = answered(output, first)
    assert read_lines(output) == whole
    content = output.read_bytes()
    output.write_bytes(content[: round(cut * len(content))])
    kept = [json.loads(line) for line in output.read_bytes().split(b"\n")[:-1]]
    again: list[Any] = []
    answered(output, again)
    found = read_lines(output)
    assert sorted(found, key=lambda line: line["id"]) == sorted(whole, key=lambda line: line["id"])
    assert len(again) == 8 - sum("description" in line for line in kept), "answered rows are not asked about again"


def test_what_is_answered_is_kept_when_the_run_is_stopped(tmp_path: Path) -> None:
    asked: list[Any] = []
    output = tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        answered(output, asked, stop_after=4)
    assert [line["id"] for line in read_lines(output)] == ["row 0", "row 1", "row 2", "row 3"]
    answered(output, asked)
    assert len(asked) == 8
    assert len(answered(output, asked)) == 1, "only the row without an answer is tried again"
    assert len(asked) == 8
    assert not list(tmp_path.glob(".*")), "nothing is left beside the file"


def test_a_row_that_was_mended_is_answered(tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    answered(output, [])
    assert sum("error" in line for line in read_lines(output)) == 1
    given = [{"id": f"row {n}", "image": pixels(0), "point": [n, 1]} for n in range(9)]
    mended = list(answer_rows("describe", open_rows(given, "describe"), says(), AnswerFile(output, "describe", "m"), 2))
    assert [line["id"] for line in mended] == ["row 4"]
    assert not any("error" in line for line in read_lines(output))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: path.write_text("My thesis.\n"), "something else in line 1"),
        (lambda path: path.write_text("a line without an end"), "something else in line 1"),
        (lambda path: path.write_text('{"a": 1}\n'), "something else in line 1"),
        (lambda path: path.write_text(path.read_text().replace('"description"', '"text"')), "something else in line 1"),
        (
            lambda path: path.write_text(path.read_text().replace('"m"', '"other"')),
            "holds answers of the model 'other'",
        ),
        (lambda path: path.write_text(path.read_text().replace("[3.0, 1.0]", "[3.5, 1.0]")), "for another point"),
        (lambda path: (path.unlink(), path.mkdir()), "found the folder"),
    ],
)
def test_a_file_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, change: Callable[[Path], object], expected: str
) -> None:
    output = tmp_path / "answers.jsonl"
    answered(output, [])
    change(output)
    before = output.read_bytes() if output.is_file() else b""
    with pytest.raises(ConfigError, match=expected):
        answered(output, [])
    assert not output.is_file() or "error" in before.decode() or output.read_bytes() == before


def test_two_runs_at_once_do_not_mix(tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    with AnswerFile(output, "describe", "m").opening(), pytest.raises(FolderInUseError, match="another process"):
        answered(output, [])


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    file = AnswerFile(Path("/dev/full"), "describe", "m")
    with pytest.raises(RunError, match="make room and run the same command again"):
        file.append([{"id": 1}])


def test_models_are_named_by_their_weights(tmp_path: Path, descriptor: PointDescriptor) -> None:
    descriptor.save_pretrained(tmp_path / "mine")
    name = name_model(str(tmp_path / "mine"))
    assert name.startswith("mine@sha256:")
    loaded = PointDescriptor.from_pretrained(tmp_path / "mine")
    (line,) = describe_rows(loaded, [{"image": pixels(0), "point": [1, 1]}])
    assert line["model"] == name
