"""How much memory a Parquet file takes when it is read, told before it is decoded.

One long text in a dictionary page may stand in millions of rows: the file and the sizes that it states are small, what
is decoded of it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from talking_points.errors import InputError

ROW_GROUP = 4096 << 20
"""Largest row group, in bytes when unpacked: it is in memory at once."""
_BYTES = "BYTE_ARRAY"


class UnpackedSizeError(InputError):
    """A Parquet file would take too much memory."""


def refuse_large(source: Any, columns: Collection[str] | None = None, groups: Collection[int] | None = None) -> None:
    """Raise ``UnpackedSizeError`` where a row group of ``source`` (path or stream) unpacks to over ``ROW_GROUP``.

    Only ``columns`` count. Texts and bytes are decoded once as numbers into their dictionary, and only where what the
    file states of them allows more than the bound.
    """
    with pq.ParquetFile(source) as file:
        metadata = file.metadata
        chosen = range(metadata.num_row_groups) if groups is None else groups
        doubtful: dict[int, list[str]] = {}
        for group in chosen:
            found = [item for item in _chunks(metadata.row_group(group)) if _is_wanted(item, columns)]
            stated = sum(max(item.num_values * 8, item.total_uncompressed_size) for item in found)
            _refuse(group, stated)
            texts = [item for item in found if item.physical_type == _BYTES]
            if stated + sum(item.num_values * item.total_uncompressed_size for item in texts) > ROW_GROUP:
                doubtful[group] = [item.path_in_schema for item in texts]
    if not doubtful:
        return
    names = sorted({name for texts in doubtful.values() for name in texts if "." not in name or name == "image.bytes"})
    with pq.ParquetFile(source, read_dictionary=names) as file:
        for group, texts in doubtful.items():
            _refuse(group, sum(_decoded(file, group, name) for name in texts if name in names))


def _is_wanted(chunk: Any, columns: Collection[str] | None) -> bool:
    return columns is None or chunk.path_in_schema.partition(".")[0] in columns


def _chunks(group: Any) -> Iterator[Any]:
    for number in range(group.num_columns):
        yield group.column(number)


def _decoded(file: pq.ParquetFile, group: int, name: str) -> int:
    """Bytes of a column's values when each stands for itself."""
    total = 0
    for batch in file.iter_batches(batch_size=4096, row_groups=[group], columns=[name], use_threads=False):
        column = batch.column(0)
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
