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
from talking_points.dataset_files import make_folder
from talking_points.sqlite_files import check_pages, open_database

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


_COLUMNS = ", ".join(field.name for field in fields(Answer))


class AnswerStore:
    """Several processes and people may use one store at the same time; an answer returned from ``add`` is on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path.parent.parent, path.parent.name)
        with self._connection():
            pass

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
            # It also holds every value against its column's type.
            check_pages(connection, self.path)
            return [Answer(*row) for row in connection.execute(query, (task,))]

    def of(self, task: Task, person: str) -> dict[tuple[str, str], Answer]:
        """One person's last answers by (item, content)."""
        return {(answer.item, answer.content): answer for answer in self.latest(task) if answer.person == person}

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            # A rollback journal, unlike a write-ahead log, also holds on network file systems.
            with closing(open_database(self.path, _TABLE, patience=30)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise AuditError(
                f"{self.path} cannot be used ({error}): make room on the disk if that is why, else move the file away; "
                "its answers are then not counted"
            ) from error
