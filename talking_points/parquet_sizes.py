"""How much memory a Parquet file takes when it is read, told before it is decoded.

A page may unpack to gigabytes, and one long text in a dictionary page may stand in millions of rows: the file and the
sizes that its footer states are small, what is decoded of it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from talking_points.errors import InputError
from talking_points.parquet_pages import Column, longest_entry, read_columns
from talking_points.regular_files import open_regular

ROW_GROUP = 4096 << 20
"""Largest row group, in bytes when unpacked: it is in memory at once."""


class UnpackedSizeError(InputError):
    """A Parquet file would take too much memory."""


def refuse_large(source: Any, columns: Collection[str] | None = None, groups: Collection[int] | None = None) -> None:
    """Raise ``UnpackedSizeError`` where a row group of ``source`` (path or stream) unpacks to over ``ROW_GROUP``.

    Only ``columns`` count. Nothing that the footer says of sizes is believed. Texts and bytes are decoded once as
    numbers into their dictionary, and only where the pages allow more than the bound. Raises ``pa.ArrowInvalid`` for
    what is no Parquet file.
    """
    with open_regular(source) if isinstance(source, str | Path) else nullcontext(source) as stream:
        doubtful: dict[int, tuple[int, list[Column]]] = {}
        for group, rows, measured in read_columns(stream, columns, groups):
            plain = sum(column.unpacked + 8 * column.values for column in measured)
            _refuse(group, max(plain, 8 * rows))
            if plain + sum(column.expanded() for column in measured) > ROW_GROUP:
                for column in measured:
                    column.entry = longest_entry(stream, column)
            if plain + sum(column.expanded() for column in measured) > ROW_GROUP:
                doubtful[group] = plain, [column for column in measured if column.repeated]
    if doubtful:
        if not isinstance(source, str | Path):
            source.seek(0)
        _decode(source, doubtful, columns)


def check_footer(source: Any) -> None:
    """Before Arrow opens ``source`` (path or stream): its footer is no longer, wider or deeper than is read.

    Raises ``pa.ArrowInvalid``.
    """
    refuse_large(source, groups=())
    if not isinstance(source, str | Path):
        source.seek(0)


def _decode(source: Any, doubtful: Mapping[int, tuple[int, list[Column]]], columns: Collection[str] | None) -> None:
    """Count what the columns that repeat values take, value by value; what cannot be counted so, at its most."""
    with pq.ParquetFile(source) as file:
        names = {name for field in file.schema_arrow if (name := _text_of(field, columns))}
    with pq.ParquetFile(source, read_dictionary=sorted(names)) as file:
        for group, (plain, repeating) in doubtful.items():
            counted = [column for column in repeating if column.path in names and not column.prefixes]
            at_most = plain + sum(column.expanded() for column in repeating if column not in counted)
            _refuse(group, at_most)
            _refuse(group, at_most + sum(_decoded(file, group, column.path) for column in counted))


def _text_of(field: Any, columns: Collection[str] | None) -> str | None:
    """The path of a column of texts or bytes that counts; of a struct, that of its bytes."""
    if columns is not None and field.name not in columns:
        return None
    if pa.types.is_struct(field.type):
        return f"{field.name}.bytes" if field.type.get_field_index("bytes") >= 0 else None
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return field.name if any(is_kind(field.type) for is_kind in kinds) else None


def _decoded(file: pq.ParquetFile, group: int, name: str) -> int:
    """Bytes of a column's values when each stands for itself."""
    total = 0
    for batch in file.iter_batches(batch_size=4096, row_groups=[group], columns=[name], use_threads=False):
        column = batch.column(0)
        column.validate(full=True)  # a damaged file may point beyond its dictionary
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, name.partition(".")[2])
        if pa.types.is_dictionary(column.type):
            lengths = pc.binary_length(column.dictionary)
            total += pc.sum(lengths.cast(pa.int64()).take(column.indices)).as_py() or 0
        else:
            total += column.nbytes
        _refuse(group, total)
    return total


def _refuse(group: int, size: int) -> None:
    if not 0 <= size <= ROW_GROUP:
        raise UnpackedSizeError(
            f"row group {group} unpacks to {size:,} bytes or more, over the {ROW_GROUP:,} that are read"
        )
