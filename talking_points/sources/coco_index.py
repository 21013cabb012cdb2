"""COCO annotation files of any size, regrouped by image on disk.

A COCO file lists all images and then all annotations in any order; its largest instances here exceed a
hundred megabytes. It is streamed once per list into a temporary SQLite database that is read image by image, so
memory does not grow with the file. The database has no name and vanishes with its connection.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Protocol, Self

import ijson

from talking_points.sources.json_text import NOT_A_NUMBER, check_json
from talking_points.sources.keypoint_annotations import without_blanks
from talking_points.sources.layout import ImageFinder, all_inside
from talking_points.sources.protocol import SkippedImage, Source, SourceEntry, SourceError

_REGION = ("category_id", "bbox", "segmentation", "keypoints", "iscrowd", "num_keypoints")
"""What makes two annotations of an image the same one, whatever their ids."""

_KEPT = (
    "id",
    "category_id",
    "bbox",
    "area",
    "iscrowd",
    "segmentation",
    "part_category_id",
    "keypoints",
    "num_keypoints",
    "score",
    "object_id",
    "parent_id",
    "obj_ann_id",
)
_BLOCK = 1 << 16
NOT_A_NUMBER_IN_JSON = json.dumps(NOT_A_NUMBER)[1:-1]

_TABLES = """
PRAGMA journal_mode = OFF;
CREATE TABLE images (key TEXT PRIMARY KEY, image_id TEXT UNIQUE, split TEXT, file TEXT, payload TEXT) WITHOUT ROWID;
CREATE TABLE annotations (key TEXT, id TEXT, number REAL, payload TEXT);
"""


@dataclass(frozen=True)
class CocoImage:
    """One listed image with its raw annotations in the order of their ids, each with an int ``category_id``."""

    image_id: str
    split: str
    file: str
    file_name: str
    width: int | None
    height: int | None
    annotations: list[dict[str, Any]]


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Reader:
    """A file that counts the bytes it hands out, one at a time from ``fine_from`` on."""

    def __init__(self, file: _Readable, fine_from: float = float("inf")) -> None:
        self.file = file
        self.fine_from = fine_from
        self.start = 0
        self.end = 0

    def read(self, size: int) -> bytes:
        self.start = self.end
        block = self.file.read(1 if size > 0 and self.end >= self.fine_from else size)
        self.end += len(block)
        return block


class CocoIndex:
    """Images and annotations of one or more COCO files. Use as a context manager.

    ``source`` counts what is left out. With ``joint`` all files share one id space: an image listed in several
    files is one image of the first of them, and an annotation id met again is left out.
    """

    def __init__(self, source: Source, joint: bool = False) -> None:
        self.source = source
        self.joint = joint
        self._files = 0
        self._database = sqlite3.connect("", check_same_thread=False)  # "": a private file deleted on closing
        self._database.executescript(_TABLES)
        if joint:
            self._database.execute("CREATE INDEX by_id ON annotations (id)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add(self, path: Path, split: str, image_id: Callable[[str], str]) -> list[dict[str, Any]]:
        """Read one file of ``split``; returns its categories. ``image_id`` turns a file name into the image id.

        Raises ``SourceError`` for broken JSON (with the byte and what was read before it), a file without
        images or that cannot be opened, or a full disk.
        """
        self._files += 1
        file = path.relative_to(self.source.root).as_posix() if path.is_relative_to(self.source.root) else path.name
        namespace = "" if self.joint else f"{self._files}:"
        seen = "WHERE NOT EXISTS (SELECT 1 FROM annotations WHERE id = ?2)" if self.joint else ""
        try:
            lists = _Lists(path)
            images = (self._image_row(item, namespace, split, file, image_id) for item in lists.items("images"))
            repeated = self._insert("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?)", images)
            annotations = (self._annotation_row(item, namespace) for item in lists.items("annotations"))
            known = self._insert(f"INSERT INTO annotations SELECT ?1, ?2, ?3, ?4 {seen}", annotations)
            categories = [item for item in lists.items("categories") if isinstance(item, dict)]
        except (IsADirectoryError, PermissionError) as error:
            raise SourceError(f"cannot read {path}: {error.strerror}; expected a JSON file there") from error
        except sqlite3.OperationalError as error:
            raise SourceError(
                f"cannot index {path}: {error}; free space in the temporary folder, or name another in SQLITE_TMPDIR"
            ) from error
        lists.raise_if_broken()
        if not lists.read["images"] and not lists.has("images"):
            raise SourceError(f'expected a COCO file with a list "images" in {path}, found none; is it the right file?')
        if repeated and not self.joint:
            self.source.skip("duplicate_image", file, repeated)
            again = (self._image_row(item, namespace, split, file, image_id, True) for item in lists.items("images"))
            self._join(again)
        if known:
            self.source.skip("duplicate_annotation", file, known)
        return categories

    def _join(self, images: Iterable[tuple[str, str, str, str, str] | None]) -> None:
        """Give the annotations of images that were listed before, under another id or in another file, to these."""
        self._database.execute("CREATE INDEX IF NOT EXISTS by_image ON annotations (key)")
        first = "SELECT key FROM images WHERE image_id = ?2"
        self._database.executemany(
            f"UPDATE annotations SET key = ({first}) WHERE key = ?1 AND key NOT IN (SELECT key FROM images)",
            (row[:2] for row in images if row is not None),
        )

    def _insert(self, statement: str, rows: Iterable[tuple[object, ...] | None]) -> int:
        """Run ``statement`` for all rows but None; returns how many of them the database did not take."""
        offered = 0

        def usable() -> Iterator[tuple[object, ...]]:
            nonlocal offered
            for row in rows:
                if row is not None:
                    offered += 1
                    yield row

        taken = self._database.executemany(statement, usable()).rowcount
        return offered - max(taken, 0)  # -1 when there was no row at all

    def _image_row(
        self, item: Any, namespace: str, split: str, file: str, image_id: Callable[[str], str], again: bool = False
    ) -> tuple[str, str, str, str, str] | None:
        name = _file_name(item) if isinstance(item, dict) else None
        size = [_pixels(item.get(side)) for side in ("width", "height")] if name is not None else []
        if name is None or "id" not in item or -1 in size:
            if not again:
                self.source.skip("malformed_image", f"{file}: {str(item)[:80]}")
            return None
        payload = json.dumps([name, *size])
        return f"{namespace}{whole_number(item['id'])}", f"{split}/{image_id(name)}", split, file, payload

    def _annotation_row(self, item: Any, namespace: str) -> tuple[str, str | None, float, str] | None:
        if not isinstance(item, dict) or "image_id" not in item:
            self.source.skip("malformed_annotation", f"annotation without image_id: {str(item)[:80]}")
            return None
        category = category_number(item.get("category_id"))
        if isinstance(category, bool) or not isinstance(category, int):
            self.source.skip("malformed_annotation", f"annotation {item.get('id')}: category_id {category!r}")
            return None
        kept = {key: item[key] for key in _KEPT if key in item} | {"category_id": category}
        if "keypoints" in kept:
            kept["keypoints"] = without_blanks(kept["keypoints"])
        payload = json.dumps(kept, separators=(",", ":"))
        if NOT_A_NUMBER_IN_JSON in payload:
            self.source.skip("malformed_annotation", f"annotation {item.get('id')}: NaN or infinity in it")
            return None
        number = item.get("id")
        key = None if number is None else str(whole_number(number))
        number = float(number) if isinstance(number, int | float) else 0.0
        return f"{namespace}{whole_number(item['image_id'])}", key, number, payload

    def images(self) -> Iterator[CocoImage]:
        """All images in the order of their ids. Counts annotations whose image is not listed."""
        self._database.execute("CREATE INDEX IF NOT EXISTS by_image ON annotations (key)")
        orphans = "SELECT count(*) FROM annotations WHERE key NOT IN (SELECT key FROM images)"
        if count := self._database.execute(orphans).fetchone()[0]:
            self.source.skip("annotation_without_image", count=count)
        listed = self._database.execute("SELECT key, image_id, split, file, payload FROM images ORDER BY image_id")
        for key, image_id, split, file, payload in listed:
            name, width, height = json.loads(payload)
            yield CocoImage(image_id, split, file, name, width, height, self._of(key))

    def _of(self, key: str) -> list[dict[str, Any]]:
        order = "SELECT payload FROM annotations WHERE key = ? ORDER BY number, payload"
        listed = [payload for (payload,) in self._database.execute(order, (key,))]
        different: dict[str, dict[str, Any]] = {}
        for payload in listed:
            annotation = json.loads(payload)
            different.setdefault(_region(annotation, payload), annotation)
        kept = list(different.values())
        if len(kept) < len(listed):
            self.source.skip("duplicate_annotation", listed[0][:80], len(listed) - len(kept))
        return kept

    def references(self) -> Iterator[tuple[int, str, int | None, int | None]]:
        """Category, file name, width and height of every annotated image, once for each of its categories."""
        self._database.execute("CREATE INDEX IF NOT EXISTS by_image ON annotations (key)")
        pairs = "SELECT DISTINCT json_extract(a.payload, '$.category_id'), i.payload FROM annotations a JOIN images i"
        for category, payload in self._database.execute(f"{pairs} ON a.key = i.key"):
            name, width, height = json.loads(payload)
            yield category, name, width, height

    def image_ids(self) -> frozenset[str]:
        return frozenset(image_id for (image_id,) in self._database.execute("SELECT image_id FROM images"))

    def annotations(self, image_id: str) -> list[dict[str, Any]]:
        """Raw annotations of one image; empty when it is not listed."""
        self._database.execute("CREATE INDEX IF NOT EXISTS by_image ON annotations (key)")
        row = self._database.execute("SELECT key FROM images WHERE image_id = ?", (image_id,)).fetchone()
        return self._of(row[0]) if row else []


def _file_name(item: Mapping[str, Any]) -> str | None:
    """The listed file name with "/" between folders, as not every system writes it; None if no file can have it."""
    name = item.get("file_name")
    name = name.replace("\\", "/") if isinstance(name, str) else ""
    return name if PurePosixPath(name).name else None


def _pixels(side: Any) -> int | None:
    """A width or height that may have been written as a text or a float; None where there is none, -1 for no number."""
    if side is None or side == "":
        return None
    if isinstance(side, str):
        return int(side) if side.isascii() and side.isdigit() and len(side) < 10 else -1
    side = whole_number(side)
    return side if isinstance(side, int) and not isinstance(side, bool) else -1


def _region(annotation: Mapping[str, Any], payload: str) -> str:
    """The same for annotations that are one object under two ids: equal category, box, outline and keypoints."""
    region = [annotation.get(key) or None for key in _REGION]
    if not any(region[1:4]):
        return payload
    return json.dumps(region).replace(".0,", ",").replace(".0]", "]")


def whole_number(value: Any) -> Any:
    """Ids and categories that went through floating point (``3.0``) as the integers they are."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def category_number(value: Any) -> Any:
    """A category id as the integer it is, also where a tool has written it as text ("5")."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return whole_number(value)


class _Lists:
    """The top-level lists of one COCO file, streamed; remembers the first syntax error instead of raising it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = check_json(path)
        self.read: dict[str, int] = {}
        self._broken: tuple[Exception, int] | None = None

    def items(self, name: str) -> Iterator[Any]:
        self.read[name] = 0
        with self.text.open() as file:
            reader = _Reader(file)
            try:
                for item in ijson.items(reader, f"{name}.item", use_float=True, buf_size=_BLOCK):
                    self.read[name] += 1
                    yield item
            except (ijson.JSONError, UnicodeDecodeError) as error:
                self._broken = self._broken or (error, reader.start)

    def has(self, name: str) -> bool:
        """Whether the file has such a list, be it an empty one: a split may have no images."""
        with self.text.open() as file:
            return any(prefix == name and event == "start_array" for prefix, event, _ in ijson.parse(file))

    def raise_if_broken(self) -> None:
        if self._broken is None:
            return
        error, block = self._broken
        with self.text.open() as file:
            reader = _Reader(file, fine_from=block)  # again, bytewise in the failing block, to name the byte
            try:
                for _ in ijson.basic_parse(reader, use_float=True, buf_size=_BLOCK):
                    pass
            except (ijson.JSONError, UnicodeDecodeError) as exact:
                error = exact
        told = error.args[0] if error.args else error
        reason = (
            (told.decode(errors="replace") if isinstance(told, bytes) else str(told))
            .strip()
            .splitlines()[0]
            .rstrip(".")
        )
        read = ", ".join(f"{count} {name}" for name, count in self.read.items())
        size, place = self.path.stat().st_size, reader.end + self.text.start
        raise SourceError(
            f"expected JSON in {self.path}, found an error at byte {place} of {size}: "
            f"{reason}. Read before it: {read}. Nothing of this file is used; "
            "unpack or download it again, or have the tool that wrote it write valid JSON"
        ) from error


