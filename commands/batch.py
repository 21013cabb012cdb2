"""``describe`` and ``localize`` of many rows: what is wrong is said first, then answers come, with their rate."""

from __future__ import annotations

import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from commands.console import needs_extra
from talking_points.config import ConfigError
from talking_points.errors import RunError
from talking_points.examples.answer_files import AnswerFile, check_output
from talking_points.examples.asked_rows import ROW_FILES, SUFFIXES, Point, Rows, Task, open_rows
from talking_points.examples.batch_answers import Answer, answer_rows, make_describer, make_localizer, name_model
from talking_points.models.model_folders import check_model
from talking_points.terminal import show, show_json, tell
from talking_points.units import counted, format_duration, format_rate

_ROLES: dict[Task, str] = {"describe": "descriptor", "localize": "localizer"}
_SECONDS = 10.0
"""Between two lines of progress where no terminal shows one line that changes."""


def is_many(source: str) -> bool:
    """Whether what was named stands for many rows; a single image may be missing, and is then missed as one."""
    path = Path(source)
    if path.exists() or path.suffix.lower() in ROW_FILES:
        return path.is_dir() or path.suffix.lower() in ROW_FILES
    return source.count("/") == 1 and path.suffix.lower() not in SUFFIXES


def answer_many(
    task: Task,
    source: str,
    asked: Point | str | None,
    model: str,
    *,
    output: Path | None,
    batch_size: int,
    device: str | None,
    images: Path | None,
    split: str,
) -> None:
    """Answer all rows into ``output``, or on stdout. Raises ``RunError`` where some have no answer."""
    rows = open_rows(source, task, asked=asked, images=images, split=split)
    if output is not None:
        check_output(output)
    check_model(model, _ROLES[task])
    file = AnswerFile(output, task, name_model(model))
    with file.opening():
        pass  # what cannot be gone on with is told before torch, which takes seconds, is imported
    tell(f"{task}: loading {model}")
    with needs_extra("train"):
        from talking_points import PointDescriptor, PointLocalizer
        from talking_points.models.loading_bars import hide_loading_bars
    hide_loading_bars()
    place = choose_device(device)

    @cache  # loaded when the first row is asked about: where all are answered, no model is needed
    def loaded() -> Answer:
        if task == "describe":
            return make_describer(PointDescriptor.from_pretrained(model).to(place), batch_size)
        return make_localizer(PointLocalizer.from_pretrained(model).to(place), batch_size)

    def answer(shown: list[Any], questions: list[Any]) -> Any:
        return loaded()(shown, questions)

    progress = Progress(rows, file)
    for line in answer_rows(task, rows, answer, file, batch_size):
        if output is None:
            show_json(line, ascii_only=False)
        progress.count(line)
    progress.end()
    if output is not None:
        show(f"{output}: {progress.summary()}")
    if progress.counts["error"]:
        raise RunError(
            f"{progress.counts['error']:,} of {progress.done:,} rows have no answer, such as row "
            f"{progress.first_error['id']!r}: {progress.first_error['error']}. The others are answered; mend these "
            "(lines with an error) and run the same command again for them alone"
        )


def choose_device(name: str | None) -> Any:
    """The device that was named, or the best one that this process has. Raises ``ConfigError``."""
    import torch

    from talking_points.processes import process_state

    if name is None:
        return process_state().device
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise ConfigError(
            f"--device: expected a device of this machine (cpu, cuda, cuda:0, mps), found {name!a} ({reason})"
        ) from error
    return device


class Progress:
    """Rows per second and what is left, on stderr: one line that changes on a terminal, now and then one elsewhere."""

    def __init__(self, rows: Rows, file: AnswerFile, stream: TextIO | None = None) -> None:
        self.rows, self.file, self.stream = rows, file, stream or sys.stderr
        self.counts: Counter[str] = Counter()
        self.first_error: dict[str, Any] = {}
        self.started = self.shown = time.monotonic()

    @property
    def done(self) -> int:
        """Rows that were looked at in this run."""
        return self.counts.total()

    def count(self, line: dict[str, Any]) -> None:
        """Take note of one line, and show where it stands when it is time to."""
        if "error" in line:
            self.first_error = self.first_error or line
        self.counts["error" if "error" in line else "answered"] += 1
        terminal = self.stream.isatty()
        now = time.monotonic()
        if now - self.shown >= (0.2 if terminal else _SECONDS):
            self.shown = now
            self.stream.write(f"\r{self._now(now)}\x1b[K" if terminal else f"{self._now(now)}\n")
            self.stream.flush()

    def end(self) -> None:
        """Leave the last state on the screen, if any row was looked at."""
        if not self.done:
            return
        terminal = self.stream.isatty()
        self.stream.write(
            f"\r{self._now(time.monotonic())}\x1b[K\n" if terminal else f"{self._now(time.monotonic())}\n"
        )
        self.stream.flush()

    def summary(self) -> str:
        """What the file holds now, in words."""
        before = len(self.file.answered)
        made = f"{counted(self.counts['answered'], 'row')} answered"
        return f"{made}, {before:,} were answered before" if before else made

    def _now(self, now: float) -> str:
        rate = self.done / max(now - self.started, 1e-6)
        before = len(self.file.answered)
        total = "" if self.rows.total is None else f" of {self.rows.total:,}"
        errors = f", {self.counts['error']:,} without an answer" if self.counts["error"] else ""
        left = "" if self.rows.total is None else _left(self.rows.total - before - self.done, rate)
        return f"{before + self.done:,}{total} rows{errors}, {format_rate(rate)} rows/s{left}"


def _left(rows: int, rate: float) -> str:
    if rows <= 0 or rate <= 0:
        return ""
    return f", {format_duration(rows / rate)} left"
