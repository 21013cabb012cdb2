"""What the pages of a Parquet file unpack to, by the pages' own headers: what its footer says of that may be untrue.

Arrow allocates for each page what its header states, and decodes as many values; the footer's sizes and counts, by
which a reader would plan, bind nobody. Format: https://github.com/apache/parquet-format (Thrift's compact protocol).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

FOOTER = 16 << 20
"""Longest footer that is read, in bytes."""
_MOST_PAGES = 200_000
_MOST_COLUMNS, _DEEPEST = 10_000, 50
_HEADER = 16 << 20
"""Longest header of a page, Arrow's own limit."""
_LONGEST_DICTIONARY = 64 << 20
_BYTES, _FIXED_BYTES = 6, 7
_CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_DICTIONARY_CODED, _PREFIX_CODED = (2, 8), 7


@dataclass
class Column:
    """One column of one row group. ``unpacked``: bytes of its pages; ``values``: how many they hold, nulls included.

    ``repeated`` of them each stand for one of up to ``entry`` bytes, which the pages hold once: in a dictionary, or as
    the beginning of the value before (``prefixes``).
    """

    path: str
    kind: int
    codec: int
    start: int
    size: int
    unpacked: int = 0
    values: int = 0
    repeated: int = 0
    entry: int = 0
    prefixes: bool = False
    dictionary: tuple[int, int, int] | None = None

    def expanded(self) -> int:
        """Bytes of the values that stand for others, at most."""
        return self.repeated * self.entry


def read_columns(
    stream: BinaryIO | Any, columns: Collection[str] | None = None, groups: Collection[int] | None = None
) -> Iterator[tuple[int, int, list[Column]]]:
    """Number, stated rows and measured columns of each row group. Raises ``pa.ArrowInvalid`` for what is no Parquet."""
    try:
        yield from _read(stream, columns, groups)
    except (IndexError, KeyError, TypeError, AttributeError, struct.error, UnicodeDecodeError, RecursionError) as error:
        raise pa.ArrowInvalid("its footer or the header of a page is damaged") from error


def longest_entry(stream: BinaryIO | Any, column: Column) -> int:
    """Bytes of the longest value in a column's dictionary, or of all where that cannot be told cheaply."""
    codec = _CODECS.get(column.codec, "")
    if column.kind != _BYTES or column.dictionary is None or codec == "" or column.prefixes:
        return column.entry
    place, packed, unpacked = column.dictionary
    if max(packed, unpacked) > _LONGEST_DICTIONARY:
        return column.entry
    stream.seek(place)
    page = stream.read(packed)
    data = bytes(pa.decompress(page, decompressed_size=unpacked, codec=codec)) if codec else page
    at = longest = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        longest, at = max(longest, length), at + 4 + length
    return longest


def _read(
    stream: Any, columns: Collection[str] | None, groups: Collection[int] | None
) -> Iterator[tuple[int, int, list[Column]]]:
    end = stream.seek(0, 2)
    stream.seek(max(end - 8, 0))
    tail = stream.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length + 12 > end:
        raise pa.ArrowInvalid("it does not end as a Parquet file does")
    if length > FOOTER:
        raise pa.ArrowInvalid(f"its footer has {length:,} bytes, more than the {FOOTER:,} that are read")
    stream.seek(end - 8 - length)
    footer = _Compact(stream.read(length)).struct()
    _check_schema(footer[2])
    left, room = _MOST_PAGES, end
    for number, group in enumerate(footer.get(4) or []):
        chunks = [_column(chunk) for chunk in group[1]]
        room -= sum(chunk.size for chunk in chunks)
        if room < 0:
            raise pa.ArrowInvalid("its columns share their pages, or lie outside of it")
        if groups is not None and number not in groups:
            continue
        wanted = [c for c in chunks if columns is None or c.path.partition(".")[0] in columns]
        for column in wanted:
            left -= _walk(stream, column, end, left)
            if group[3] > column.values:
                raise pa.ArrowInvalid(f"row group {number} states {group[3]:,} rows, its pages have {column.values:,}")
        yield number, group[3], wanted


