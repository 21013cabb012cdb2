"""Rows of single images, without a build."""

from __future__ import annotations

import pyarrow as pa

from talking_points.image_files import FILE_BYTES
from talking_points.instructions.config import InstructionSettings
from talking_points.instructions.regions import Dropped, measure_regions
from talking_points.instructions.rows import ImageFacts, InstructionRow, write_rows
from talking_points.records import ImageRecord
from talking_points.whole_files import file_sha256


def make_rows(
    record: ImageRecord,
    settings: InstructionSettings | None = None,
    seed: int = 0,
    *,
    side: str = "train",
    image_sha256: str | None = None,
) -> tuple[list[InstructionRow], list[Dropped]]:
    """The rows of one annotated image, without pixels, and the regions that give none, with their reasons.

    ``side``: "train", or another for the kinds of questions of evaluation; it becomes the rows' split. What is drawn
    depends on ``seed`` and the region alone. ``image_sha256``: digest of the image's file, which is read without it.
    """
    settings = settings or InstructionSettings()
    digest = file_sha256(record.image_path, FILE_BYTES) if image_sha256 is None else image_sha256
    image = ImageFacts.of(record, digest)
    rows: list[InstructionRow] = []
    dropped: list[Dropped] = []
    for found in measure_regions(record, settings, seed):
        if isinstance(found, Dropped):
            dropped.append(found)
            continue
        written = write_rows(found, image, settings, seed, side=side, split=side)
        rows += written
        if not written:
            dropped.append(Dropped(found.region, found.object, "no_text", "no kind of question does without"))
    return rows, dropped


def instruction_table(rows: list[InstructionRow], schema: pa.Schema) -> pa.Table:
    """Rows as a table."""
    return pa.Table.from_pylist([row.to_row() for row in rows], schema=schema)
