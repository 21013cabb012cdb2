"""Finished model answers, kept on local disk so that a killed shard never pays for them twice.

The key is the whole request (text, images by content, seed, decoding settings), the model's identity and every
setting that can change an answer. Answers kept under the keys of an earlier ``KEY_VERSION`` are not found any more and
are asked for again. Failures are not kept. SQLite in WAL mode: many readers and writers of one machine, safe against a
kill. Every entry carries its own digest; an entry that does not match it counts as unknown, and a file that SQLite
cannot read is put aside and begun anew, because it only ever saves work.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from talking_points.descriptions.backends.protocol import ChatRequest, Completion, RequestError
from talking_points.descriptions.spending import Ledger
from talking_points.sqlite_files import COMPANIONS, LONGEST, ForeignDatabaseError, open_database

_LOG = logging.getLogger(__name__)
KEY_VERSION = 2
"""To be raised when what the key is made of changes. 1 left the settings out and gave one model's answers to another
question: nothing kept under it can be trusted."""
_POINT_FACTS = ("keypoint", "object_bbox")
"""Facts that reach a model beside the prompt: as visual prompts of an image."""
_PATIENCE = 60
"""Seconds to wait for other processes that use the file."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS answers"
    " (key TEXT PRIMARY KEY, answer TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID"
)
_DISK_TROUBLE = ("full", "locked", "disk i/o", "readonly", "unable to open")
"""Words of SQLite errors that say nothing against the file itself."""


_STORE = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)"


class OutboxLike(Protocol):
    """Takes the requests of a shard that a batch is to answer (``batches.outbox``)."""

    def hand_in(
        self, identity: Mapping[str, Any], requests: Sequence[ChatRequest]
    ) -> dict[str, Completion | RequestError]:
        """What came of each request by its id."""
        ...

    def close(self, *, complete: bool = True) -> None:
        """Nothing more is handed in; nothing of it counts unless the shard has asked for everything."""
        ...


class RequestCache:
    """One SQLite file. An instance may be used from several threads; open one per shard."""

    def __init__(self, path: Path, ledger: Ledger | None = None, outbox: OutboxLike | None = None) -> None:
        """``ledger`` counts what the answers cost that are not found here, ``outbox`` takes the requests that a batch
        is to answer; both are closed with the cache.
        """
        self.ledger = ledger
        self.outbox = outbox
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._file = _file_at(path)
        try:
            self._database = self._open()
            self._file = _file_at(path)
        except (sqlite3.DatabaseError, ForeignDatabaseError) as error:
            self._begin_anew(error)

    def __enter__(self) -> RequestCache:
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        with self._lock:
            self._database.close()
        if self.ledger:
            self.ledger.close()
        if self.outbox:
            self.outbox.close(complete=kind is None)

    def lookup(self, keys: Mapping[str, str]) -> dict[str, Completion]:
        """Known answers by request id; ``keys`` are those of the requests by id, see ``request_keys``."""
        with self._lock:
            try:
                rows = self._select(keys.values())
            except sqlite3.DatabaseError as error:
                self._begin_anew(error)
                rows = self._select(keys.values())
        return {
            id_: completion
            for (id_, key), row in zip(keys.items(), rows, strict=True)
            if row and row[1] == entry_digest(key, row[0]) and (completion := read_completion(row[0]))
        }

    def store(self, key: str, completion: Completion) -> None:
        """Keep one finished answer under its request's key."""
        answer = json.dumps(vars(completion), sort_keys=True)
        entry = (key, answer, entry_digest(key, answer))
        with self._lock:
            try:
                self._database.execute(_STORE, entry)
            except sqlite3.DatabaseError as error:
                self._begin_anew(error)
                self._database.execute(_STORE, entry)
            # Asked afterwards: what was stored before another connection put the file aside is among what it saves.
            while self._file != _file_at(self._path):
                self._reopen()
                self._database.execute(_STORE, entry)

    def _select(self, keys: Iterable[str]) -> list[tuple[str, str] | None]:
        select = "SELECT answer, digest FROM answers WHERE key = ?"
        return [self._database.execute(select, (key,)).fetchone() for key in keys]

    def _open(self) -> sqlite3.Connection:
        with FileLock(f"{self._path}.lock", timeout=_PATIENCE):
            return open_database(self._path, _TABLE, patience=_PATIENCE, wal=True)

    def _reopen(self) -> None:
        """Open the file that has the name now. SQLite leaves the name's log alone when it closes one that was moved."""
        self._database = self._open()
        self._file = _file_at(self._path)

    def _begin_anew(self, error: sqlite3.DatabaseError | ForeignDatabaseError) -> None:
        """Put a damaged file aside, as ``NAME.damaged-N``, and begin anew with the answers in it that can be read.

        Where another connection has done so, its file is opened. Raises ``error`` again when the file is not to blame.
        """
        if isinstance(error, sqlite3.Error) and (
            isinstance(error, sqlite3.ProgrammingError) or any(word in str(error).lower() for word in _DISK_TROUBLE)
        ):
            raise error
        if self._path.is_dir():
            raise error
        aside = None
        with FileLock(f"{self._path}.lock", timeout=_PATIENCE):
            if self._file == _file_at(self._path):
                names = (Path(f"{self._path}.damaged-{number}") for number in itertools.count(1))
                aside = next(name for name in names if not name.exists())
                # The log first: with another log than its own, a file is damaged for good.
                for ending in (*COMPANIONS, ""):
                    try:
                        Path(f"{self._path}{ending}").rename(f"{aside}{ending}")
                    except FileNotFoundError:
                        continue
                    except OSError as problem:
                        raise error from problem
        self._reopen()
        if aside is not None:
            # A file that is not ours is kept, and not read.
            kept = () if isinstance(error, ForeignDatabaseError) else _readable(aside)
            saved = self._database.executemany(_STORE, kept).rowcount
            _LOG.warning(
                "%s was damaged (%s) and is begun anew with the %d answers that could be read, the others are asked "
                "for again; the damaged file is kept as %s",
                *(self._path, error, max(saved, 0), aside),
            )


