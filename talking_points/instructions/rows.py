"""Instruction rows: one question about one region, with its answer. Their one schema, how they are made and read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from talking_points.grounding.grammar import write_box, write_point
from talking_points.grounding.outlines import box_to_unit, point_to_unit
from talking_points.instructions.config import InstructionSettings
from talking_points.instructions.elements import KINDS, Element, Kind, draw_kinds, list_usable
from talking_points.instructions.files import read_tables
from talking_points.instructions.phrasings import load_phrasings
from talking_points.instructions.point_order import order_points
from talking_points.instructions.regions import MeasuredRegion
from talking_points.instructions.schema import COLUMNS
from talking_points.records import Box, ImageRecord, stable_id
from talking_points.sources.coco_parts import Rle


@dataclass(frozen=True)
class InstructionRow:
    """One row of an instruction dataset; the columns are those of ``schema.COLUMNS``, which says what they mean.

    All four elements of the region are there, whatever is asked. ``image``: the source file's bytes, or None where only
    the reference ``image_path`` is kept. ``mask``: COCO run lengths, ``{"size": [height, width], "counts": str}``.
    ``expression`` is empty where no words mean this region alone. ``part`` is empty for a whole object.
    """

    id: str
    image: bytes | None
    image_id: str
    image_path: str
    image_sha256: str
    width: int
    height: int
    source: str
    split: str
    object: str
    part: str
    region: str
    kind: Kind
    expression: str
    question: str
    answer: str
    mask: Rle
    box: Box
    point: tuple[float, float]
    epsilon: float | None
    points: int
    round_trip_iou: float
    components: int
    holes: int
    flags: tuple[str, ...]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> InstructionRow:
        """From a row of a table that has the columns of the schema."""
        values = {field.name: row[field.name] for field in fields(cls)}
        image = values["image"]
        values["image"] = image["bytes"] if isinstance(image, Mapping) else image
        for name in ("box", "point", "flags"):
            values[name] = tuple(values[name])
        return cls(**values)

    def to_row(self) -> dict[str, Any]:
        """As a row of a table with the columns of the schema."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"image": None if self.image is None else {"bytes": self.image, "path": None}}


def read_instructions(folder: str | Path, split: str | None = None, *, images: bool = True) -> Iterator[InstructionRow]:
    """The rows of a built instruction dataset, a row group in memory at a time.

    ``split``: "train" or "test", or a split of a source that has its own ("val", "testA"); None reads all.
    ``images=False`` leaves the pixels out. Raises ``DatasetError`` for a folder or file that cannot be used, and for a
    split of which there is no row.
    """
    for table in read_tables(Path(folder), split, [name for name in COLUMNS if images or name != "image"]):
        for row in table.to_pylist():
            yield InstructionRow.from_row({"image": None, **row})


@dataclass(frozen=True)
class ImageFacts:
    """What every row says of its image."""

    image_id: str
    image_path: str
    image_sha256: str
    width: int
    height: int
    source: str

    @classmethod
    def of(cls, record: ImageRecord, image_sha256: str) -> ImageFacts:
        return cls(record.image_id, record.relative_path, image_sha256, record.width, record.height, record.source)


def write_rows(
    region: MeasuredRegion, image: ImageFacts, settings: InstructionSettings, seed: int, *, side: str, split: str
) -> list[InstructionRow]:
    """The rows of one region: ``settings.rows`` for each of its expressions, of kinds drawn by the weights of ``side``.

    A region without words gets kinds that need none, one whose mask a box stands in for kinds without outlines; there
    may be no such kind among those wanted.
    """
    phrasings = load_phrasings(settings.phrasings)
    decimals = settings.outlines.decimals
    weights = settings.weights(side)
    rows = []
    for number, expression in enumerate(region.expressions or ("",)):
        usable = {kind: weights[kind] for kind in find_usable(weights, expression, region.flags)}
        elements = {
            "expression": quote_sentence(expression),
            "point": write_point(point_to_unit(*region.point, image.width, image.height), decimals),
            "box": write_box(box_to_unit(region.box, image.width, image.height), decimals),
            "mask": region.outlines,
        }
        key = stable_id(region.region, number, expression)
        for kind in draw_kinds(usable, settings.rows, seed, key):
            identity = stable_id(key, kind)
            if side == "train" and KINDS[kind].answered == "mask":
                elements["mask"] = order_points(region.outlines, settings.order, seed, key)
            question, answer = phrasings.fill(kind, elements, seed, identity, settings.variants)
            rows.append(
                InstructionRow(
                    id=identity,
                    image=None,
                    **vars(image),
                    split=split,
                    object=region.object,
                    part=region.part,
                    region=region.region,
                    kind=kind,
                    expression=expression,
                    question=question,
                    answer=answer,
                    mask=region.mask,
                    box=region.box,
                    point=region.point,
                    epsilon=region.epsilon,
                    points=region.points,
                    round_trip_iou=region.round_trip_iou,
                    components=region.components,
                    holes=region.holes,
                    flags=region.flags,
                )
            )
    return rows


def count_rows(expressions: Sequence[str], flags: Sequence[str], settings: InstructionSettings, side: str) -> int:
    """How many rows ``write_rows`` makes of a region."""
    usable = [find_usable(settings.weights(side), expression, flags) for expression in expressions or ("",)]
    return sum(min(len(kinds), settings.rows) for kinds in usable)


def find_usable(kinds: Iterable[Kind], expression: str, flags: Sequence[str]) -> list[Kind]:
    """The kinds that can be asked about a region with this expression; a whole sentence is no name to answer with."""
    lacking: list[Element] = [] if expression else ["text"]
    if "approximate_mask" in flags:
        lacking.append("mask")
    usable = list_usable(kinds, lacking)
    return [kind for kind in usable if KINDS[kind].answered != "text"] if is_sentence(expression) else usable


def is_sentence(expression: str) -> bool:
    """Whether an expression is a sentence, as descriptions of points are, and no phrase."""
    return expression[:1].isupper() and expression.endswith(".")


def quote_sentence(expression: str) -> str:
    """An expression as it stands inside a question."""
    return f'what is meant by "{expression[:-1]}"' if is_sentence(expression) else expression
