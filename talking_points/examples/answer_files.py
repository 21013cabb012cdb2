"""A file of answers, one JSON object in a line, that a run cut off anywhere goes on in.

Lines are appended batch by batch and are on the disk before the next batch is asked for. Every line names its row, what
was asked and the model that answered, so that a later run knows which answers are its own::

    {"id": "7", "image": "dog.jpg", "point": [31.0, 20.0], "description": "...", "model": "descriptor@sha256:..."}
    {"id": "8", "error": "no file cat.jpg"}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from talking_points.config import ConfigError
from talking_points.errors import RunError
from talking_points.examples.asked_rows import AskedRow, Id, Task
from talking_points.locks import FolderInUseError
from talking_points.owners import refuse_closed
from talking_points.regular_files import IrregularFileError, read_lines
from talking_points.whole_files import writing_whole

ANSWERS: dict[Task, tuple[str, str]] = {"describe": ("description", "descriptions"), "localize": ("point", "points")}
ASKED: dict[Task, tuple[str, str]] = {"describe": ("point", "points"), "localize": ("text", "texts")}
"""Names of one answer or question and of many."""

_OWN: dict[Task, tuple[str, str]] = {"describe": ANSWERS["describe"], "localize": ASKED["localize"]}
"""Names that the lines of one task have, and those of the other have not: both have a point."""

_OTHER_FORMATS = (".csv", ".tsv", ".json", ".parquet", ".xlsx")


def make_line(task: Task, row: AskedRow, answers: Sequence[Any], model: str) -> dict[str, Any]:
    """The answer to a row: its answers, as many as it asked for, in its own form."""
    return {**_question(task, row), ANSWERS[task][row.many]: list(answers) if row.many else answers[0], "model": model}


def _question(task: Task, row: AskedRow) -> dict[str, Any]:
    """What identifies a row and what it asks, as it stands in its answer."""
    asked = [list(one) if isinstance(one, tuple) else one for one in row.asked]
    named = {} if row.image_name is None else {"image": row.image_name}
    return {"id": row.id, **named, **row.carried, ASKED[task][row.many]: asked if row.many else asked[0]}


_START = b'{"id": '
"""What every line begins with."""


class AnswerFile:
    """The answers to rows of one ``task`` by one ``model``, in the file at ``path`` or, without one, nowhere."""

    def __init__(self, path: Path | None, task: Task, model: str) -> None:
        self.path, self.task, self.model = path, task, model
        self.answered: dict[Id, dict[str, Any]] = {}

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Read what is there, and keep others from writing to it.

        A line that was cut off at the end, and lines of rows that had no answer, are left out of it: those rows are
        asked about again. Raises ``ConfigError`` for a file of anything else, and ``FolderInUseError``.
        """
        if self.path is None:
            yield
            return
        lock = FileLock(self.path.absolute().with_name(f".{self.path.name}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise FolderInUseError(
                f"another process is writing to {self.path}: wait for it, or choose another output"
            ) from None
        except OSError as error:
            raise ConfigError(f"cannot write to {self.path} ({error}): choose another output") from error
        try:
            self._read()
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def holds(self, row: AskedRow) -> bool:
        """Whether the row is answered. Raises ``ConfigError`` where its id has the answer to another question."""
        before = self.answered.get(row.id)
        if before is None:
            return False
        asked = _question(self.task, row)
        differing = [name for name in asked if before.get(name) != asked[name]]
        if differing:
            name = differing[0]
            raise ConfigError(
                f"{self.path}: row {row.id!r} was answered for another {name} ({str(before.get(name))[:80]!a} instead "
                f"of {str(asked[name])[:80]!a}): choose another output"
            )
        return True

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write whole lines, and wait until they are on the disk. Raises ``RunError``."""
        if self.path is None:
            return
        try:
            with self.path.open("ab") as file:
                file.write(b"".join(_encoded(line) for line in lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"cannot write to {self.path} ({error}): make room and run the same command again; it goes on there"
            ) from error

    def _read(self) -> None:
        assert self.path is not None
        check_output(self.path)
        if not self.path.exists():
            return
        kept, dropped = [], False
        for number, line in enumerate(self._lines(), start=1):
            if not line.endswith(b"\n") and line[: len(_START)] == _START[: len(line)]:
                dropped = True  # cut off while it was written
                continue
            found = self._answer(line, number)
            dropped |= found is None
            if found is not None:
                self.answered[found["id"]] = found
                kept.append(line)
        if dropped:
            with writing_whole(self.path) as temporary:
                temporary.write_bytes(b"".join(kept))

    def _lines(self) -> Iterator[bytes]:
        assert self.path is not None
        try:
            yield from (line or b"\n" for line in read_lines(self.path))
        except IrregularFileError as error:
            raise ConfigError(f"cannot go on with {self.path}: {error.strerror}; choose another output") from error

    def _answer(self, line: bytes, number: int) -> dict[str, Any] | None:
        """The answer in a line, or None for the line of a row that had none."""
        found = parse_line(line)
        if found is not None and "error" in found:
            return None
        if found is None or "model" not in found or not any(name in found for name in _OWN[self.task]):
            raise ConfigError(
                f"expected answers of '{self.task}' in {self.path}, or no file; found something else in line {number}: "
                "choose another output"
            )
        if found["model"] != self.model:
            raise ConfigError(
                f"{self.path} holds answers of the model {str(found['model'])[:120]!a}, and this is {self.model!a}: "
                "choose another output"
            )
        return found


def parse_line(line: bytes) -> dict[str, Any] | None:
    """A line of a file of answers, or None for what is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or isinstance(found.get("id"), bool) or not isinstance(found.get("id"), str | int):
        return None
    return found


def check_output(path: Path) -> None:
    """Refuse a place that no file of answers can be written to. Raises ``ConfigError``."""
    if path.is_dir():
        raise ConfigError(f"expected the name of a file for the answers (answers.jsonl), found the folder {path}")
    if path.suffix.lower() in _OTHER_FORMATS:  # what is written are JSON lines, whatever the name says
        raise ConfigError(f"expected a file for the answers that ends in .jsonl, found {path}: choose another name")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"expected a folder at {path.absolute().parent} for the answers, found none; make it first")
    if path.exists() and not path.is_file():
        raise ConfigError(f"expected a file, or none, at {path}, found something else; choose another output")
    refuse_closed(path)


def _encoded(line: Mapping[str, Any]) -> bytes:
    return (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")
