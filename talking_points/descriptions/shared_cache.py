"""Finished model answers, and the count of what they cost, in a PostgreSQL database for workers on several machines.

Keys and digests are those of the local file (``request_cache``), so that both know the same answers. A file of SQLite
on a network file system is not safe with writers on several machines.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from functools import cache
from importlib import util
from typing import TYPE_CHECKING, Any

from talking_points.config import ConfigError
from talking_points.descriptions.backends.protocol import Completion
from talking_points.descriptions.request_cache import (
    OutboxLike,
    RequestCache,
    entry_digest,
    read_completion,
)
from talking_points.descriptions.spending import Ledger, Spending, Spent
from talking_points.errors import RunError
from talking_points.extras import how_to_install
from talking_points.network import answer_within
from talking_points.redaction import redact
from talking_points.stop_requests import stop_if_requested

if TYPE_CHECKING:
    from sqlalchemy import Engine

_TABLE = (
    "CREATE TABLE IF NOT EXISTS talking_points_answers"
    " (key TEXT PRIMARY KEY, answer TEXT NOT NULL, digest TEXT NOT NULL)"
)
_STORE = (
    "INSERT INTO talking_points_answers VALUES (:key, :answer, :digest) "
    "ON CONFLICT (key) DO UPDATE SET answer = excluded.answer, digest = excluded.digest"
)
_SELECT = (
    "SELECT key, answer, digest FROM talking_points_answers"
    " WHERE key = ANY(:keys) AND octet_length(answer) <= 16777216 AND octet_length(digest) = 64"
)
"""An answer of a model is cut at half of that: of a longer one, up to a gigabyte each, nothing is sent."""
_SPENT_TABLE = (
    "CREATE TABLE IF NOT EXISTS talking_points_spent (build TEXT, model TEXT, requests BIGINT NOT NULL,"
    " images BIGINT NOT NULL, tokens_in BIGINT NOT NULL, tokens_out BIGINT NOT NULL, PRIMARY KEY (build, model))"
)
_COUNT = (
    "INSERT INTO talking_points_spent AS spent VALUES (:build, :model, 1, :images, :tokens_in, :tokens_out) "
    "ON CONFLICT (build, model) DO UPDATE SET requests = spent.requests + 1, images = spent.images + excluded.images,"
    " tokens_in = spent.tokens_in + excluded.tokens_in, tokens_out = spent.tokens_out + excluded.tokens_out"
)
_SELECT_SPENT = (
    "SELECT left(model, 1000), requests, images, tokens_in, tokens_out FROM talking_points_spent"
    " WHERE build = :build LIMIT 1001"
)
_MODELS = 1000
"""Models that a build may have asked."""
_PATIENCE = 10
"""Seconds to wait for the database to take a connection."""
_ANSWER = 120.0
"""Seconds that a statement takes at most: one that reads a shard's answers, of a database that others use, some."""
_AWAY = 60.0
"""Seconds that a database may be away in the middle of a build, as when it is started again: no shard fails for it."""
_FINAL = re.compile(
    "authentication|password|does not exist|permission|pg_hba|could not translate|resolve", re.IGNORECASE
)
"""Words of errors that do not go away by waiting."""


class SharedCacheError(RunError):
    """The database of the shared request cache does not answer any more."""


class SharedRequestCache(RequestCache):
    """One table of a database. An instance may be used from several threads; open one per shard."""

    def __init__(self, url: str, ledger: Ledger | None = None, outbox: OutboxLike | None = None) -> None:
        self.ledger = ledger
        self.outbox = outbox
        self._engine = _engine(url)

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self.ledger:
            self.ledger.close()
        if self.outbox:
            self.outbox.close(complete=kind is None)

    def lookup(self, keys: Mapping[str, str]) -> dict[str, Completion]:
        """Known answers by request id. Raises ``SharedCacheError``."""
        rows = _run(self._engine, _SELECT, {"keys": sorted(set(keys.values()))}, _AWAY)
        known = {key: answer for key, answer, digest in rows if digest == entry_digest(key, answer)}
        found = {id_: read_completion(known[key]) for id_, key in keys.items() if key in known}
        return {id_: completion for id_, completion in found.items() if completion is not None}

    def store(self, key: str, completion: Completion) -> None:
        """Keep one finished answer; committed at once. Raises ``SharedCacheError``."""
        # A text of PostgreSQL holds no NUL, and JSON has another way to write one.
        answer = json.dumps(vars(completion), sort_keys=True)
        _run(self._engine, _STORE, {"key": key, "answer": answer, "digest": entry_digest(key, answer)}, _AWAY)


