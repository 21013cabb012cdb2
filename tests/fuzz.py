"""What all fuzz tests share: how many cases they try, and that nothing reaches the network or leaves its folder."""

from __future__ import annotations

import math
import os
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.soak import repeats

CASES = repeats(10_000, 100_000)
"""For each reader; ten thousand take a minute and a half of one core for all of them."""

_NUMBERS = (0, -1, 1, 7, 2**31, 2**63, 2**64, 10**30, -0.0, 0.5, 1e9, 1e308, math.nan, math.inf, -math.inf, True, False)


class Odd(random.Random):
    """Values that no honest file has, drawn from a seed, which is all that is needed to see a case again.

    Ten thousand cases take seconds this way; a library that can shrink them takes many minutes.
    """

    def scalar(self) -> Any:
        draw = self.randrange(5)
        if draw == 0:
            return self.choice(_NUMBERS)
        if draw == 1:
            return self.uniform(-50, 150)
        if draw == 2:
            return "".join(self.choices("ab0:'/.\\ \0\u00e9\ud800[{\"", k=self.randrange(6)))
        return self.choice((None, self.randint(-5, 99)))

    def value(self, depth: int = 3) -> Any:
        draw = self.randrange(4) if depth else 0
        if draw == 1:
            return [self.value(depth - 1) for _ in range(self.randrange(5))]
        if draw == 2:
            return {str(self.scalar()): self.value(depth - 1) for _ in range(self.randrange(3))}
        return self.scalar()

    def damaged(self, content: bytes, pieces: Sequence[bytes]) -> bytes:
        """``content`` with a few bytes replaced, put in or cut off."""
        for _ in range(self.randint(1, 4)):
            place, length = self.randrange(len(content) + 1), self.randrange(12)
            put = self.choice((*pieces, self.randbytes(self.randrange(6))))
            content = content[:place] + put + content[place + length :]
        return content if self.random() < 0.7 else content[: self.randrange(len(content) + 1)]


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_watched: list[tuple[Path, list[str], set[int | None]]] = []
_hooked: list[bool] = []


def _watch(event: str, args: tuple[object, ...]) -> None:
    if not _watched:
        return
    folder, seen, others = _watched[-1]
    if threading.get_ident() in others:
        return
    if event.startswith(("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.system")):
        seen.append(event)
    elif event == "open" and isinstance(args[0], str | bytes) and isinstance(args[2], int) and args[2] & _WRITING:
        path = Path(os.fsdecode(args[0])).absolute()
        if not path.is_relative_to(folder):
            seen.append(f"writes {path}")


@contextmanager
def harmless(folder: Path) -> Iterator[None]:
    """Inside it no connection, no process, and no file written outside ``folder``."""
    if not _hooked:
        sys.addaudithook(_watch)  # hooks stay for good: this one is idle outside
        _hooked.append(True)
    seen: list[str] = []
    # What tests before have left in this process, a client that looks for its server, is none of the reader's doing.
    others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
    _watched.append((folder, seen, others))
    try:
        yield
    finally:
        _watched.pop()
    assert not seen, f"reached outside: {sorted(set(seen))[:5]}"
