"""Pickle files of plain data, read without a way to run anything.

Datasets of the time of Python 2 come as pickles, and a pickle is a program: the standard unpickler, even one that
allows no global, takes memory for any memo number that a file names and hashes what it is told to. This reader knows
the instructions that build numbers, texts, lists, tuples and mappings, of protocols 0 to 5, and refuses all others;
time and memory stay in proportion to the file. Byte strings of Python 2 become text by latin-1.
"""

from __future__ import annotations

import codecs
import pickletools
import struct
from typing import Any


class UnsafePickleError(ValueError):
    """The pickle does more than build plain data, or is damaged: says what was found, and where."""


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
_KEYS = (str, int, float, type(None))


def load_plain(data: bytes) -> Any:
    """The object that a pickle of plain data describes. Raises ``UnsafePickleError`` for anything else."""
    machine = _Machine(data)
    try:
        while machine.step():
            pass
        return machine.stack[-1]
    except UnsafePickleError:
        raise
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise UnsafePickleError(f"damaged at byte {machine.place} of {len(data)}: {error!r:.120}") from error


class _Machine:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self) -> bool:
        """Carry out one instruction; False at the end of the program."""
        code = self.data[self.place]
        self.place += 1
        if code in _TEXTS:
            size, encoding = _TEXTS[code]
            self.stack.append(self._bytes(self._size(size)).decode(encoding, "surrogatepass"))
        elif code in _STORES:
            self.memo[self._size(_STORES[code])] = self.stack[-1]
        elif code in _RECALLS:
            self.stack.append(self.memo[self._size(_RECALLS[code])])
        elif code in _NUMBERS:
            size, layout = _NUMBERS[code]
            self.stack.append(struct.unpack(layout, self._bytes(size))[0])
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
            self.stack.append({} if code == ord("}") else [])
        elif code == 0x94:
            self.memo[len(self.memo)] = self.stack[-1]
        elif code in _LINES:
            self._line(chr(code))
        elif code == ord("."):
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
            self.stack.append(items if code == ord("l") else tuple(items))
        elif code == ord("d"):
            items = self._since_mark()
            self.stack.append({})
            self._fill(items, True)
        elif code in _LONG_INTEGERS:
            taken = self._bytes(self._size(_LONG_INTEGERS[code]))
            self.stack.append(int.from_bytes(taken, "little", signed=True))
        elif code in _SKIPPED:
            self._bytes(_SKIPPED[code])
        elif code == ord("0"):
            self.stack.pop()
        elif code == ord("1"):
            self._since_mark()
        elif code == ord("2"):
            self.stack.append(self.stack[-1])
        else:
            raise UnsafePickleError(f"found {self._instruction(code)} at byte {self.place - 1}, which is no plain data")

    def _instruction(self, code: int) -> str:
        """An instruction by its name, with the object that it calls for if it names one."""
        known = {ord(operation.code): operation for operation in pickletools.opcodes}.get(code)
        named = self.data[self.place :].split(b"\n", 2)[:2] if code in b"ci" else []
        return " ".join(
            [known.name if known else f"{code:#x}", *(ascii(name.decode("latin-1")[:60]) for name in named)]
        )

    def _bytes(self, size: int) -> bytes:
        taken = self.data[self.place : self.place + size]
        if len(taken) < size:
            raise IndexError(f"{size} more bytes announced")
        self.place += size
        return taken

    def _size(self, size: int) -> int:
        return int.from_bytes(self._bytes(size), "little")

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
            holder.extend(items)
        elif pairs and isinstance(holder, dict) and len(items) % 2 == 0:
            keys = items[::2]
            if not all(isinstance(key, _KEYS) for key in keys):
                raise TypeError("a key that is no text and no number")
            holder.update(zip(keys, items[1::2], strict=True))
        else:
            raise TypeError(f"cannot fill {type(holder).__name__}")

    def _line(self, code: str) -> None:
        """The instructions of protocol 0, whose argument is a line of text."""
        end = self.data.index(b"\n", self.place)
        line = self.data[self.place : end]
        self.place = end + 1
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
            self.memo[int(line[:20])] = self.stack[-1]
        else:
            self.stack.append(self.memo[int(line[:20])])