def _check_schema(elements: list[dict[int, Any]]) -> None:
    """Arrow follows the schema's tree by calls within calls, and of two columns of one name finds neither."""
    if len(elements) > _MOST_COLUMNS:
        raise pa.ArrowInvalid(f"its schema has {len(elements):,} elements, more than {_MOST_COLUMNS:,}")
    open_places: list[int] = []
    names: set[bytes] = set()
    for element in elements:
        while open_places and open_places[-1] == 0:
            open_places.pop()
        if open_places:
            open_places[-1] -= 1
        if len(open_places) == 1:
            if element[4] in names:
                raise pa.ArrowInvalid(f"it has two columns of the name {element[4].decode(errors='replace')[:80]!r}")
            names.add(element[4])
        if children := element.get(5, 0):
            open_places.append(children)
        if len(open_places) > _DEEPEST:
            raise pa.ArrowInvalid(f"its schema is nested deeper than {_DEEPEST}")


def _column(chunk: dict[int, Any]) -> Column:
    known = chunk[3]
    start, dictionary = known[9], known.get(11)
    if dictionary is not None and (0 < dictionary < start or start == 0):  # without values there is no page of data
        start = dictionary
    path = ".".join(part.decode("utf-8") for part in known[3])
    if start < 0 or known[7] < 0:
        raise pa.ArrowInvalid(f"the column {path[:80]} lies outside of it")
    return Column(path, known[1], known[4], start, known[7])


def _walk(stream: Any, column: Column, end: int, most: int) -> int:
    """Measure a column by its pages; returns how many there are."""
    at, stop, pages = column.start, column.start + column.size, 0
    if stop > end:
        raise pa.ArrowInvalid(f"the column {column.path[:80]} lies outside of it")
    while at < stop:
        header, length = _page_header(stream, at, stop)
        unpacked, packed = header[2], header[3]
        pages += 1
        if min(unpacked, packed) < 0 or at + length + packed > stop or pages > most:
            raise pa.ArrowInvalid(f"a page of the column {column.path[:80]} is larger than the column, or one too many")
        column.unpacked += unpacked
        if 7 in header:
            column.dictionary = (at + length, packed, unpacked)
            column.entry = max(column.entry, unpacked)
        for page, encoding in ((header.get(5), 2), (header.get(8), 4)):
            if page is not None:
                column.values += page[1]
                if page[1] < 0:
                    raise pa.ArrowInvalid(f"a page of the column {column.path[:80]} has fewer than no values")
                if column.kind in (_BYTES, _FIXED_BYTES) and page[encoding] in (*_DICTIONARY_CODED, _PREFIX_CODED):
                    column.repeated += page[1]
                    if page[encoding] == _PREFIX_CODED:
                        column.prefixes, column.entry = True, max(column.entry, unpacked)
        at += length + packed
    return pages


def _page_header(stream: Any, at: int, stop: int) -> tuple[dict[int, Any], int]:
    size = 256
    while True:
        stream.seek(at)
        compact = _Compact(stream.read(min(size, stop - at)))
        try:
            return compact.struct(), compact.at
        except IndexError:
            if size >= min(_HEADER, stop - at):
                raise
            size *= 16  # statistics may be long


class _Compact:
    """Thrift's compact protocol, without names: a structure is its values by the numbers of the fields.

    ``IndexError`` where it ends too early. A field that is there twice is refused: of these readers disagree.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.depth = data, 0, 0

    def struct(self) -> dict[int, Any]:
        found: dict[int, Any] = {}
        number = 0
        self.depth += 1
        if self.depth > _DEEPEST:
            raise RecursionError
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._whole()
            if number in found:
                raise KeyError(number)
            kind = head & 15
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        self.depth -= 1
        return found

    def _value(self, kind: int) -> Any:
        if kind in (4, 5, 6):
            return self._whole()
        if kind == 8:
            return self._take(self._varint())
        if kind == 12:
            return self.struct()
        if kind in (9, 10):
            return self._list()
        if kind == 7:
            return self._take(8)
        if kind in (1, 2, 3):  # in a list, a truth value is a byte
            return self._byte()
        raise KeyError(kind)  # no field of the format is a map

    def _list(self) -> list[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        if count > len(self.data) - self.at:
            raise IndexError
        self.depth += 1
        if self.depth > _DEEPEST:
            raise RecursionError
        found = [self._value(head & 15) for _ in range(count)]
        self.depth -= 1
        return found

    def _byte(self) -> int:
        value = self.data[self.at]
        self.at += 1
        return value

    def _take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise IndexError
        self.at += count
        return self.data[self.at - count : self.at]

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise KeyError("a number of more than ten bytes")

    def _whole(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
