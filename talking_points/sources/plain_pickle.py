"""Pickle files of plain data, read without a way to run anything.

Datasets of the time of Python 2 come as pickles, and a pickle is a program: the standard unpickler, even one that
allows no global, takes memory for any memo number that a file names and hashes what it is told to. This reader knows
the instructions that build numbers, texts, lists, tuples and mappings, of protocols 0 to 5, and refuses all others;
time and memory stay in proportion to the file. Byte strings of Python 2 become text by latin-1.

A list is read entry by entry (``stream_plain``): a first pass over the file looks at every instruction and notes where
each remembered value is asked for last, a second one builds the entries and forgets what nobody asks for again. A
writer fills a list by single entries (protocol 0) or by a thousand at once (1 to 5); no more than that is held.
"""

from __future__ import annotations

import codecs
import pickletools
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import IO, Any


class UnsafePickleError(ValueError):
    """The pickle does more than build plain data, or is damaged: says what was found, and where."""


class NoListError(ValueError):
    """The pickle describes something else than a list: says of which type."""


_CONSTANTS: dict[int, Any] = {ord("N"): None, 0x88: True, 0x89: False}
_NUMBERS = {ord("K"): (1, "<B"), ord("M"): (2, "<H"), ord("J"): (4, "<i"), ord("G"): (8, ">d")}
_TEXTS = {
    0x8C: (1, "utf-8"),
    ord("X"): (4, "utf-8"),
    0x8D: (8, "utf-8"),
    ord("U"): (1, "latin-1"),
    ord("T"): (4, "latin-1"),
    ord("C"): (1, "latin-1"),
    ord("B"): (4, "latin-1"),
    0x8E: (8, "latin-1"),
}
"""Instruction -> (bytes of the length, encoding)."""

_LONG_INTEGERS = {0x8A: 1, 0x8B: 4}
_STORES = {ord("q"): 1, ord("r"): 4}
_RECALLS = {ord("h"): 1, ord("j"): 4}
_SHORT_TUPLES = {ord(")"): 0, 0x85: 1, 0x86: 2, 0x87: 3}
_SKIPPED = {0x80: 1, 0x95: 8}
"""Protocol and frame, with the bytes of their argument."""

_LINES = frozenset(b"SVILFpg")
_MEMOIZE, _STOP = 0x94, ord(".")
_BARE = frozenset(b"(uesa}]0dlt12") | _CONSTANTS.keys() | _SHORT_TUPLES.keys() | {_MEMOIZE, _STOP}
"""Instructions without an argument."""

_ROOM = 1 << 16
"""Bytes of the file that are held, and as many more as one value takes."""

_KEYS = (str, int, float, type(None))


def load_plain(data: bytes) -> Any:
    """The object that a pickle of plain data describes. Raises ``UnsafePickleError`` for anything else."""
    with _telling(_Window(BytesIO(data))) as window:
        machine = _Machine(window, _find_last_uses(window))
        while machine.step():
            pass
        return machine.stack[-1]


def stream_plain(file: IO[bytes]) -> Iterator[Any]:
    """The entries of the list that a pickle of plain data describes, one after the other; ``file`` can seek.

    Raises ``UnsafePickleError`` as ``load_plain`` does, before the first entry for an instruction that is no plain data
    and for a file that ends early, and ``NoListError`` at the end where the pickle describes something else.
    """
    with _telling(_Window(file)) as window:
        machine = _Machine(window, _find_last_uses(window), streams=True)
    more = True
    while more:
        with _telling(window):
            while more and not machine.entries:
                more = machine.step()
            described = machine.root if more else machine.stack[-1]
        entries, machine.entries = machine.entries, []
        yield from entries
        entries = []  # not held beside the next thousand
    if described is None or described is not machine.root:
        raise NoListError(type(described).__name__)


@contextmanager
def _telling(window: _Window) -> Iterator[_Window]:
    """Says of what a damaged file leads to where it is damaged."""
    try:
        yield window
    except UnsafePickleError:
        raise
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise UnsafePickleError(f"damaged at byte {window.place} of {window.size}: {error!r:.120}") from error


