"""The header of a GGUF file, gone through before a library written in C opens the file.

Such a library multiplies and allocates what the header says; numbers that no file can hold have let files run code in
it (CVE-2024-23496, CVE-2024-21802, CVE-2025-53630 among others). Needs no other package.
"""

from __future__ import annotations

import struct
from io import BufferedReader
from pathlib import Path

from talking_points.errors import InputError
from talking_points.regular_files import open_regular

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the types of single values, by their number."""
_TEXT, _LIST = 8, 9
_LARGEST = {"tensors": 1 << 16, "settings": 1 << 14, "bytes of a text": 16 << 20, "entries of a list": 1 << 23}
_NAME, _DIMENSIONS = 64, 4
_ENTRIES = {b"tokenizer.ggml.scores": (6,), b"tokenizer.ggml.token_type": (4, 5)}
"""Types of the entries of lists that libraries read without a look at the type."""


class _HeaderError(ValueError):
    """What is wrong, in words."""


def check_gguf(path: str | Path) -> None:
    """Refuse a file whose header says what its bytes cannot hold. Raises ``InputError`` with the path, ``OSError``."""
    try:
        with open_regular(path) as stream:
            _check(stream, Path(path).stat().st_size)
    except (_HeaderError, struct.error) as error:
        reason = "the header was cut off" if isinstance(error, struct.error) else str(error)
        raise InputError(
            f"{path}: expected a whole GGUF file, found that {reason}: it is not opened; download it again"
        ) from None


def _check(stream: BufferedReader, size: int) -> None:
    if stream.read(4) != b"GGUF":
        raise _HeaderError("it does not begin with GGUF")
    version, tensors, settings = _number(stream, "<I"), _number(stream, "<Q"), _number(stream, "<Q")
    if version not in (2, 3):
        raise _HeaderError(f"its version is {version}, not 2 or 3 (a file of the other byte order is not read)")
    _bounded(tensors, "tensors")
    _bounded(settings, "settings")
    keys = set()
    for _ in range(settings):
        key = _text(stream)
        keys.add(key)
        _skip(stream, _number(stream, "<I"), size, _ENTRIES.get(key))
    if len(keys) < settings:
        raise _HeaderError("it has a setting twice")
    ends = [_tensor(stream, size) for _ in range(tensors)]
    if len({name for name, _, _ in ends}) < tensors:
        raise _HeaderError("it has a tensor twice")
    left = size - stream.tell()
    for name, numbers, start in ends:
        # The smallest formats have more than one bit for a number.
        if start > left or numbers > 8 * (left - start):
            raise _HeaderError(f"its tensor {name[:_NAME]!a} goes on beyond its end")


def _tensor(stream: BufferedReader, size: int) -> tuple[bytes, int, int]:
    """Name, how many numbers, and where they begin after the header."""
    name, dimensions = _text(stream), _number(stream, "<I")
    if not name or len(name) > _NAME or not 1 <= dimensions <= _DIMENSIONS:
        raise _HeaderError(f"it has a tensor {name[:_NAME]!a} of {dimensions} dimensions")
    numbers = 1
    for _ in range(dimensions):
        numbers *= _number(stream, "<Q")
    _number(stream, "<I")
    if not 1 <= numbers <= 8 * size:
        raise _HeaderError(f"its tensor {name!a} has {numbers:,} numbers")
    return name, numbers, _number(stream, "<Q")


def _skip(stream: BufferedReader, kind: int, size: int, entries: tuple[int, ...] | None) -> None:
    """Go over one value, which is a list of such ``entries`` where there are any."""
    if entries and kind != _LIST:
        raise _HeaderError(f"it has a value of the type {kind} in the place of a list")
    if kind == _TEXT:
        _text(stream)
    elif kind == _LIST:
        item, count = _number(stream, "<I"), _number(stream, "<Q")
        _bounded(count, "entries of a list")
        if entries and item not in entries:
            raise _HeaderError(f"it has a list of the type {item} in the place of another")
        if item == _TEXT:
            for _ in range(count):
                _text(stream)
        elif item in _SIZES:
            _over(stream, count * _SIZES[item], size)
        else:
            raise _HeaderError(f"it has a list of the type {item}")
    elif kind in _SIZES:
        _over(stream, _SIZES[kind], size)
    else:
        raise _HeaderError(f"it has a value of the type {kind}")


def _over(stream: BufferedReader, count: int, size: int) -> None:
    if stream.tell() + count > size:
        raise _HeaderError("the header was cut off")
    stream.seek(count, 1)


def _number(stream: BufferedReader, form: str) -> int:
    return int(struct.unpack(form, stream.read(struct.calcsize(form)))[0])


def _text(stream: BufferedReader) -> bytes:
    length = _number(stream, "<Q")
    _bounded(length, "bytes of a text")
    found = stream.read(length)
    if len(found) < length:
        raise _HeaderError("the header was cut off")
    return found


def _bounded(count: int, of: str) -> None:
    if count > _LARGEST[of]:
        raise _HeaderError(f"it has {count:,} {of}, more than {_LARGEST[of]:,}")
