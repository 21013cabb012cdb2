"""Finished model answers in a PostgreSQL database, for workers on several machines.

Keys and digests are those of the local file (``request_cache``), so that both know the same answers. A file of SQLite
on a network file system is not safe with writers on several machines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import util
from typing import TYPE_CHECKING, Any

from talking_points.config import ConfigError
from talking_points.descriptions.backends.protocol import ChatRequest, Completion
from talking_points.descriptions.request_cache import (
    OutboxLike,
    RequestCache,
    entry_digest,
    read_completion,
    request_key,
)
from talking_points.descriptions.spending import Ledger
from talking_points.errors import RunError
from talking_points.extras import how_to_install
from talking_points.redaction import redact

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
_SELECT = "SELECT key, answer, digest FROM talking_points_answers WHERE key = ANY(:keys)"
_PATIENCE = 10
"""Seconds to wait for the database to answer."""


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

    def lookup(self, identity: Mapping[str, Any], requests: Sequence[ChatRequest]) -> dict[str, Completion]:
        """Known answers by request id. Raises ``SharedCacheError``."""
        keys = {request.id: request_key(identity, request) for request in requests}
        rows = _run(self._engine, _SELECT, {"keys": sorted(set(keys.values()))})
        known = {key: answer for key, answer, digest in rows if digest == entry_digest(key, answer)}
        found = {id_: read_completion(known[key]) for id_, key in keys.items() if key in known}
        return {id_: completion for id_, completion in found.items() if completion is not None}

    def store_under(self, key: str, completion: Completion) -> None:
        """Keep one finished answer; committed at once. Raises ``SharedCacheError``."""
        # A text of PostgreSQL holds no NUL, and JSON has another way to write one.
        answer = json.dumps(asdict(completion), sort_keys=True)
        _run(self._engine, _STORE, {"key": key, "answer": answer, "digest": entry_digest(key, answer)})


def check_shared_cache(url: str) -> None:
    """Make the table where it is missing. Raises ``ConfigError`` where the database cannot be used."""
    if util.find_spec("psycopg") is None:
        raise ConfigError(f"request_cache needs the package 'psycopg', {how_to_install('dask')}")
    try:
        _run(_engine(url), _TABLE, {})
        _run(_engine(url), _SELECT, {"keys": []})
    except SharedCacheError as error:
        raise ConfigError(f"request_cache: {error}; start the database, or correct the URL") from error


@cache
def _engine(url: str) -> Engine:
    """Connections of this process, which are opened when they are used, and again when they were lost."""
    from sqlalchemy import create_engine

    driver = "postgresql+psycopg://" + url.partition("://")[2]
    return create_engine(driver, pool_pre_ping=True, pool_size=4, connect_args={"connect_timeout": _PATIENCE})


def _run(engine: Engine, statement: str, values: Mapping[str, Any]) -> list[Any]:
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []
    except SQLAlchemyError as error:
        first = str(error).splitlines()[0]
        raise SharedCacheError(redact(f"the database {engine.url.host} cannot be used ({first})")) from None
