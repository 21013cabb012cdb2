"""The two kinds of datasets, triplets and instructions: what differs when one is checked, copied or described."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from talking_points import dataset_schema
from talking_points.dataset_files import Declared, column_names, labels_of, open_parquet, read_group
from talking_points.dataset_schema import optional_in, triplet_schema
from talking_points.instructions import schema as instructions
from talking_points.instructions.files import NULLABLE, check_table
from talking_points.publishing.card import render_card
from talking_points.publishing.instruction_card import render_instruction_card
from talking_points.records import LABELS, SOURCES


@dataclass(frozen=True)
class DatasetForm:
    """``columns`` are those that every file has, ``declared`` all that it may have; ``options``: those of its writer.

    ``schema_of`` gives the schema of a copy of a file; ``name_sources`` the source of every row of a table; ``schemas``
    are those whose features a reader may find; ``render`` writes the card. ``points`` are the columns of places in the
    image, whose width and height are in ``size``: pixels, in ``shares`` shares of it. ``check`` judges rows of the
    columns ``checked`` further, and raises ``DatasetError``.
    """

    columns: Declared
    declared: Declared
    nullable: Collection[str]
    options: Mapping[str, Any]
    schema_of: Callable[[pq.ParquetFile], pa.Schema]
    name_sources: Callable[[pa.Table], list[str]]
    schemas: tuple[pa.Schema, ...]
    render: Callable[..., str]
    points: tuple[str, ...]
    shares: str | None
    size: tuple[str, str]
    checked: tuple[str, ...]
    check: Callable[[pa.Table, Path], None]

    def columns_in(self, path: Path) -> tuple[str, ...]:
        """The columns that every file must have, and what this one has of the others. Raises ``DatasetError``."""
        found = column_names(path)
        return tuple(name for name in self.declared if name in found or name in self.columns)

    def wrote(self, path: Path) -> bool:
        """Whether a file has the schema that this form writes, by name, type and what it tells its readers.

        Raises ``DatasetError``.
        """
        with open_parquet(path, self.columns_in(path), self.declared) as file:
            own, found = self.schema_of(file), file.schema_arrow
            told = [(schema.metadata or {}).get(b"huggingface") for schema in (own, found)]
            return bool(found.equals(own)) and told[0] == told[1]

    def read_groups(self, path: Path, columns: Collection[str]) -> Iterator[pa.Table]:
        """Rows by row group, checked. Raises ``DatasetError``."""
        with open_parquet(path, columns, self.declared) as file:
            for group in range(file.num_row_groups):
                yield self.read_group(file, group, columns, path)

    def read_group(self, file: pq.ParquetFile, group: int, columns: Collection[str], path: Path) -> pa.Table:
        """One row group of an open file."""
        return read_group(file, group, columns, path, self.declared, self.nullable)


def _name_labels(rows: pa.Table) -> list[str]:
    return [LABELS[number] for number in rows["source"].to_pylist()]


def _name_texts(rows: pa.Table) -> list[str]:
    return [instructions.published_source(name) for name in rows["source"].to_pylist()]


def _render_instructions(manifest: Mapping[str, Any], *, repo: str | None = None, audit: object = None) -> str:
    return render_instruction_card(manifest, repo=repo)


TRIPLETS = DatasetForm(
    columns=dataset_schema.COLUMNS,
    declared=dataset_schema.COLUMNS | dataset_schema.OPTIONAL_COLUMNS,
    nullable=tuple(dataset_schema.OPTIONAL_COLUMNS),
    options=dataset_schema.PARQUET_OPTIONS,
    schema_of=lambda file: triplet_schema(labels_of(file), optional_in(file.schema_arrow.names)),
    name_sources=_name_labels,
    schemas=tuple(
        triplet_schema(labels, further)
        for labels in (SOURCES, LABELS)
        for further in ((), dataset_schema.OPTIONAL_COLUMNS)
    ),
    render=render_card,
    points=("keypoint", "keypoint_normalized"),
    shares="keypoint_normalized",
    size=("image_width", "image_height"),
    checked=("id", "keypoint", "keypoint_normalized", "image_width", "image_height"),
    check=lambda rows, path: None,
)
INSTRUCTIONS = DatasetForm(
    columns=instructions.COLUMNS,
    declared=instructions.COLUMNS,
    nullable=NULLABLE,
    options=instructions.PARQUET_OPTIONS,
    schema_of=lambda file: instructions.INSTRUCTION_SCHEMA,
    name_sources=_name_texts,
    schemas=(instructions.INSTRUCTION_SCHEMA,),
    render=_render_instructions,
    points=("point",),
    shares=None,
    size=("width", "height"),
    checked=("id", "point", "width", "height", "kind", "mask"),
    check=check_table,
)


def form_of(manifest: Mapping[str, Any]) -> DatasetForm:
    """The form of the dataset that a manifest describes."""
    return INSTRUCTIONS if manifest.get("kind") == "instructions" else TRIPLETS