class SharedLedger(Ledger):
    """Counts in a table of the database that the answers are kept in, apart for every build. Open one per shard."""

    def __init__(self, url: str, spending: Spending, model: str) -> None:
        self._engine = _engine(url)
        super().__init__(spending, model)

    def _open(self, spending: Spending) -> None:
        self._build = spending.build

    def close(self) -> None:
        """Nothing: the connections are this process'."""

    def _add(self, images: int, tokens_in: int, tokens_out: int) -> None:
        counts = {"images": images, "tokens_in": tokens_in, "tokens_out": tokens_out}
        _run(self._engine, _COUNT, {"build": self._build, "model": self._model, **counts}, _AWAY)

    def read_spent(self) -> dict[str, Spent]:
        """What was spent so far, by model. Raises ``SharedCacheError``."""
        rows = _run(self._engine, _SELECT_SPENT, {"build": self._build}, _AWAY)
        usable = (isinstance(row[0], str) and all(isinstance(n, int) and n >= 0 for n in row[1:]) for row in rows)
        if len(rows) > _MODELS or not all(usable):
            raise SharedCacheError("the table talking_points_spent holds counts that no build writes there")
        return {row[0]: Spent(*row[1:]) for row in rows}


def check_shared_cache(url: str) -> None:
    """Make the tables where they are missing. Raises ``ConfigError`` where the database cannot be used."""
    if util.find_spec("psycopg") is None:
        raise ConfigError(f"request_cache needs the package 'psycopg', {how_to_install('dask')}")
    try:
        for statement in (_TABLE, _SPENT_TABLE):
            _make_table(_engine(url), statement)
        _run(_engine(url), _SELECT, {"keys": []})
        _run(_engine(url), _SELECT_SPENT, {"build": ""})
    except SharedCacheError as error:
        raise ConfigError(f"request_cache: {error}; start the database, or correct the URL") from error


def _make_table(engine: Engine, statement: str) -> None:
    try:
        _run(engine, statement, {})
    except SharedCacheError:
        # Where another build has made it in the same moment, PostgreSQL refuses this one; and the next one finds it.
        _run(engine, statement, {})


@cache
def _engine(url: str) -> Engine:
    """Connections of this process, which are opened when they are used, and again when they were lost."""
    from sqlalchemy import create_engine

    driver = "postgresql+psycopg://" + url.partition("://")[2]
    return create_engine(driver, pool_pre_ping=True, pool_size=4, connect_args={"connect_timeout": _PATIENCE})


def _run(engine: Engine, statement: str, values: Mapping[str, Any], patience: float = 0) -> list[Any]:
    """What a statement gives, tried again for ``patience`` seconds where the database is away. Raises
    ``SharedCacheError``, and ``Stopped`` where the build is to stop meanwhile.
    """
    from sqlalchemy import text
    from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

    def execute() -> list[Any]:
        with engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    end, pause = time.monotonic() + patience, 0.2
    while True:
        try:
            return answer_within(_ANSWER, execute)
        except TimeoutError:
            raise SharedCacheError(f"the database {engine.url.host} gave no answer within {_ANSWER:g} s") from None
        except SQLAlchemyError as error:
            first = str(error).splitlines()[0]
            away = isinstance(error, OperationalError | InterfaceError) and not _FINAL.search(str(error))
            if not away or time.monotonic() + pause > end:
                raise SharedCacheError(redact(f"the database {engine.url.host} cannot be used ({first})")) from None
        stop_if_requested()
        time.sleep(pause)
        pause = min(2 * pause, 5.0)