def list_categories(path: Path) -> list[dict[str, Any]]:
    """The categories of one COCO file. Raises ``SourceError`` for broken JSON."""
    lists = _Lists(path)
    found = [item for item in lists.items("categories") if isinstance(item, dict)]
    lists.raise_if_broken()
    return found


def count_annotations(path: Path) -> Counter[int]:
    """How many annotations of each category a COCO file has, by id. Raises ``SourceError`` for broken JSON."""
    lists = _Lists(path)
    items = (item for item in lists.items("annotations") if isinstance(item, dict))
    numbers = (category_number(item.get("category_id")) for item in items)
    found = Counter(number for number in numbers if isinstance(number, int))
    lists.raise_if_broken()
    return found


def list_entries(
    index: CocoIndex,
    finders: Mapping[str, ImageFinder],
    labels: Callable[[CocoImage, str], Sequence[str] | None],
    missing: Callable[[CocoImage], None] = lambda image: None,
    bare: bool = False,
) -> Iterator[SourceEntry]:
    """Entries of all images of ``index`` that are on disk and annotated, in the order of their ids.

    ``finders`` finds the images of each split; ``labels(image, path)`` gives further files of the image, or None
    when they are missing; ``missing`` is called with every image that is not on disk; ``bare`` lists images without
    an annotation as well. Everything left out is counted on the index's source.
    """
    source = index.source
    for image in index.images():
        try:
            path = finders[image.split].find(image.file_name)
        except SkippedImage as skipped:
            source.skip(skipped.reason, f"{image.file}: {skipped.detail}")
            continue
        if path is None:
            source.skip("missing_image", f"{image.file}: {image.file_name}")
            missing(image)
            continue
        if not image.annotations and not bare:
            source.skip("image_without_annotation", path)
            continue
        files = labels(image, path)
        if files is None:
            source.skip("missing_label", path)
            continue
        annotation = {
            "file": image.file,
            "width": image.width,
            "height": image.height,
            "annotations": image.annotations,
        }
        if all_inside(source, files):
            yield SourceEntry(image.image_id, path, image.split, (path, *files), annotation)


def count_unlisted(index: CocoIndex, finders: Mapping[str, ImageFinder]) -> frozenset[str]:
    """Count the images on disk that the annotation files do not list; returns the listed image ids.

    For datasets whose image ids are ``<split>/<stem>``.
    """
    listed = index.image_ids()
    for split, finder in finders.items():
        for stem in sorted(finder.all_stems()):
            if f"{split}/{stem}" not in listed:
                index.source.skip("missing_label", f"{split}/{stem} is on disk, not in the annotation file")
    return listed
