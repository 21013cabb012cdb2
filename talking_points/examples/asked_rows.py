"""Rows that a model is asked about: from a folder of images, a JSONL or Parquet file, a dataset, or Python.

A row has an image (a path, or its bytes), one ``point`` or many ``points`` to describe, or one ``text`` or many
``texts`` to find, and may have an ``id``, a ``name`` and a ``box``, which its answer carries along. Coordinates: pixels
of the image as viewers show it, x to the right, y down. A row that cannot be used is a ``BadRow`` with the reason, and
costs no other. Neither torch nor a model is needed here.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from talking_points.config import ConfigError
from talking_points.dataset_files import read_dataset, readable, to_rows
from talking_points.hub_names import unavailable
from talking_points.image_files import Orientation, read_rgb
from talking_points.parquet_sizes import check_footer, refuse_large
from talking_points.regular_files import LINE, IrregularFileError, read_lines

Task = Literal["describe", "localize"]
Point = tuple[float, float]
Id = str | int

QUESTIONS: dict[Task, tuple[str, ...]] = {
    "describe": ("point", "points", "keypoint"),
    "localize": ("text", "texts", "description"),
}
"""Columns that hold what is asked, the first one found is taken."""

IMAGES = ("image", "image_path", "path")
ROW_FILES = (".jsonl", ".ndjson", ".parquet")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Endings of the files of a folder that are taken for images; the content decides how they are read."""

_CARRIED = ("name", "box")
_READ_AT_ONCE = 32
_MOST_QUESTIONS = 10_000


class RowError(ValueError):
    """What one row lacks, in words that stand in its answer."""


@dataclass(frozen=True)
class AskedRow:
    """One row. ``asked``: points (x, y) or texts; ``many``: whether it came as a list of them.

    image: a file, the bytes of one, or an image; image_name: how the answer names it, None for what has no name.
    """

    id: Id
    image: Path | bytes | Image.Image
    image_name: str | None
    asked: tuple[Point, ...] | tuple[str, ...]
    many: bool
    carried: Mapping[str, Any] = field(default_factory=dict)
    orientation: Orientation = "displayed"

    def open(self) -> Image.Image:
        """The image as RGB. Raises ``ImageFileError``, and ``RowError`` for a point that is not in it."""
        image = self.image if isinstance(self.image, Image.Image) else read_rgb(self.image, self.orientation)
        for point in self.asked:
            if isinstance(point, str):
                break
            x, y = point
            if not (-0.5 <= x < image.width - 0.5 and -0.5 <= y < image.height - 0.5):
                raise RowError(f"the point ({x:g}, {y:g}) is not in the image of {image.width}x{image.height} pixels")
        return image


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be asked about, and why."""

    id: Id
    problem: str
    image_name: str | None = None


@dataclass(frozen=True)
class Rows:
    """Rows in the order of their source, read while they are iterated over; ``total`` is None where nobody knows."""

    name: str
    total: int | None
    rows: Iterable[AskedRow | BadRow]

    def __iter__(self) -> Iterator[AskedRow | BadRow]:
        """The rows; one whose id was used before is a bad one."""
        seen: set[Id] = set()
        for row in self.rows:
            if row.id in seen:
                yield BadRow(f"{row.id} (again)", f"the id {row.id!r} is that of an earlier row; ids name one row each")
                continue
            seen.add(row.id)
            yield row


def open_rows(
    source: str | Path | Iterable[Mapping[str, Any]],
    task: Task,
    *,
    asked: Point | str | None = None,
    images: str | Path | None = None,
    split: str = "test",
) -> Rows:
    """The rows of a folder of images, a ``.jsonl`` or ``.parquet`` file, a dataset (folder or org/name), or given ones.

    Args:
        asked: what is asked about every image of a folder; without it, a folder's images are described at their centre.
        images: the folder of the images that a file's rows name; the file's own folder by default. Paths stay in it.
        split: of a dataset.

    Raises ``ConfigError`` for what holds no rows, and for a file without the columns.
    """
    if not isinstance(source, str | Path):
        given = list(source) if isinstance(source, Sequence) else source
        root = Path(images or ".")
        return Rows("rows", len(given) if isinstance(given, list) else None, _of_values(given, task, root))
    path = Path(source)
    if path.is_dir() and not any(path.glob("data/*.parquet")):
        return _of_folder(path, task, asked)
    if asked is not None:
        raise ConfigError(
            f"expected one question for all images of a folder, found one beside {path}, whose rows have their own: "
            "leave it out"
        )
    if path.is_dir() or not path.exists():
        return _of_dataset(str(source), task, split)
    if path.suffix.lower() not in ROW_FILES:
        raise ConfigError(
            f"expected a folder of images, a file of rows ({', '.join(ROW_FILES)}) or a dataset, found {path}"
        )
    root = Path(images) if images is not None else path.absolute().parent
    if not root.is_dir():
        raise ConfigError(f"expected the folder of the images, found none at {root}")
    read = _of_parquet if path.suffix.lower() == ".parquet" else _of_lines
    return read(path, task, root)


# ------------------------------------------------------------------ sources


def _of_folder(folder: Path, task: Task, asked: Point | str | None) -> Rows:
    if task == "localize" and not asked:
        raise ConfigError(f"expected the text to find in every image of {folder}, found none: name it after the folder")
    files = sorted(
        (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()),
        key=lambda file: file.relative_to(folder).as_posix(),
    )
    if not files:
        raise ConfigError(
            f"expected images in {folder} (files that end in {', '.join(SUFFIXES)}), or data/*.parquet of a dataset; "
            "found neither"
        )
    return Rows(str(folder), len(files), (_of_image(file, folder, asked) for file in files))


def _of_image(file: Path, folder: Path, asked: Point | str | None) -> AskedRow | BadRow:
    name = file.relative_to(folder).as_posix()
    if not file.resolve().is_relative_to(folder.resolve()):
        return BadRow(name, f"{name!a} is a link out of the folder: it is not opened", name)
    if asked is not None:
        return AskedRow(name, file, name, (asked,), many=False)  # type: ignore[arg-type]  # all points, or all texts
    try:
        image = read_rgb(file, "displayed")
    except ValueError as error:
        return BadRow(name, str(error), name)
    return AskedRow(name, file, name, (((image.width - 1) / 2, (image.height - 1) / 2),), many=False)


def _of_lines(path: Path, task: Task, root: Path) -> Rows:
    try:
        total = sum(1 for line in read_lines(path) if line is None or line.strip())
    except IrregularFileError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if not total:
        raise ConfigError(f"expected rows in {path}, found none: the file is empty")
    first = next((value for _, value in _lines(path) if isinstance(value, dict)), None)
    if first is None:
        raise ConfigError(f"expected one JSON object in every line of {path}, found none in any")
    _check_columns(list(first), task, path)
    return Rows(str(path), total, (_row(value, number, task, root) for number, value in _lines(path)))


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number, from 1, and value of every line that is not empty; what is no JSON is the error that says so."""
    number = 0
    for line in read_lines(path):
        if line is None:
            number += 1
            yield number, RowError(f"the line is longer than {LINE:,} bytes")
        elif line.strip():
            number += 1
            try:
                yield number, json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                yield number, RowError(f"the line is no JSON ({error})")