def _readable(path: Path) -> Iterator[tuple[str, str, str]]:
    """The sound entries of a damaged file, from both ends up to the damage."""
    end = time.monotonic() + _PATIENCE
    with closing(sqlite3.connect(path, timeout=_PATIENCE)) as database:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        database.execute("PRAGMA trusted_schema=OFF")
        # Damaged pages may lead to each other without end.
        database.set_progress_handler(lambda: time.monotonic() > end, 100_000)
        for direction in ("ASC", "DESC"):
            try:
                for key, answer, digest in database.execute(f"SELECT * FROM answers ORDER BY key {direction}"):
                    if digest == entry_digest(key, answer):
                        yield key, answer, digest
            except (sqlite3.DatabaseError, UnicodeError, TypeError) as error:
                _LOG.info("%s can be read no further: %s", path, error)
                continue
            return


def _file_at(path: Path) -> int | None:
    """The inode of the file that has a name now."""
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def request_key(identity: Mapping[str, Any], request: ChatRequest) -> str:
    """sha256 of everything that can change the answer. Of ``facts`` all but the visual prompts are in the prompt."""
    return request_keys(identity, [request])[request.id]


def request_keys(identity: Mapping[str, Any], requests: Iterable[ChatRequest]) -> dict[str, str]:
    """The keys of many requests to the same backend, by request id."""
    written, requests = _written(dict(identity)), list(requests)
    # Several requests may show the very same image.
    images = {id(image): image for request in requests for image in request.images}
    digests = {name: _image_digest(image) for name, image in images.items()}
    return {request.id: _key(written, request, digests) for request in requests}


def _key(identity: str, request: ChatRequest, digests: Mapping[int, str]) -> str:
    shown = [request.facts.get(name) for name in _POINT_FACTS] if request.images else []
    content = [
        request.system,
        request.prompt,
        [digests[id(image)] for image in request.images],
        request.seed,
        request.max_tokens,
        request.temperature,
        request.schema,
        shown,
    ]
    # One list, of which the identity is written once for many.
    return hashlib.sha256(f"[{KEY_VERSION}, {identity}, {_written(content)[1:]}".encode()).hexdigest()


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _image_digest(image: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(image).data)
    digest.update(repr(image.shape).encode())
    return digest.hexdigest()


def entry_digest(key: str, answer: str) -> str:
    """What an entry carries: one that does not match it counts as unknown."""
    return hashlib.sha256(f"{key}\n{answer}".encode()).hexdigest()


def read_completion(answer: object) -> Completion | None:
    """A kept answer; None for what this program would not have kept, whoever computed its digest."""
    try:
        found = Completion(**json.loads(answer))  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError):
        return None
    texts, counts = (found.text, found.finish_reason), (found.prompt_tokens, found.completion_tokens)
    right = all(isinstance(text, str) for text in texts) and all(isinstance(n, int) and n >= 0 for n in counts)
    return found if right else None
