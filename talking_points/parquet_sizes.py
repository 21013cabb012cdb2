"""How much memory a Parquet file takes when it is read, told before it is decoded.

One long text in a dictionary page may stand in millions of rows: the file and the sizes that it states are small, what
is decoded of it is not.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from talking_points.errors import InputError

ROW_GROUP = 4096 << 20
"""Largest row group, in bytes when unpacked: it is in memory at once."""


class UnpackedSizeError(InputError):
    """A Parquet file would take too much memory."""


def refuse_large(source: Any, columns: Collection[str] | None = None, groups: Collection[int] | None = None) -> None:
    """Raise ``UnpackedSizeError`` where a row group of ``source`` (path or stream) unpacks to over ``ROW_GROUP``.

    Only ``columns`` count. Texts and bytes are decoded once as numbers into their dictionary, and only where what the
    file states of them allows more than the bound.
    """
    with pq.ParquetFile(source) as file:
        metadata = file.metadata
        doubtful = []
        # Arrow aborts the process over a damaged column's own sizes; those of the group are read without harm.
        for group in range(metadata.num_row_groups) if groups is None else groups:
            stated = metadata.row_group(group)
            _refuse(group, max(stated.total_byte_size, stated.num_rows * 8))
            if stated.num_rows * stated.total_byte_size > ROW_GROUP:
                doubtful.append(group)
        names = sorted(name for field in file.schema_arrow if (name := _text_of(field, columns)))
    if not doubtful or not names:
        return
    with pq.ParquetFile(source, read_dictionary=names) as file:
        for group in doubtful:
            _refuse(group, sum(_decoded(file, group, name) for name in names))


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
