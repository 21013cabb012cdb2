"""What a loop tells: the first steps within seconds, then rarely; a terminal's line is drawn over."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest

from talking_points import step_progress
from talking_points.step_progress import LINES_ONLY, StepProgress, follow, follow_each
from talking_points.units import format_duration, format_size


class Clock:
    """Time that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


def walk(progress: StepProgress, clock: Clock, steps: int, seconds: float) -> None:
    for _ in range(steps):
        clock.now += seconds
        progress.advance(loss=2.0)


def test_lines_come_soon_and_then_rarely(clock: Clock) -> None:
    written = io.StringIO()
    progress = StepProgress("localizer", 4000, stream=written)
    walk(progress, clock, 4000, 0.5)
    progress.end()
    lines = written.getvalue().splitlines()
    assert lines[0] == "localizer: step 2 of 4,000, loss 2, 2 steps/s, 33 min 19 s left"
    assert lines[-1] == "localizer: step 4,000 of 4,000, loss 2, 2 steps/s, 33 min 20 s in all"
    assert 40 < len(lines) < 90, "every ten seconds at first, every minute later"


def test_a_resumed_loop_reckons_with_its_own_steps(clock: Clock) -> None:
    written = io.StringIO()
    progress = StepProgress("descriptor", None, stream=written)
    clock.now += 1000  # reading images comes before
    progress.begin(total=300, done=200)
    walk(progress, clock, 20, 2.0)
    assert "step 201 of 300, loss 2, 2 s per step, 3 min 18 s left" in written.getvalue()


def test_a_terminal_sees_one_line(clock: Clock) -> None:
    written = Terminal()
    progress = StepProgress("vision path", 10, stream=written)
    walk(progress, clock, 10, 1.0)
    progress.remark("saved")
    progress.end()
    assert written.getvalue().count("\r\x1b[2K") == 10
    assert written.getvalue().splitlines()[-1] == "vision path: saved"


def test_processes_that_share_a_terminal_write_lines(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LINES_ONLY, "1")
    written = Terminal()
    walk(StepProgress("vision path", 10, stream=written), clock, 10, 1.0)
    assert "\r" not in written.getvalue()


def test_loops_within_loops_and_short_ones_are_silent(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(count: int) -> None:
        for _ in follow_each(range(count), "inside", unit="batch"):
            clock.now += 5

    for _ in follow_each(range(3), "short"):
        clock.now += 0.1
    with follow("outside", 1) as progress:
        slowly(3)
        progress.advance()
    slowly(2)
    monkeypatch.setenv("RANK", "1")
    slowly(2)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["outside", "inside", "inside"]
    assert not step_progress._followed


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (format_size, 1, "1 byte"), (format_size, 999, "999 bytes"), (format_size, 3_440_000, "3.4 MB"),
        (format_size, 27e9, "27 GB"), (format_size, 999_600, "1.0 MB"),
        (format_duration, 59.4, "59 s"), (format_duration, 65, "1 min 05 s"), (format_duration, 7500, "2 h 05 min"),
    ],
)  # fmt: skip
def test_numbers_for_people(write: Callable[[float], str], value: float, text: str) -> None:
    assert write(value) == text
