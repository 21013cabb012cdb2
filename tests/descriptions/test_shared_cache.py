"""The request cache that workers on several machines share, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from commands.orchestrator import free_port
from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from talking_points.descriptions.backends.protocol import Completion
from talking_points.descriptions.request_cache import RequestCache, entry_digest, request_key
from talking_points.descriptions.shared_cache import SharedCacheError, SharedRequestCache, check_shared_cache
from tests.descriptions.test_request_cache import MODEL, request
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
            cache.store(MODEL, request(), ANSWER)
        asked = [request(), request(1), request(0, id="again")]
        assert shared.lookup(MODEL, asked) == local.lookup(MODEL, asked) == {"row0": ANSWER, "again": ANSWER}
        assert shared.lookup(MODEL | {"model": "other"}, asked) == {}
        assert shared.lookup(MODEL, []) == {}
        shared.store(MODEL, request(), replace(ANSWER, text="new"))
        assert shared.lookup(MODEL, [request()])["row0"].text == "new"


def test_many_writers_lose_nothing(url: str) -> None:
    def write(worker: int) -> None:
        with SharedRequestCache(url) as cache:
            for number in range(20):
                cache.store(MODEL, request(100 + number), replace(ANSWER, text=f"{number}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with SharedRequestCache(url) as cache:
        found = cache.lookup(MODEL, [request(100 + number) for number in range(20)])
    assert {id_: answer.text for id_, answer in found.items()} == {f"row{100 + n}": str(n) for n in range(20)}


@pytest.mark.parametrize(
    ("answer", "digest"), [('{"text": "x"}', "wrong"), ("{", None), ('{"text": 1}', None), ("[]", None)]
)
def test_an_entry_that_is_not_ours_counts_as_unknown(url: str, answer: str, digest: str | None) -> None:
    from talking_points.descriptions import shared_cache

    key = request_key(MODEL, request(7))
    values = {"key": key, "answer": answer, "digest": digest or entry_digest(key, answer)}
    shared_cache._run(shared_cache._engine(url), shared_cache._STORE, values)
    with SharedRequestCache(url) as cache:
        assert cache.lookup(MODEL, [request(7)]) == {}


def test_a_database_that_is_not_there_is_named_without_its_password() -> None:
    url = f"postgresql://ann:s3cretword@127.0.0.1:{free_port()}/answers"
    with pytest.raises(ConfigError, match=r"request_cache: the database 127\.0\.0\.1 cannot be used") as refused:
        check_shared_cache(url)
    assert "s3cretword" not in str(refused.value)
    with SharedRequestCache(url) as cache, pytest.raises(SharedCacheError):
        cache.lookup(MODEL, [request()])


@pytest.mark.parametrize("url", ["sqlite:///x", "postgresql://", "http://x/y", "postgresql+pg8000://h/d", "x y"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected postgresql://HOST/DATABASE"):
        load_config(BuildConfig, None, [], output="x", request_cache=url)
