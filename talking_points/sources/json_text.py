"""JSON files as other tools write them, made fit for a strict, streaming parser: checked first, mended while reading.

What Python, Windows editors and labelling tools add to JSON: a byte order mark, ``NaN`` and ``Infinity``, integers
beyond 64 bits. What nobody adds by accident: nesting so deep that it exhausts its reader.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from talking_points.regular_files import IrregularFileError, check_regular, open_regular
from talking_points.sources.protocol import SourceError

MAX_DEPTH = 64
"""Brackets inside each other; COCO needs seven."""

NOT_A_NUMBER = "\0NaN"
"""The string that stands for NaN and infinities in a mended file."""

_BLOCK = 1 << 16
_WIDE_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LONG_INTEGER = re.compile(rb"[^.0-9][0-9]{19}")
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|NaN|-?Infinity|(?<![.0-9])-?[0-9]{19,}(?![.0-9eE])|"', re.DOTALL)
_BETWEEN_TOKENS = b",:[]{} \n\r\t"
_LONGEST_TEXT = 1 << 24
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_STEP = np.zeros(256, np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1


@dataclass(frozen=True)
class JsonText:
    """A file that can be parsed.

    ``start``: bytes of its byte order mark; ``mended``: whether it is read through ``MendedReader``.
    """

    path: Path
    start: int
    mended: bool

    def open(self) -> BinaryIO | MendedReader:
        """The file from its first character on."""
        file = open_regular(self.path)
        file.seek(self.start)
        return MendedReader(file) if self.mended else file


def check_json(path: Path) -> JsonText:
    """Look at a file once, without parsing it: some milliseconds a megabyte.

    Raises ``SourceError`` for UTF-16 and UTF-32, for nesting beyond ``MAX_DEPTH``, and for what is no file.
    """
    try:
        check_regular(path)
    except IrregularFileError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}; expected an annotation file") from error
    with open_regular(path) as file:
        start = file.read(4)
        for mark, encoding in _WIDE_BOMS.items():
            if start.startswith(mark) or start[1:2] == b"\0" or (start[:1] == b"\0" and len(start) > 1):
                found = encoding if start.startswith(mark) else "UTF-16 or UTF-32"
                raise SourceError(f"expected JSON in UTF-8 in {path}, found {found}: save it as UTF-8")
        skipped = len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0
        file.seek(skipped)
        deep, odd = _scan(file, path)
        if deep:  # perhaps brackets inside texts: count again without them
            file.seek(skipped)
            _check_depth(file, path)
    return JsonText(path, skipped, odd)


def _scan(file: BinaryIO, path: Path) -> tuple[bool, bool]:
    """Whether brackets nest too deeply, those of texts included; whether there may be numbers that JSON has not.

    Raises ``SourceError`` for bytes of zero, which a file with holes may have terabytes of.
    """
    depth, deep, odd, before = 0, False, False, b""
    while block := file.read(_BLOCK):
        if b"\0" in block:
            raise SourceError(f"expected JSON in {path}, found bytes of zero in it: get the file again")
        deepest, depth = _depth(block, depth)
        deep = deep or deepest > MAX_DEPTH
        if not odd:
            seen = before + block
            odd = b"NaN" in seen or b"Infinity" in seen or _LONG_INTEGER.search(seen) is not None
            before = block[-19:]
        if deep and odd:
            break
    return deep, odd


def _depth(block: bytes, depth: int) -> tuple[int, int]:
    """The deepest nesting inside a block that begins at ``depth``, and that at its end."""
    brackets = np.frombuffer(block.translate(None, _NO_BRACKET), np.uint8)
    if not brackets.size:
        return depth, depth
    depths = depth + np.cumsum(_STEP[brackets], dtype=np.int64)
    return int(depths.max()), int(depths[-1])


def _check_depth(file: BinaryIO, path: Path) -> None:
    depth = 0
    for text in _blocks(file):
        deepest, depth = _depth(_TOKEN.sub(lambda token: b"", text), depth)
        if deepest > MAX_DEPTH:
            raise SourceError(
                f"expected a COCO file in {path}, found brackets nested more than {MAX_DEPTH} deep; "
                "is it the right file?"
            )


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """The file in pieces that do not cut a text or a number in two, unless it is longer than ``_LONGEST_TEXT``."""
    kept = b""
    while block := file.read(max(_BLOCK, len(kept))):  # what goes on for long is not looked at again for each block
        text = kept + block
        cut = _complete(text) if len(text) < _LONGEST_TEXT else len(text)
        kept = text[cut:]
        if cut:
            yield text[:cut]
    if kept:
        yield kept


def _complete(text: bytes) -> int:
    """Length of the part of ``text`` whose tokens are certain to be whole."""
    end = 0
    for token in _TOKEN.finditer(text):
        if token.group() == b'"':  # a text that goes on in the next block
            return token.start()
        if text[token.end() - 1] == ord('"'):
            end = token.end()
    return max(end, *(text.rfind(character, end) + 1 for character in (b"%c" % code for code in _BETWEEN_TOKENS)))


class MendedReader:
    """Reads a JSON file with the numbers that JSON has not turned into texts: ``NaN``, ``Infinity``, big integers.

    Big integers become their digits, so that ids of 64 unsigned bits stay what they are.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pieces = _blocks(file)
        self._ready = b""

    def __enter__(self) -> MendedReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes of the mended text; fewer at its end."""
        while size < 0 or len(self._ready) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._ready += _TOKEN.sub(_mend, piece)
        size = len(self._ready) if size < 0 else size
        given, self._ready = self._ready[:size], self._ready[size:]
        return given


def _mend(token: re.Match[bytes]) -> bytes:
    text = token.group()
    if text[:1] == b'"':
        return text
    if text[-1:] in (b"N", b"y"):
        return b'"\\u0000NaN"'
    digits = text.lstrip(b"-")
    if len(digits) >= 19 and digits.isdigit() and not -(1 << 63) <= _integer(text) < 1 << 63:
        return b'"' + text + b'"'
    return text


def _integer(text: bytes) -> int:
    """The integer, or one that is too large in its place: Python refuses to read thousands of digits."""
    return int(text) if len(text) <= 40 else 1 << 63