def _find_last_uses(window: _Window) -> dict[int, int]:
    """Number of each value that is asked for again -> place behind the last request; the window goes back to its start.

    Raises ``UnsafePickleError`` for an instruction that is no plain data.
    """
    uses: dict[int, int] = {}
    ways = set()
    code = -1
    while code != _STOP:
        code = window.byte()
        if code in _TEXTS:
            window.skip(window.number(_TEXTS[code][0]))
        elif code in _STORES:
            ways.add(False)
            window.skip(_STORES[code])
        elif code in _BARE:
            if code == _MEMOIZE:
                ways.add(True)
        elif code in _NUMBERS:
            window.skip(_NUMBERS[code][0])
        elif code in _RECALLS:
            number = window.number(_RECALLS[code])
            uses[number] = window.place
        elif code in _LINES:
            line = window.line()
            if code == ord("g"):
                uses[int(line[:20])] = window.place
            elif code == ord("p"):
                ways.add(False)
        elif code in _LONG_INTEGERS:
            window.skip(window.number(_LONG_INTEGERS[code]))
        elif code in _SKIPPED:
            window.skip(_SKIPPED[code])
        else:
            raise UnsafePickleError(f"found {_name(code, window)}, which is no plain data")
    if len(ways) > 1:
        raise ValueError("values remembered both in turn and by number")
    window.rewind()
    return uses


def _name(code: int, window: _Window) -> str:
    """The instruction that was just read, with the object that it calls for if it names one."""
    place = window.place - 1
    known = {ord(operation.code): operation for operation in pickletools.opcodes}.get(code)
    named = window.peek(1000).split(b"\n", 2)[:2] if code in b"ci" else []
    words = [known.name if known else f"{code:#x}", *(ascii(name.decode("latin-1")[:60]) for name in named)]
    return f"{' '.join(words)} at byte {place}"


class _Window:
    """A file, read forwards through a window of its bytes. What goes beyond its end raises ``IndexError``."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = file.seek(0, 2)
        self.rewind()

    def rewind(self) -> None:
        self.file.seek(0)
        self.data, self.at, self.start = b"", 0, 0

    @property
    def place(self) -> int:
        """Of the next byte in the file."""
        return self.start + self.at

    def byte(self) -> int:
        if self.at >= len(self.data):
            self._hold(1)
        self.at += 1
        return self.data[self.at - 1]

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            self._hold(size)
            end = size
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, size: int) -> int:
        """An unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def skip(self, size: int) -> None:
        if self.at + size > len(self.data):
            if self.place + size > self.size:
                raise IndexError(f"{size} more bytes announced")
            self.start, self.at, self.data = self.file.seek(self.place + size), 0, b""
        else:
            self.at += size

    def line(self) -> bytes:
        """Up to the next end of a line, without it."""
        end = self.data.find(b"\n", self.at)
        held = 0
        while end < 0:
            seen, held = len(self.data) - self.at, max(2 * held, _ROOM)
            if self.place + seen >= self.size:
                raise ValueError("a line without an end")
            self._hold(min(seen + held, self.size - self.place))
            end = self.data.find(b"\n", seen)
        taken = self.data[self.at : end]
        self.at = end + 1
        return taken

    def peek(self, size: int) -> bytes:
        """What stands ahead, up to ``size`` bytes."""
        if self.at + size > len(self.data):
            self._hold(min(size, self.size - self.place))
        return self.data[self.at : self.at + size]

    def _hold(self, size: int) -> None:
        """Let the window begin here and reach over ``size`` bytes at least."""
        if self.place + size > self.size:
            raise IndexError(f"{size} more bytes announced")
        left = self.data[self.at :]
        self.start, self.at = self.place, 0
        self.data = left + self.file.read(max(size - len(left), _ROOM))
        if len(self.data) < size:
            raise IndexError("the file became shorter")