def _of_parquet(path: Path, task: Task, root: Path) -> Rows:
    import pyarrow.parquet as pq

    with readable(path):
        check_footer(path)
    with readable(path), pq.ParquetFile(path) as file:
        found, total = file.schema_arrow.names, file.metadata.num_rows
    wanted = _check_columns(found, task, path)
    with readable(path):
        refuse_large(path, wanted)
    if not total:
        raise ConfigError(f"expected rows in {path}, found none")

    def rows() -> Iterator[AskedRow | BadRow]:
        number = 0
        with readable(path), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_READ_AT_ONCE, columns=[name for name in found if name in wanted]):
                for value in to_rows(batch, path):
                    number += 1
                    yield _row(value, number, task, root)

    return Rows(str(path), total, rows())


def _of_dataset(name: str, task: Task, split: str) -> Rows:
    if not Path(name).exists():
        reason = unavailable(name, "dataset")
        if reason:
            raise ConfigError(
                f"expected a folder of images, a file of rows ({', '.join(ROW_FILES)}) or a dataset, found nothing at "
                f"{name}: {reason}"
            )
    question = "keypoint" if task == "describe" else "description"
    stored: Any = read_dataset(name, split, {"id", "image", question})
    if not len(stored):
        raise ConfigError(f"split '{split}' of the dataset {name} has no rows")

    def rows() -> Iterator[AskedRow | BadRow]:
        for row in stored:
            pixels = (row["image"] or {}).get("bytes")
            asked: Any = row[question] if task == "localize" else tuple(row[question])
            if pixels is None:
                yield BadRow(row["id"], "the dataset holds no pixels: put them back with 'talking-points rehydrate'")
            elif not asked:
                yield BadRow(row["id"], "the row has no description")
            else:
                yield AskedRow(row["id"], pixels, None, (asked,), many=False, orientation="stored")

    return Rows(name, len(stored), rows())


