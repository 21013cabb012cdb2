"""Answers of people, kept in one SQLite file beside the dataset: appended, committed one by one, never changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from talking_points.audit.items import AuditError, Task
from talking_points.dataset_files import written_folder

Verdict = Literal["point", "cannot_tell", "prefer", "tie", "text"]

ANSWERS = "audit/answers.sqlite"
"""Where answers are kept inside a dataset folder."""

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY,
    task TEXT NOT NULL, item TEXT NOT NULL, content TEXT NOT NULL, person TEXT NOT NULL, verdict TEXT NOT NULL,
    x REAL, y REAL, distance REAL, text TEXT, seconds REAL, time TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True)
class Answer:
    """What one person said about one item.

    ``x``, ``y``: the click in pixels of the image, ``distance`` as ``Item.distance``. ``text``: the name of the
    preferred description, or the description written. ``seconds`` from showing to answering. ``time``: UTC, ISO 8601.
    """

    task: Task
    item: str
    content: str
    person: str
    verdict: Verdict
    x: float | None = None
    y: float | None = None
    distance: float | None = None
    text: str | None = None
    seconds: float | None = None
    time: str = ""


_NUMBERS = ("x", "y", "distance", "seconds")
_COLUMNS = ", ".join(field.name for field in fields(Answer))


class AnswerStore:
    """Several processes and people may use one store at the same time; an answer returned from ``add`` is on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        written_folder(path.parent.parent, path.parent.name)
        if path.is_symlink():
            raise AuditError(f"{path} is a link to {path.resolve()}: answers are kept in the dataset alone; remove it")
        with self._connection() as connection:
            connection.execute(_TABLE)

    def add(self, answer: Answer) -> None:
        """Append one answer, with the time of now unless it has one."""
        values = list(astuple(answer))
        values[-1] = answer.time or datetime.now(UTC).isoformat(timespec="milliseconds")
        marks = ", ".join("?" * len(values))
        with self._connection() as connection:
            connection.execute(f"INSERT INTO answers ({_COLUMNS}) VALUES ({marks})", values)

    def latest(self, task: Task) -> list[Answer]:
        """The last word of everybody on every item of a task, in the order given."""
        query = (
            f"SELECT {_COLUMNS} FROM answers WHERE number IN"
            " (SELECT max(number) FROM answers WHERE task = ? GROUP BY item, content, person) ORDER BY number"
        )
        with self._connection() as connection:
            found = [Answer(*row) for row in connection.execute(query, (task,))]
        for answer in found:
            for field in fields(Answer):
                value = getattr(answer, field.name)
                if not isinstance(value, (float, int, type(None)) if field.name in _NUMBERS else (str, type(None))):
                    raise AuditError(f"{self.path} is not as this program writes it ({field.name}): move the file away")
        return found

    def of(self, task: Task, person: str) -> dict[tuple[str, str], Answer]:
        """One person's last answers by (item, content)."""
        return {(answer.item, answer.content): answer for answer in self.latest(task) if answer.person == person}

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=30)) as connection:
                # The file may come with the dataset, from somebody else.
                connection.execute("PRAGMA trusted_schema = OFF")
                # A rollback journal, unlike a write-ahead log, also holds on network file systems; FULL waits for the
                # disk.
                connection.execute("PRAGMA synchronous = FULL")
                with connection:
                    yield connection
        except sqlite3.Error as error:
            raise AuditError(
                f"{self.path} cannot be used ({error}): make room on the disk if that is why, else move the file away; "
                "its answers are then not counted"
            ) from error
