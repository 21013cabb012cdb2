"""Describe and localize many rows: batch by batch, every good row answered, every bad one said to be bad.

``describe_rows`` and ``localize_rows`` are what the commands ``describe`` and ``localize`` do with a folder or a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from talking_points.config import ConfigError
from talking_points.descriptions.model_identity import identify_model
from talking_points.errors import RunError
from talking_points.examples.answer_files import AnswerFile, make_line
from talking_points.examples.asked_rows import AskedRow, BadRow, Point, RowError, Rows, Task, open_rows
from talking_points.image_files import ImageFileError

if TYPE_CHECKING:
    from talking_points.models.descriptor import PointDescriptor
    from talking_points.models.localizer import PointLocalizer

Source = str | Path | Iterable[Mapping[str, Any]]
Line = dict[str, Any]
Answer = Callable[[list[Image.Image], list[Any]], Sequence[Any]]
"""Images and one question about each to one answer each."""


def describe_rows(
    model: PointDescriptor,
    rows: Source,
    *,
    point: Point | None = None,
    images: str | Path | None = None,
    split: str = "test",
    output: str | Path | None = None,
    batch_size: int = 32,
) -> Iterator[Line]:
    """Describe the points of many rows; gives a line for each row that is answered now, in their order.

    Args:
        rows: a folder of images, a ``.jsonl`` or ``.parquet`` file with columns ``image`` and ``point`` (or
            ``points``), a dataset (folder or org/name), or mappings with these keys. Points are [x, y] in pixels.
        point: the point of every image of a folder; without it their centre.
        images: the folder of the images that rows name; a file's own by default.
        split: of a dataset.
        output: a JSONL file that keeps the lines; rows that it answers already are skipped.
        batch_size: rows that are read, and points that are described, at a time.

    Returns lines such as ``{"id", "image", "point", "description", "model"}``; of a row with ``points`` it has
    ``descriptions``, and of a row that cannot be answered ``{"id", "error"}``.
    Raises ``ConfigError`` for what holds no rows, and for an ``output`` that holds other answers.
    """
    opened = open_rows(rows, "describe", asked=point, images=images, split=split)
    return answer_rows(
        "describe", opened, make_describer(model, batch_size), _open_output(output, "describe", model), batch_size
    )


def localize_rows(
    model: PointLocalizer,
    rows: Source,
    *,
    text: str | None = None,
    images: str | Path | None = None,
    split: str = "test",
    output: str | Path | None = None,
    batch_size: int = 32,
) -> Iterator[Line]:
    """Find the points that the texts of many rows describe; as ``describe_rows``, with ``text`` (or ``texts``).

    ``text`` is what is looked for in every image of a folder. Returns lines such as ``{"id", "image", "text", "point",
    "model"}``, points as [x, y] in pixels.
    """
    opened = open_rows(rows, "localize", asked=text, images=images, split=split)
    return answer_rows(
        "localize", opened, make_localizer(model, batch_size), _open_output(output, "localize", model), batch_size
    )


def make_describer(model: PointDescriptor, batch_size: int) -> Answer:
    """Points of images to descriptions."""

    def answer(images: list[Image.Image], points: list[Any]) -> Sequence[str]:
        return model.describe(images, points, batch_size=batch_size, image_batch_size=min(8, batch_size))

    return answer


def make_localizer(model: PointLocalizer, batch_size: int) -> Answer:
    """Texts about images to points [x, y], pixels with two decimals."""

    def answer(images: list[Image.Image], texts: list[Any]) -> Sequence[list[float]]:
        found = model.localize(images, texts, batch_size=batch_size, image_batch_size=min(8, batch_size))
        return [[round(float(x), 2), round(float(y), 2)] for x, y in found]

    return answer


def name_model(model: str) -> str:
    """How answers name a model: its folder or repository, and the digest or commit of its weights."""
    path = Path(model)
    name = path.resolve().name if path.exists() else model
    revision = identify_model(model).revision
    return f"{name}@{revision}" if revision else name


def _open_output(output: str | Path | None, task: Task, model: Any) -> AnswerFile:
    named = getattr(model, "name_or_path", "")
    return AnswerFile(None if output is None else Path(output), task, name_model(named) if named else "unnamed")


def answer_rows(task: Task, rows: Rows, answer: Answer, file: AnswerFile, batch_size: int) -> Iterator[Line]:
    """Answer all rows that ``file`` does not answer yet; gives each one's line once it is in the file."""
    if batch_size < 1:
        raise ConfigError(f"expected a batch of at least 1 row, found {batch_size}")
    with file.opening():
        waiting = (row for row in rows if isinstance(row, BadRow) or not file.holds(row))
        while batch := list(islice(waiting, batch_size)):
            lines = _answer_batch(task, batch, answer, file.model)
            file.append(lines)
            yield from lines


def _answer_batch(task: Task, batch: Sequence[AskedRow | BadRow], answer: Answer, model: str) -> list[Line]:
    opened: dict[int, Image.Image] = {}
    lines: dict[int, Line] = {}
    for place, row in enumerate(batch):
        if isinstance(row, BadRow):
            lines[place] = _make_error(row, row.problem)
            continue
        try:
            opened[place] = row.open()
        except (ImageFileError, RowError) as error:
            lines[place] = _make_error(row, str(error))
        except OSError as error:
            raise RunError(
                f"cannot read the image of row {row.id!r} ({error}): answers so far are kept; put the disk right and "
                "run the same command again"
            ) from error
    asked = {place: row for place, row in enumerate(batch) if isinstance(row, AskedRow) and place in opened}
    try:
        answers = _ask(list(asked.values()), list(opened.values()), answer)
    except ValueError:
        answers = []  # one of them cannot be answered: which one it is, is found below
    for number, (place, row) in enumerate(asked.items()):
        try:
            own = answers[number] if answers else _ask([row], [opened[place]], answer)[0]
            if task == "describe" and not all(str(text).strip() for text in own):
                raise ValueError("empty description: the model wrote nothing about a point of this row")
            lines[place] = make_line(task, row, own, model)
        except ValueError as error:
            lines[place] = _make_error(row, str(error))
    return [lines[place] for place in range(len(batch))]


def _ask(rows: Sequence[AskedRow], images: Sequence[Image.Image], answer: Answer) -> list[Sequence[Any]]:
    """The answers of each row, all of them asked together."""
    shown = [image for row, image in zip(rows, images, strict=True) for _ in row.asked]
    questions = [one for row in rows for one in row.asked]
    if not questions:
        return [[] for _ in rows]
    try:
        found = iter(answer(shown, questions))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        raise RunError(
            f"{len(questions)} questions at once need more memory than the device has ({error}): run the same command "
            "again with a smaller --batch-size; it goes on where it stopped"
        ) from error
    return [list(islice(found, len(row.asked))) for row in rows]


def _make_error(row: AskedRow | BadRow, problem: str) -> Line:
    named = {} if row.image_name is None else {"image": row.image_name}
    return {"id": row.id, **named, "error": problem}