class _Machine:
    """Builds what the instructions say. With ``streams`` what would fill the lowest list goes to ``entries``."""

    def __init__(self, window: _Window, last_uses: Mapping[int, int], streams: bool = False) -> None:
        self.window = window
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.entries: list[Any] = []
        self.root: list[Any] | None = None
        self._last_uses, self._streams, self._memoized = last_uses, streams, 0

    def step(self) -> bool:
        """Carry out one instruction; False at the end of the program."""
        window = self.window
        code = window.byte()
        if code in _TEXTS:
            size, encoding = _TEXTS[code]
            self.stack.append(window.take(window.number(size)).decode(encoding, "surrogatepass"))
        elif code in _STORES:
            self._remember(window.number(_STORES[code]))
        elif code in _RECALLS:
            self._recall(window.number(_RECALLS[code]))
        elif code in _NUMBERS:
            size, layout = _NUMBERS[code]
            self.stack.append(struct.unpack(layout, window.take(size))[0])
        elif code == ord("("):
            self.marks.append(len(self.stack))
        elif code in b"ue":
            self._fill(self._since_mark(), code == ord("u"))
        elif code in b"sa":
            count = 2 if code == ord("s") else 1
            items = self.stack[-count:]
            del self.stack[-count:]
            self._fill(items, code == ord("s"))
        elif code in b"}]":
            self._push_holder({} if code == ord("}") else [])
        elif code == _MEMOIZE:
            self._remember(self._memoized)
            self._memoized += 1
        elif code in _LINES:
            self._line(chr(code))
        elif code == _STOP:
            return False
        else:
            self._rare(code)
        return True

    def _rare(self, code: int) -> None:
        if code in _CONSTANTS:
            self.stack.append(_CONSTANTS[code])
        elif code in _SHORT_TUPLES:
            first = len(self.stack) - _SHORT_TUPLES[code]
            self.marks.append(first)
            self.stack.append(tuple(self._since_mark()))
        elif code in b"lt":
            items = self._since_mark()
            if code == ord("t"):
                self.stack.append(tuple(items))
            else:
                self._push_holder([])
                self._fill(items, False)
        elif code == ord("d"):
            items = self._since_mark()
            self.stack.append({})
            self._fill(items, True)
        elif code in _LONG_INTEGERS:
            taken = self.window.take(self.window.number(_LONG_INTEGERS[code]))
            self.stack.append(int.from_bytes(taken, "little", signed=True))
        elif code in _SKIPPED:
            self.window.skip(_SKIPPED[code])
        elif code == ord("0"):
            self.stack.pop()
        elif code == ord("1"):
            self._since_mark()
        elif code == ord("2"):
            self.stack.append(self.stack[-1])
        else:
            raise UnsafePickleError(f"found {_name(code, self.window)}, which is no plain data")

    def _remember(self, number: int) -> None:
        value = self.stack[-1]
        if self._last_uses.get(number, -1) > self.window.place:
            self.memo[number] = value

    def _recall(self, number: int) -> None:
        self.stack.append(self.memo[number])
        if self._last_uses[number] == self.window.place:
            del self.memo[number]

    def _push_holder(self, holder: Any) -> None:
        if not self.stack and self.root is None and isinstance(holder, list):
            self.root = holder
        self.stack.append(holder)

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        if not 0 <= start <= len(self.stack):
            raise IndexError("too few values")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _fill(self, items: list[Any], pairs: bool) -> None:
        """Put items into the list, or pairs of key and value into the mapping, on top of the stack."""
        holder = self.stack[-1]
        if not pairs and isinstance(holder, list):
            (self.entries if self._streams and holder is self.root else holder).extend(items)
        elif pairs and isinstance(holder, dict) and len(items) % 2 == 0:
            keys = items[::2]
            if not all(isinstance(key, _KEYS) for key in keys):
                raise TypeError("a key that is no text and no number")
            holder.update(zip(keys, items[1::2], strict=True))
        else:
            raise TypeError(f"cannot fill {type(holder).__name__}")

    def _line(self, code: str) -> None:
        """The instructions of protocol 0, whose argument is a line of text."""
        line = self.window.line()
        if code == "S":
            text = line.strip()
            if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
                raise ValueError("a text without quotes")
            self.stack.append(codecs.escape_decode(text[1:-1])[0].decode("latin-1"))
        elif code == "V":
            self.stack.append(line.decode("raw-unicode-escape"))
        elif code == "F":
            self.stack.append(float(line))
        elif code == "I" and line in (b"00", b"01"):
            self.stack.append(line == b"01")
        elif code in "IL":
            self.stack.append(int(line.rstrip(b"L")))
        elif code == "p":
            self._remember(int(line[:20]))
        else:
            self._recall(int(line[:20]))
