"""A Parquet file is refused by what its pages hold, before Arrow reads it; what its footer says may be untrue."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from talking_points import parquet_pages, parquet_sizes
from talking_points.dataset_files import DatasetError, column_names, open_parquet, read_texts
from talking_points.parquet_pages import read_columns
from tasks.running.storage import Storage

LARGE = 20 << 20


def varint(value: int, length: int = 0) -> bytes:
    """A whole number in Thrift's compact protocol, filled up to ``length`` bytes."""
    value, found = value << 1, list[int]()
    while value or len(found) < max(length, 1):
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found[:-1], found[-1] & 127])


def lie(path: Path, said: int, instead: int) -> None:
    """Let the footer state another number."""
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer = content[start:]
    assert varint(said) in footer
    path.write_bytes(content[:start] + footer.replace(varint(said), varint(instead, len(varint(said)))))


def sizes_are_untrue(path: Path) -> None:
    pq.write_table(pa.table({"text": ["x" * LARGE, "y"]}), path, compression="zstd", use_dictionary=False)
    group = pq.ParquetFile(path).metadata.row_group(0)
    for size in {group.total_byte_size, group.column(0).total_uncompressed_size}:
        lie(path, size, 10)
    assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size == 10


def values_are_many(path: Path) -> None:
    """Ten million numbers of one row, which take a few bytes."""
    pq.write_table(pa.table({"text": [[0.5] * (LARGE // 8 + 1)]}), path, compression="zstd")


def rows_are_untrue(path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"] * 200_000}), path)
    lie(path, 200_000, 1_000_000)


def prefixes_repeat(path: Path) -> None:
    """Each text is said to begin as the one before: a short file with long texts."""
    table = pa.table({"text": ["x" * (1 << 20) + str(number) for number in range(30)]})
    encodings = {"text": "DELTA_BYTE_ARRAY"}
    pq.write_table(table, path, compression="zstd", use_dictionary=False, column_encoding=encodings)


def schema_is_deep(path: Path) -> None:
    footer = b"\x15\x02" + b"\x19\xfc" + _length(60_000) + b"\x48\x01a\x15\x02\x00" * 60_000 + b"\x16\x00\x19\x0c\x00"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def _length(count: int) -> bytes:
    return bytes([count & 127 | 128, count >> 7 & 127 | 128, count >> 14])


def footer_is_long(path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"]}, metadata={"a": "x" * 5_000}), path)


def two_columns_have_one_name(path: Path) -> None:
    pq.write_table(pa.table([pa.array(["x"]), pa.array([1])], ["text", "text"]), path)


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "sizes": (sizes_are_untrue, "unpacks to"),
    "values": (values_are_many, "unpacks to"),
    "rows": (rows_are_untrue, "states 1,000,000 rows"),
    "prefixes": (prefixes_repeat, "unpacks to"),
    "schema": (schema_is_deep, "schema"),
    "names": (two_columns_have_one_name, "two columns of the name 'text'"),
    "footer": (footer_is_long, "more than the 4,000 that are read"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_a_footer_says_binds_nobody(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_sizes, "ROW_GROUP", 10 << 20)
    path = tmp_path / "x.parquet"
    if name == "footer":
        monkeypatch.setattr(parquet_pages, "FOOTER", 4_000)
    write, problem = FILES[name]
    write(path)
    assert path.stat().st_size < 2_000_000
    start = time.process_time()
    for read in (
        lambda: read_texts(path, ["text"]),
        lambda: open_parquet(path, ["text"]).__enter__(),
        lambda: Storage(tmp_path).read_table("x.parquet", ["text"]),
    ):
        with pytest.raises((DatasetError, pa.ArrowInvalid, parquet_sizes.UnpackedSizeError), match=problem):
            read()
    assert time.process_time() - start < 20
    if name in ("schema", "names", "footer"):
        with pytest.raises(DatasetError, match=problem):
            column_names(path)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_files_of_other_writers_are_measured_as_they_are(tmp_path: Path, version: str, compression: str) -> None:
    path = tmp_path / "x.parquet"
    texts = [f"text {number % 50}" * 20 if number % 9 else None for number in range(5_000)]
    table = pa.table({"text": texts, "list": [[1.0, 2.0]] * 5_000, "number": list(range(5_000))})
    pq.write_table(table, path, row_group_size=1_000, compression=compression, data_page_version=version)
    with path.open("rb") as stream:
        found = list(read_columns(stream))
        stated = pq.ParquetFile(path).metadata
        for group, rows, columns in found:
            assert rows == 1_000
            for number, column in enumerate(columns):
                known = stated.row_group(group).column(number)
                assert column.values == known.num_values
                # The footer counts the headers of the pages too.
                assert 0.5 * known.total_uncompressed_size < column.unpacked <= known.total_uncompressed_size
            text = columns[0]
            assert text.repeated == 1_000
            if compression != "lz4":
                assert parquet_pages.longest_entry(stream, text) == max(len(one) for one in texts if one)
    assert Storage(tmp_path).read_table("x.parquet").equals(table)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zstd"}, {"use_dictionary": False}, {"data_page_version": "2.0"}]
)
def test_a_table_without_rows_is_read(options: dict[str, Any]) -> None:
    table = pa.table({"text": pa.array([], pa.string()), "number": pa.array([], pa.int64())})
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    stream.seek(0)
    parquet_sizes.refuse_large(stream)