def _of_values(values: Iterable[Mapping[str, Any]], task: Task, root: Path) -> Iterator[AskedRow | BadRow]:
    return (_row(value, number, task, root) for number, value in enumerate(values, start=1))


# ------------------------------------------------------------------ one row


def _check_columns(found: Sequence[str], task: Task, path: Path) -> set[str]:
    """The names of the columns that are read. Raises ``ConfigError`` where one is missing."""
    for what, names in (("the image", IMAGES), ("what is asked", QUESTIONS[task])):
        if not any(name in found for name in names):
            raise ConfigError(
                f"{path}: expected a column for {what} ({', '.join(names)}), found {', '.join(map(ascii, found))[:300]}"
                ": rename it"
            )
    return {"id", *IMAGES, *QUESTIONS[task], *_CARRIED}


def _row(value: Any, number: int, task: Task, root: Path) -> AskedRow | BadRow:
    """A row of a file or of Python. Its id is its own, or its number from 1."""
    own = value.get("id") if isinstance(value, Mapping) else None
    row_id: Id = own if isinstance(own, str | int) and not isinstance(own, bool) else number
    name = None
    try:
        if isinstance(value, RowError):
            raise value
        if not isinstance(value, Mapping):
            raise RowError(f"expected an object with the row's columns, found {type(value).__name__}")
        if own is not None and row_id is not own:
            raise RowError(f"expected a text or a whole number as id, found {str(own)[:80]!a}")
        image, name = _image(value, root)
        asked, many = _asked(value, task)
        return AskedRow(row_id, image, name, asked, many, _carried(value))
    except RowError as error:
        return BadRow(row_id, str(error), name)


def _image(value: Mapping[str, Any], root: Path) -> tuple[Path | bytes | Image.Image, str | None]:
    """A row's image, and how its answer names it."""
    cell = next((value[name] for name in IMAGES if value.get(name) is not None), None)
    name = None
    if isinstance(cell, Mapping):  # as datasets stores images
        name = cell.get("path") if isinstance(cell.get("path"), str) else None
        cell = cell.get("bytes") if cell.get("bytes") is not None else name
        if isinstance(cell, str) and cell is not name:
            try:
                cell = base64.b64decode(cell, validate=True)
            except (binascii.Error, ValueError) as error:
                raise RowError(f"expected the image's bytes in base64, found another text ({error})") from None
    if isinstance(cell, bytes | Image.Image):
        return cell, name
    if not isinstance(cell, str | Path) or not str(cell):
        raise RowError(f"expected an image, its path or its bytes; found {type(cell).__name__}")
    path = root / cell
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise RowError(f"the path {str(cell)[:200]!a} cannot be read ({error})") from None
    if not inside:
        raise RowError(f"the image {str(cell)[:200]!a} is not in {root}: name the folder of the images (images)")
    return path, str(cell)


def _asked(value: Mapping[str, Any], task: Task) -> tuple[Any, bool]:
    """The points or texts of a row, and whether they came as a list."""
    cell = next((value[name] for name in QUESTIONS[task] if value.get(name) is not None), None)
    if task == "localize":
        many = isinstance(cell, list | tuple)
        texts = cell if many else [cell]
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise RowError(f"expected a text, or a list of texts, found {_shown(cell)}")
        return tuple(texts), many
    many = isinstance(cell, list | tuple) and bool(cell) and isinstance(cell[0], list | tuple)
    points = cell if many else [cell]
    if not isinstance(points, list | tuple) or len(points) > _MOST_QUESTIONS or not all(map(_is_point, points)):
        raise RowError(f"expected a point [x, y] in pixels, or a list of points, found {_shown(cell)}")
    return tuple((float(x), float(y)) for x, y in points), many


def _is_point(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond a float
        return False


def _carried(value: Mapping[str, Any]) -> dict[str, Any]:
    """Name and box, which stand in the answer as they were given."""
    name, box = value.get("name"), value.get("box")
    if name is not None and not isinstance(name, str):
        raise RowError(f"expected a text as name, found {_shown(name)}")
    if box is not None and not (isinstance(box, list | tuple) and len(box) == 4 and all(map(_is_number, box))):
        raise RowError(f"expected a box [x, y, width, height] in pixels, found {_shown(box)}")
    return ({} if name is None else {"name": name}) | ({} if box is None else {"box": list(box)})


def _shown(value: object) -> str:
    return "none" if value is None else ascii(value)[:80]
