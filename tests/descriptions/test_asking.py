from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from talking_points.build_config import StepConfig
from talking_points.descriptions import asking, steps
from talking_points.descriptions.asking import WholesaleFailure, ask, share_backend
from talking_points.descriptions.backends.protocol import (
    BackendUnavailable,
    Capabilities,
    ChatRequest,
    Completion,
    OnAnswer,
    RequestError,
)
from talking_points.descriptions.request_cache import RequestCache
from talking_points.stop_requests import Stopped, clear_stop, request_stop

CONFIG = StepConfig(backend="openai", model="m", endpoint="http://127.0.0.1:9/v1", concurrency=2)

Reply = Callable[[ChatRequest, int], Completion | RequestError]


class Scripted:
    """A backend that answers by a function of the request and how often it was asked."""

    capabilities = Capabilities(vision=False, concurrent=True)
    identity = {"backend": "scripted"}  # noqa: RUF012 - constant

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[str] = []

    def complete(
        self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None
    ) -> list[Completion | RequestError]:
        results = []
        for request in requests:
            self.asked.append(request.id)
            results.append(self.reply(request, self.asked.count(request.id) - 1))
            if on_answer:
                on_answer(request, results[-1])
        return results

    def close(self) -> None: ...


def requests(count: int) -> Iterator[ChatRequest]:
    for number in range(count):
        yield ChatRequest(id=f"r{number}", step="generate", prompt=f"prompt {number}")


def right(request: ChatRequest, attempt: int) -> Completion:
    return Completion(f"about {request.id}", "stop", 5, 2)


@pytest.fixture(autouse=True)
def not_stopped() -> Iterator[None]:
    clear_stop()
    yield
    clear_stop()


def test_rows_that_fail_in_passing_get_a_second_chance_at_the_end() -> None:
    def reply(request: ChatRequest, attempt: int) -> Completion | RequestError:
        if request.id == "r3":
            return RequestError("timeout", "", retryable=True) if attempt == 0 else right(request, attempt)
        if request.id == "r5":
            return Completion("cut o", "length")
        if request.id == "r7":
            return RequestError("bad_request", "no")
        return right(request, attempt)

    backend = Scripted(reply)
    found = ask(backend, requests(20), CONFIG, None)
    assert backend.asked[20:] == ["r3", "r5"]
    assert found["r3"].text == "about r3"
    errors = {name: answer.error.reason for name, answer in found.items() if answer.error}
    assert errors == {"r5": "truncated", "r7": "bad_request"}
    assert found["r5"].text == "cut o", "the quarantine shows what was written"
    assert (found["r0"].tokens_in, found["r0"].tokens_out) == (5, 2)


def test_a_backend_that_says_the_same_again_is_asked_once() -> None:
    backend = Scripted(lambda request, attempt: Completion("cut o", "length"))
    backend.capabilities = dataclasses.replace(backend.capabilities, repeats=True)
    found = ask(backend, requests(3), CONFIG, None)
    assert backend.asked == ["r0", "r1", "r2"]
    assert {answer.error.reason for answer in found.values() if answer.error} == {"truncated"}


def test_answers_are_kept_one_by_one_and_failures_are_not(tmp_path: Path) -> None:
    def dies(request: ChatRequest, attempt: int) -> Completion | RequestError:
        if request.id == "r4":
            raise OSError("power loss")
        return RequestError("server_error") if request.id == "r2" else right(request, attempt)

    with RequestCache(tmp_path / "c.sqlite") as cache, pytest.raises(OSError, match="power loss"):
        ask(Scripted(dies), requests(8), CONFIG, cache)
    backend = Scripted(right)
    with RequestCache(tmp_path / "c.sqlite") as cache:
        found = ask(backend, requests(8), CONFIG, cache)
    assert backend.asked == ["r2", "r4", "r5", "r6", "r7"]
    assert {name: answer.text for name, answer in found.items()} == {f"r{n}": f"about r{n}" for n in range(8)}


def test_a_changed_parser_reads_kept_answers_and_nothing_is_generated_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.model_copy(update={"structured": True})

    def reply(request: ChatRequest, attempt: int) -> Completion:
        text = '{"description": "%s"}' if request.id != "r1" else "description: %s"
        return Completion(text % f"about {request.id}", "stop", 5, 2)

    backend = Scripted(reply)
    with RequestCache(tmp_path / "c.sqlite") as cache:
        found = ask(backend, requests(4), config, cache)
        assert backend.asked == ["r0", "r1", "r2", "r3", "r1"]
        assert found["r1"].error is not None
        assert found["r1"].error.reason == "malformed_answer"

        parse = steps.parse_answer
        monkeypatch.setattr(
            steps,
            "parse_answer",
            lambda text, structured: parse(text.removeprefix("description: "), structured and text[0] == "{").upper(),
        )
        found = ask(backend, requests(4), config, cache)
    assert len(backend.asked) == 5
    assert {name: answer.text for name, answer in found.items()} == {f"r{n}": f"ABOUT R{n}" for n in range(4)}


def test_a_window_that_fails_as_one_ends_the_run() -> None:
    backend = Scripted(lambda request, attempt: RequestError("bad_request", "context is 8 tokens"))
    with pytest.raises(WholesaleFailure, match=r"first 16 requests.*bad_request: context is 8 tokens"):
        ask(backend, requests(500), CONFIG, None)
    assert len(backend.asked) <= 16


def test_one_good_row_in_the_window_is_enough_to_go_on() -> None:
    backend = Scripted(lambda r, attempt: right(r, attempt) if r.id == "r9" else RequestError("bad_request"))
    assert sum(answer.error is None for answer in ask(backend, requests(40), CONFIG, None).values()) == 1


def test_a_backend_that_is_lost_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(request: ChatRequest, attempt: int) -> Completion:
        raise BackendUnavailable("no answer from http://127.0.0.1:9")

    monkeypatch.setattr(asking, "open_backend", lambda config, logs: Scripted(gone))
    with pytest.raises(WholesaleFailure, match=r"no answer.*run again"), share_backend("generate", CONFIG) as backend:
        ask(backend, requests(3), CONFIG, None)
    asking.release_backend()


def test_a_model_is_released_once_nobody_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Scripted] = []
    monkeypatch.setattr(Scripted, "close", lambda self: closed.append(self))
    monkeypatch.setattr(asking, "open_backend", lambda config, logs: Scripted(right))
    other = CONFIG.model_copy(update={"model": "other"})
    with share_backend("generate", CONFIG) as first, share_backend("refine", CONFIG) as second:
        assert first is second
        asking.release_backend()
        assert not closed
    with share_backend("refine", other) as third:
        assert closed == [first]
    asking.release_backend()
    asking.release_backend()
    assert closed == [first, third]


def test_a_model_that_turns_out_to_take_no_images_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "open_backend", lambda config, logs: Scripted(right))
    with (
        pytest.raises(WholesaleFailure, match=r"local_caption\.backend: .*takes none"),
        share_backend("local_caption", CONFIG),
    ):
        pass
    with share_backend("generate", CONFIG) as backend:
        assert ask(backend, requests(3), CONFIG, None)["r2"].text == "about r2"
    asking.release_backend()


def test_a_model_call_that_takes_its_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from talking_points import stop_requests

    monkeypatch.setattr(stop_requests, "_PATIENCE", 0.3)
    release = threading.Event()

    def slow(request: ChatRequest, attempt: int) -> Completion:
        request_stop()
        release.wait(30)
        return right(request, attempt)

    with pytest.raises(Stopped, match="run it again"):
        ask(Scripted(slow), requests(3), CONFIG, None)
    release.set()
