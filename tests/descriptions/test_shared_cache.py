"""The request cache that workers on several machines share, on a real PostgreSQL."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError

from commands.orchestrator import free_port
from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from talking_points.descriptions import shared_cache
from talking_points.descriptions.asking import WholesaleFailure, ask
from talking_points.descriptions.backends.protocol import ChatRequest, Completion
from talking_points.descriptions.request_cache import RequestCache, entry_digest, request_key
from talking_points.descriptions.shared_cache import (
    SharedCacheError,
    SharedLedger,
    SharedRequestCache,
    check_shared_cache,
)
from talking_points.descriptions.spending import Spent
from talking_points.stop_requests import clear_stop
from tests.descriptions.kept_answers import keep, look_up
from tests.descriptions.test_asking import CONFIG, Scripted, requests
from tests.descriptions.test_request_cache import MODEL, request
from tests.descriptions.test_spending import order as spending_order
from tests.descriptions.test_spending import right
from tests.postgresql import postgresql_server

pytest.importorskip("psycopg", reason="psycopg is not installed")

ANSWER = Completion("a dark edge \x00 😀", "stop", 12, 3)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgresql_server() as place:
        found = f"postgresql://{place}"
        check_shared_cache(found)
        yield found


def test_both_caches_know_the_same_answers_under_the_same_keys(url: str, tmp_path: Path) -> None:
    with RequestCache(tmp_path / "c.sqlite") as local, SharedRequestCache(url) as shared:
        for cache in (local, shared):
            keep(cache, MODEL, request(), ANSWER)
        asked = [request(), request(1), request(0, id="again")]
        assert look_up(shared, MODEL, asked) == look_up(local, MODEL, asked) == {"row0": ANSWER, "again": ANSWER}
        assert look_up(shared, MODEL | {"model": "other"}, asked) == {}
        assert look_up(shared, MODEL, []) == {}
        keep(shared, MODEL, request(), replace(ANSWER, text="new"))
        assert look_up(shared, MODEL, [request()])["row0"].text == "new"


def test_many_writers_lose_nothing(url: str) -> None:
    def write(worker: int) -> None:
        with SharedRequestCache(url) as cache:
            for number in range(20):
                keep(cache, MODEL, request(100 + number), replace(ANSWER, text=f"{number}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with SharedRequestCache(url) as cache:
        found = look_up(cache, MODEL, [request(100 + number) for number in range(20)])
    assert {id_: answer.text for id_, answer in found.items()} == {f"row{100 + n}": str(n) for n in range(20)}


@pytest.mark.parametrize(
    ("answer", "digest"),
    [
        ('{"text": "x"}', "wrong"),
        ("{", None),
        ('{"text": 1}', None),
        ("[]", None),
        pytest.param(json.dumps(vars(ANSWER) | {"text": "x" * (17 << 20)}), None, id="17 MiB"),
        pytest.param(json.dumps(vars(ANSWER)), "d" * (1 << 20), id="a digest of a megabyte"),
    ],
)
def test_an_entry_that_is_not_ours_counts_as_unknown(url: str, answer: str, digest: str | None) -> None:
    key = request_key(MODEL, request(7))
    values = {"key": key, "answer": answer, "digest": digest or entry_digest(key, answer)}
    shared_cache._run(shared_cache._engine(url), shared_cache._STORE, values)
    with SharedRequestCache(url) as cache:
        assert look_up(cache, MODEL, [request(7)]) == {}


def test_a_database_that_is_not_there_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql://ann:s3cretword@127.0.0.1:{free_port()}/answers"
    with pytest.raises(ConfigError, match=r"request_cache: the database 127\.0\.0\.1 cannot be used") as refused:
        check_shared_cache(url)
    assert "s3cretword" not in str(refused.value)
    monkeypatch.setattr(shared_cache, "_AWAY", 0.1)
    with SharedRequestCache(url) as cache, pytest.raises(SharedCacheError):
        look_up(cache, MODEL, [request()])


class Away:
    """An engine whose database is away for some tries."""

    url = SimpleNamespace(host="there")

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors

    def begin(self) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return nullcontext(SimpleNamespace(execute=lambda *_: SimpleNamespace(returns_rows=False)))


@pytest.mark.parametrize(
    ("kind", "words", "waits"),
    [
        (OperationalError, "connection refused", True),
        (OperationalError, "the database system is starting up", True),
        (InterfaceError, "connection already closed", True),
        (OperationalError, 'password authentication failed for user "ann"', False),
        (OperationalError, 'database "x" does not exist', False),
        (ProgrammingError, "syntax error", False),
    ],
)
def test_a_database_that_comes_back_fails_nothing(
    kind: type[DBAPIError], words: str, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear_stop()
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    errors: list[Exception] = [kind("SELECT", {}, Exception(words)) for _ in range(3)]
    engine: Any = Away(errors)
    with nullcontext() if waits else pytest.raises(SharedCacheError, match=words):
        shared_cache._run(engine, "SELECT", {}, 60)
    assert len(slept) == (3 if waits else 0)
    with pytest.raises(SharedCacheError, match="refused"):
        shared_cache._run(cast(Any, Away([OperationalError("", {}, Exception("refused"))])), "SELECT", {})


def test_a_database_that_takes_a_statement_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_cache, "_ANSWER", 0.1)
    silent = SimpleNamespace(url=SimpleNamespace(host="there"), begin=threading.Event().wait)
    with pytest.raises(SharedCacheError, match=r"the database there gave no answer within 0\.1 s"):
        shared_cache._run(cast(Any, silent), "SELECT", {}, 60)


def test_all_workers_of_a_build_count_what_answers_cost_in_the_database(url: str, tmp_path: Path) -> None:
    clear_stop()
    here, other = (
        spending_order(tmp_path, "0.04 USD").model_copy(update={"build": name, "file": str(tmp_path / "none" / "x")})
        for name in ("here", "other")
    )
    request, answer = ChatRequest(id="a", step="generate", prompt="b"), Completion("x", "stop", 7, 3)
    ledgers = [SharedLedger(url, here, "m") for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: ledgers[n % 3].count(request, answer), range(60)))
    assert all(ledger.read_spent() == {"m": Spent(60, 0, 420, 180)} for ledger in ledgers)
    SharedLedger(url, here, "without a price").count(request, answer)
    assert SharedLedger(url, other, "m").read_spent() == {}
    assert not (tmp_path / "none").exists()

    # 100 requests of 0.001 USD each, and 0.04 USD: as in one file.
    served, backend = CONFIG.model_copy(update={"concurrency": 8}), Scripted(right)
    with SharedRequestCache(url, SharedLedger(url, other, "m")) as cache:
        with pytest.raises(WholesaleFailure, match=r"0\.04 USD is spent \(0\.04 USD for 40 answers\).*larger budget"):
            ask(backend, requests(100), served, cache)
        assert len(backend.asked) == 40

    planted = {"build": "here", "model": "m", "images": -1, "tokens_in": 0, "tokens_out": 0}
    shared_cache._run(shared_cache._engine(url), shared_cache._COUNT, planted)
    with pytest.raises(SharedCacheError, match="counts that no build writes there"):
        ledgers[0].left()


def test_several_builds_may_begin_at_once(url: str) -> None:
    shared_cache._run(shared_cache._engine(url), "DROP TABLE talking_points_answers, talking_points_spent", {})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: check_shared_cache(url), range(8)))


@pytest.mark.parametrize("url", ["sqlite:///x", "postgresql://", "http://x/y", "postgresql+pg8000://h/d", "x y"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected postgresql://HOST/DATABASE"):
        load_config(BuildConfig, None, [], output="x", request_cache=url)


@pytest.mark.parametrize("place", ["h:port", "h:99999", "ann:pa@ss:w/rd@h"])
def test_an_url_with_a_sign_that_is_not_encoded_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="@ : / of a password are %40 %3A %2F"):
        load_config(BuildConfig, None, [], output="x", request_cache=f"postgresql://{place}/answers")
