"""The header of a GGUF file, gone through before a library written in C opens the file.

Such a library multiplies and allocates what the header says; numbers that no file can hold have let files run code in
it (CVE-2024-23496, CVE-2024-21802, CVE-2025-53630 among others). Needs no other package.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path

from talking_points.errors import InputError
from talking_points.regular_files import open_regular

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the types of single values, by their number."""
_UINT32, _TEXT, _LIST = 4, 8, 9
_LARGEST = {"tensors": 1 << 16, "settings": 1 << 14, "bytes of a text": 16 << 20, "entries of a list": 1 << 23}
_NAME, _DIMENSIONS = 64, 4
_TOKENS, _KINDS, _ALIGNMENT = b"tokenizer.ggml.tokens", b"tokenizer.ggml.token_type", b"general.alignment"
_ENTRIES = {
    _TOKENS: (_TEXT,),
    _KINDS: (4, 5),
    b"tokenizer.ggml.scores": (6,),
    b"tokenizer.ggml.precompiled_charsmap": (0, 1),
}
"""Types of the entries of lists that libraries read without a look at the type."""
_OF_TOKENS = (_KINDS, b"tokenizer.ggml.scores")
"""Lists of which libraries read as many entries as there are tokens."""
_BYTE, _BYTE_KIND = re.compile(rb"<0x[0-9A-Fa-f]{2}>"), 6
"""What a token looks like that stands for a byte: libraries read its number without a look."""


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
    keys: dict[bytes, bytes | int | None] = {}
    for _ in range(settings):
        key, kind = _text(stream), _number(stream, "<I")
        if key == _ALIGNMENT:
            keys[key] = _alignment(stream, kind)
        else:
            keys[key] = _skip(stream, kind, size, _ENTRIES.get(key), told=key in (_TOKENS, *_OF_TOKENS))
    if len(keys) < settings:
        raise _HeaderError("it has a setting twice")
    _check_tokens(keys)
    ends = [_tensor(stream, size) for _ in range(tensors)]
    if len({name for name, _, _ in ends}) < tensors:
        raise _HeaderError("it has a tensor twice")
    if len({start for _, _, start in ends}) < tensors:
        raise _HeaderError("two of its tensors begin at one place")
    step = keys.get(_ALIGNMENT) or 32
    assert isinstance(step, int)
    left = size - -(-stream.tell() // step) * step
    for name, numbers, start in ends:
        if start % step:
            raise _HeaderError(f"its tensor {name[:_NAME]!a} does not begin at a multiple of {step} bytes")
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


def _alignment(stream: BufferedReader, kind: int) -> int:
    """Libraries divide by it."""
    found = _number(stream, "<I") if kind == _UINT32 else 0
    if not 1 <= found <= 1 << 16 or found & (found - 1):
        raise _HeaderError(f"its alignment is {found} of the type {kind}, no power of two")
    return found


def _check_tokens(keys: Mapping[bytes, bytes | int | None]) -> None:
    """What is told of tokens is told of each, and tokens that stand for a byte say which."""
    marks = keys.get(_TOKENS)
    if not isinstance(marks, bytes):
        marks = b""
    for key in _OF_TOKENS:
        content = keys.get(key)
        if isinstance(content, bytes) and len(content) != 4 * len(marks):
            raise _HeaderError(f"it has {len(content) // 4:,} entries in {key.decode()} for {len(marks):,} tokens")
    kinds = keys.get(_KINDS)
    if isinstance(kinds, bytes):
        for place, (kind,) in enumerate(struct.iter_unpack("<I", kinds)):
            if kind == _BYTE_KIND and not marks[place]:
                raise _HeaderError(f"its token {place} stands for a byte and does not say which, as <0x0A> does")


def _skip(stream: BufferedReader, kind: int, size: int, entries: tuple[int, ...] | None, *, told: bool) -> bytes | None:
    """Go over one value, which is a list of such ``entries`` where there are any.

    Of a list that is ``told``, its content; of texts which of them stand for a byte, each by ``_BYTE_KIND`` or 0.
    """
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
            marks = bytearray(count if told else 0)
            for at in range(count):
                text = _text(stream)
                if told and _BYTE.fullmatch(text):
                    marks[at] = _BYTE_KIND
            return bytes(marks)
        if item in _SIZES:
            start = stream.tell()
            _over(stream, count * _SIZES[item], size)
            if told:
                stream.seek(start)
                return stream.read(count * _SIZES[item])
        else:
            raise _HeaderError(f"it has a list of the type {item}")
    elif kind in _SIZES:
        _over(stream, _SIZES[kind], size)
    else:
        raise _HeaderError(f"it has a value of the type {kind}")
    return None


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
