"""What a long loop tells people on stderr: step, values, rate and what is left.

On a terminal one line is drawn over; elsewhere a line is written within seconds of the first step, then every ten
seconds, and more rarely the longer it takes, so that the log of a night stays readable.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO, TypeVar

from talking_points.redaction import shown
from talking_points.units import format_duration, format_rate
from talking_points.whole_files import read_json, write_json

LINES_ONLY = "TALKING_POINTS_PROGRESS_LINES"
"""A variable that is set where several processes share a terminal, so that none draws over another's line."""

PROGRESS = ".progress.json"
"""What others can read of a loop under way, in the folder that it works for. It has no part in what is made."""

_FIRST, _REDRAW, _EVERY, _RAREST, _RECORD = 1.0, 0.5, 10.0, 60.0, 2.0
"""Seconds below which a loop is not worth a word; between two drawings on a terminal; between two lines elsewhere, at
first and at most; between two writings of ``PROGRESS``."""
_LONGEST = 1e12

Item = TypeVar("Item")


class Spent:
    """Time that goes into a folder, that of interrupted processes before this one included.

    They leave it in ``PROGRESS``: what a killed one did in its last seconds is not counted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before = {"seconds": 0.0, "cpu_seconds": 0.0}
        with suppress(OSError, ValueError, TypeError, KeyError, OverflowError):
            found = read_json(folder / PROGRESS, "")["spent"]
            before = {name: float(found[name]) for name in self._before}
            if all(0 <= seconds < _LONGEST for seconds in before.values()):
                self._before = before
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def so_far(self) -> dict[str, float]:
        """``seconds`` by the clock and ``cpu_seconds``, rounded to tenths."""
        own = {"seconds": time.monotonic() - self._wall, "cpu_seconds": time.process_time() - self._cpu}
        return {name: round(value + self._before[name], 1) for name, value in own.items()}


class StepProgress:
    """Follows one loop of ``total`` steps, None where nobody knows, of which ``done`` were made before.

    See ``follow``.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        done: int = 0,
        unit: str = "step",
        stream: TextIO | None = None,
        spent: Spent | None = None,
    ) -> None:
        self._spent = spent
        self.what, self.total, self.done, self.unit = what, total, done, unit
        self._stream = stream or sys.stderr
        self._drawn_over = self._stream.isatty() and LINES_ONLY not in os.environ
        self._first = done
        self._began = time.monotonic()
        self._told: float | None = None
        self._told_of = done
        self._sums: dict[str, tuple[float, int]] = {}
        self._latest: dict[str, float] = {}
        self._open = False
        self._recorded: float | None = None

    def begin(self, total: int, done: int) -> None:
        """What was not known at first: how many steps there are, and how many were made before."""
        self.total, self.done, self._first, self._told_of = total, done, done, done
        self._began = time.monotonic()

    def advance(self, count: int = 1, /, **values: float) -> None:
        """So many more steps are done; ``values`` are shown as their means since the last time they were shown."""
        self.done += count
        for name, value in values.items():
            total, number = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, number + 1)
        now = time.monotonic()
        if self._spent and (self._recorded is None or now - self._recorded >= _RECORD):
            self._record(now)
        rarely = _REDRAW if self._drawn_over else min(_RAREST, max(_EVERY, (now - self._began) / 20))
        if now - self._began >= _FIRST if self._told is None else now - self._told >= rarely:
            self._tell(now)

    def remark(self, text: str) -> None:
        """A line of its own, e.g. what an evaluation on the way has found."""
        self._close()
        print(shown(f"{self.what}: {text}"), file=self._stream, flush=True)

    def end(self) -> None:
        """The loop is over, or was left: the last line stays. A training has one, however short it was."""
        known = bool(self._latest or self._sums) or (self._told is not None and self.done == self.total)
        if known and self.done != self._told_of:
            self._tell(time.monotonic())
        if self._spent:
            self._record(time.monotonic())
        self._close()

    def line(self, now: float) -> str:
        """``localizer: step 40 of 300, loss 0.0123, 3.2 steps/s, 1 min 21 s left``."""
        seconds, made = now - self._began, self.done - self._first
        parts = [f"{self.what}: {self.unit} {self.done:,}" + (f" of {self.total:,}" if self.total else "")]
        parts += [f"{name} {value:.4g}" for name, value in self._latest.items()]
        if made and seconds > 0:
            rate = made / seconds
            parts.append(f"{format_rate(rate)} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s per {self.unit}")
            left = self.seconds_left(now)
            if left is not None:
                parts.append(f"{format_duration(left)} left")
            else:
                parts.append(f"{format_duration(seconds)} in all")
        return ", ".join(parts)

    def seconds_left(self, now: float) -> float | None:
        """As fast as so far; None where nobody knows, or nothing is left."""
        seconds, made = now - self._began, self.done - self._first
        return seconds * (self.total - self.done) / made if self.total and self.total > self.done and made else None

    def _record(self, now: float) -> None:
        assert self._spent is not None
        self._recorded = now
        left = self.seconds_left(now)
        means = {name: total / number for name, (total, number) in self._sums.items()}
        content: dict[str, Any] = {
            "what": self.what,
            "unit": self.unit,
            "done": self.done,
            "total": self.total,
            "values": self._latest | means,
            "seconds_left": None if left is None else round(left, 1),
            "line": shown(self.line(now)),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "spent": self._spent.so_far(),
        }
        with suppress(OSError):  # a full disk is told of by what is made, not by this
            write_json(self._spent.folder / PROGRESS, content)

    def _tell(self, now: float) -> None:
        self._told, self._told_of = now, self.done
        self._latest |= {name: total / number for name, (total, number) in self._sums.items()}
        self._sums = {}
        line = shown(self.line(now))
        if self._drawn_over:
            self._stream.write(f"\r\x1b[2K{line}")
            self._open = True
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def _close(self) -> None:
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False


_works: list[Spent] = []
"""What the loops of this process work for, the innermost last."""

_followed: list[str] = []
"""The loops of this process that are under way. What happens inside one of them is not told by itself."""


@contextmanager
def recording(spent: Spent) -> Iterator[None]:
    """Around work for a folder: its loops write there how far they are, and what was spent."""
    _works.append(spent)
    try:
        yield
    finally:
        _works.pop()


@contextmanager
def follow(what: str, total: int | None, done: int = 0, unit: str = "step") -> Iterator[StepProgress]:
    """Around a loop: its progress. Silent inside another loop, and in all but the first of processes that train
    together."""
    alone = not _followed and os.environ.get("RANK", "0") == "0"
    with nullcontext(sys.stderr) if alone else open(os.devnull, "w") as stream:  # noqa: PTH123
        progress = StepProgress(what, total, done, unit, stream, _works[-1] if alone and _works else None)
        _followed.append(what)
        try:
            yield progress
        finally:
            _followed.pop()
            progress.end()


def follow_each(items: Iterable[Item], what: str, total: int | None = None, unit: str = "step") -> Iterator[Item]:
    """The items, one by one, with what is done told on the way."""
    with follow(what, len(items) if isinstance(items, Sized) else total, unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()
