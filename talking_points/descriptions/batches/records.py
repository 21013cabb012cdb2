"""What a stage's batches are known by: a row per request in SQLite, a small JSON record beside every file.

A request is known by its key in the cache of answers, which is its ``custom_id`` too. The folder is part of the
output's work folder; nothing in it is believed that this program would not have written.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock
from pydantic import ConfigDict, Field, TypeAdapter, with_config

from talking_points.descriptions.backends.protocol import Completion, RequestError
from talking_points.descriptions.request_cache import read_completion
from talking_points.regular_files import open_regular, read_bytes
from talking_points.sqlite_files import ForeignDatabaseError, open_database
from talking_points.whole_files import write_text

_PATIENCE = 60
"""Seconds to wait for other processes that use the file."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS asked (key TEXT PRIMARY KEY, tries INTEGER NOT NULL DEFAULT 0, file TEXT,"
    " queued INTEGER NOT NULL DEFAULT 0, wanted INTEGER NOT NULL DEFAULT 0, images INTEGER NOT NULL DEFAULT 0,"
    " tokens_in INTEGER NOT NULL DEFAULT 0, tokens_out INTEGER NOT NULL DEFAULT 0, outcome TEXT) WITHOUT ROWID"
)
_NUMBERS = ("tries", "queued", "wanted", "images", "tokens_in", "tokens_out")
_ODD = "SELECT 1 FROM asked WHERE typeof(key) != 'text' OR " + " OR ".join(
    f"typeof({name}) != 'integer' OR {name} NOT BETWEEN 0 AND 1000000000000" for name in _NUMBERS
)
"""Finds a row of other types, which a column of SQLite may hold."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=-]{0,999}")

WRITTEN, CREATING, SENT, COLLECTED = "written", "creating", "sent", "collected"
"""States of a file: only here; perhaps at the provider; there, under a batch id; its answers are kept."""


@with_config(ConfigDict(strict=True, extra="forbid"))
@dataclass
class BatchFile:
    """One file of requests and what became of it. ``mark`` tells it apart from every other at the provider."""

    name: str
    requests: Annotated[int, Field(ge=0, le=10**9)]
    state: str = WRITTEN
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    file_id: str = ""
    batch_id: str = ""
    status: str = ""
    detail: str = ""
    stopped: bool = False
    """Cancelled by this program: what it left unanswered does not count as tried."""

    @property
    def ids(self) -> tuple[str, str]:
        """File and batch id at the provider, each in a form that is safe in an address. Raises ``ValueError``."""
        for value in (self.file_id, self.batch_id):
            if value and not _ID.fullmatch(value):
                raise ValueError(f"expected an id of letters, digits and ._:=-, found {value[:80]!r}")
        return self.file_id, self.batch_id


_FORM: TypeAdapter[BatchFile] = TypeAdapter(BatchFile)


@dataclass(frozen=True)
class Asked:
    """A request that has not been answered for good: how often it was tried, whether it is on its way, what came."""

    tries: int
    on_its_way: bool
    outcome: Completion | RequestError | None


@dataclass(frozen=True)
class Queued:
    """A request that was written for the next batch, with what it may cost."""

    key: str
    images: int
    tokens_in: int
    tokens_out: int


class BatchFolder:
    """The batches of one stage. An instance may be used from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = path / "parts"
        self.parts.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        with FileLock(f"{path}.lock", timeout=_PATIENCE):
            self._database = open_database(path / "asked.sqlite", _TABLE, patience=_PATIENCE, wal=True)
        if self._execute(_ODD).fetchone() is not None:
            self._database.close()
            raise ForeignDatabaseError(path / "asked.sqlite", "it holds values of other types")

    def __enter__(self) -> BatchFolder:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._database.close()

    def begin(self) -> None:
        """Before the shards ask: no request is queued, and none is waited for. What was sent stays known."""
        for record in self.files():
            if record.state == COLLECTED:
                self.close_file(record)  # a run may have been killed in the middle of it
            elif record.state == WRITTEN and not (self.input_of(record).is_file() and self.waiting(record)):
                self.remove(record)
        for part in self.parts.iterdir():
            part.unlink(missing_ok=True)
        self._execute("UPDATE asked SET queued = 0, wanted = 0")

    def forget_outcomes(self) -> None:
        """Forget what was tried and not answered: a later run asks again. What is on its way stays known."""
        self._execute("DELETE FROM asked WHERE file IS NULL")

    def want(self, key: str) -> Asked | None:
        """What is known of a request, which its shard waits for from now on if it is on its way."""
        row = self._execute("SELECT tries, file, queued, outcome FROM asked WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        tries, file, queued, outcome = row
        if file is not None:
            self._execute("UPDATE asked SET wanted = 1 WHERE key = ? AND wanted = 0", (key,))
        return Asked(tries, file is not None or bool(queued), _outcome(outcome))

    def queue(self, requests: Iterable[Queued]) -> None:
        """Requests that lie in a finished part."""
        with self._transaction():
            self._database.executemany(
                "INSERT INTO asked (key, queued, wanted, images, tokens_in, tokens_out) VALUES (?, 1, 1, ?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET queued = 1, wanted = 1",
                [(item.key, item.images, item.tokens_in, item.tokens_out) for item in requests],
            )

    def attach(self, record: BatchFile, keys: Iterable[str]) -> None:
        """The queued requests lie in a file now."""
        write_record(self.path, record)
        with self._transaction():
            self._database.executemany(
                "UPDATE asked SET file = ?, queued = 0 WHERE key = ?", [(record.name, key) for key in keys]
            )

    def waiting(self, record: BatchFile) -> dict[str, tuple[int, int]]:
        """Keys of a file that have no outcome yet; the images that each shows, and about how many tokens it has."""
        select = "SELECT key, images, tokens_in FROM asked WHERE file = ?"
        return {key: (images, tokens) for key, images, tokens in self._execute(select, (record.name,)).fetchall()}

    def highest_tokens(self, record: BatchFile) -> tuple[int, int, int]:
        """Images, tokens in and out that the unanswered requests of a file may take."""
        found = self._execute(
            "SELECT COALESCE(SUM(images), 0), COALESCE(SUM(tokens_in), 0), COALESCE(SUM(tokens_out), 0) FROM asked"
            " WHERE file = ?",
            (record.name,),
        ).fetchone()
        return found[0], found[1], found[2]

    def is_wanted(self, record: BatchFile) -> bool:
        """Whether a shard waits for one of its answers."""
        select = "SELECT 1 FROM asked WHERE file = ? AND wanted = 1 LIMIT 1"
        return self._execute(select, (record.name,)).fetchone() is not None

    def settle(self, key: str, outcome: Completion | RequestError | None) -> None:
        """What came of a request; None: nothing, and it does not count as tried."""
        text = None if outcome is None else json.dumps(asdict(outcome))
        self._execute(
            "UPDATE asked SET file = NULL, wanted = 0, tries = tries + ?, outcome = ? WHERE key = ?",
            (outcome is not None, text, key),
        )

    def files(self) -> list[BatchFile]:
        """The records of all files, in the order in which these were written."""
        found = []
        for path in sorted(self.path.glob("[0-9]*.json")):
            with suppress(ValueError, OSError):
                record = _FORM.validate_json(read_bytes(path))
                if f"{record.name}.json" == path.name:
                    found.append(record)
        return found

    def next_name(self) -> str:
        """For the next file: no number is used twice."""
        taken = [int(path.name[:5]) for path in self.path.glob("[0-9]*.json*") if path.name[:5].isdecimal()]
        return f"{max(taken, default=-1) + 1:05d}"

    def input_of(self, record: BatchFile) -> Path:
        """The file of requests."""
        return self.path / f"{record.name}.jsonl"

    def answers_of(self, record: BatchFile) -> list[Path]:
        """The files of answers that are there: those that were done, and those that failed."""
        names = (f"{record.name}.output.jsonl", f"{record.name}.errors.jsonl")
        return [path for name in names if (path := self.path / name).is_file()]

    def remove(self, record: BatchFile) -> None:
        """Forget a file that was never sent."""
        (self.path / f"{record.name}.json").unlink(missing_ok=True)
        self.input_of(record).unlink(missing_ok=True)
        self._execute("UPDATE asked SET file = NULL WHERE file = ?", (record.name,))

    def close_file(self, record: BatchFile) -> None:
        """A file whose answers are kept: its record stays, what takes room goes."""
        record.state = COLLECTED
        write_record(self.path, record)
        for path in (self.input_of(record), *self.answers_of(record)):
            path.unlink(missing_ok=True)

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> Any:
        with self._lock:
            return self._database.execute(statement, values)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._lock, self._database)


class _Transaction:
    """Several statements at once, or none."""

    def __init__(self, lock: threading.Lock, database: Any) -> None:
        self._lock, self._database = lock, database

    def __enter__(self) -> None:
        self._lock.acquire()
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._database.execute("COMMIT" if kind is None else "ROLLBACK")
        finally:
            self._lock.release()


def write_record(folder: Path, record: BatchFile) -> None:
    """Write a file's record, whole: what it says has happened, or is about to."""
    write_text(folder / f"{record.name}.json", json.dumps(asdict(record), indent=1) + "\n")


def keys_in(path: Path) -> Iterator[str]:
    """The custom ids of a file of requests that this program wrote: they stand first in their lines."""
    start = len(LINE_START)
    with open_regular(path) as stream:
        for line in stream:
            yield line[start : start + 64].decode("ascii", "replace")


LINE_START = b'{"custom_id":"'
"""How every line of requests begins."""


def _outcome(text: str | None) -> Completion | RequestError | None:
    if text is None:
        return None
    try:
        values = json.loads(text)
        if "text" in values:
            return read_completion(text)
        error = RequestError(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    right = all(isinstance(told, str) for told in (error.reason, error.detail)) and isinstance(error.retryable, bool)
    return error if right else None
