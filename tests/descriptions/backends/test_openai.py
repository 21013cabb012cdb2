"""The client against a real HTTP server that misbehaves on demand: the prompt says how, the answer counts the tries."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np
import pytest

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends import openai
from talking_points.descriptions.backends.openai import OpenAIBackend
from talking_points.descriptions.backends.protocol import (
    Backend,
    BackendUnavailable,
    ChatRequest,
    Completion,
    RequestError,
)
from talking_points.descriptions.steps import ANSWER_SCHEMA, answer_or_error
from tests.descriptions.backends import contract
from tests.patience import patient

MODEL = "tiny"


@dataclass
class Server:
    """What the server saw."""

    endpoint: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)
    keys: set[str | None] = field(default_factory=set)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _prompt(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test output clean."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") == "Bearer wrong":
            return self._send(401, {"error": {"message": "bad key"}})
        return self._send(200, {"data": [{"id": MODEL}, {"id": "locked"}, {"id": "nowhere"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, state = _prompt(body), self.state
        with state.lock:
            state.bodies.append(body)
            state.tries[prompt] += 1
            tries = state.tries[prompt]
            state.keys.add(self.headers.get("Authorization"))
            state.at_once += 1
            state.most_at_once = max(state.most_at_once, state.at_once)
        try:
            self._misbehave(prompt, tries, body)
        finally:
            with state.lock:
                state.at_once -= 1

    def _misbehave(self, prompt: str, tries: int, body: dict[str, Any]) -> None:
        kind, _, times = prompt.partition(" x")
        if tries <= int(times or 10**6):
            if kind.isdigit():
                return self._send(int(kind), {"error": {"message": f"told to say {kind}"}})
            if kind.startswith("wait"):
                moment = formatdate(time.time() + 1.2, usegmt=True) if kind == "wait-date" else "0.3"
                return self._send(429, {"error": "slow down"}, {"Retry-After": moment})
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return None
            if kind == "hang":
                time.sleep(1.0)
                self.close_connection = True
                return None
            if kind == "garbage":
                return self._send_bytes(200, b"<html>502 bad gateway</html>")
            if kind == "no choices":
                return self._send(200, {"choices": []})
            if kind == "too long":
                detail = "This model's maximum context length is 512 tokens, however you requested 900 tokens."
                return self._send(400, {"object": "error", "message": detail})
        if kind.startswith("slow"):
            time.sleep(0.1)
        finish = {"cut": "length", "filtered": "content_filter", "tools": "tool_calls"}.get(kind, "stop")
        text = "" if kind == "empty" else f"answer to {prompt}"
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if kind == "refused":
            message = {"role": "assistant", "content": None, "refusal": "no"}
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        return self._send(200, {"choices": [{"message": message, "finish_reason": finish}], "usage": usage})

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(body).encode(), headers)

    def _send_bytes(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up is part of these tests."""

    http = Quiet(("127.0.0.1", 0), _Handler)
    state = Server(f"http://127.0.0.1:{http.server_address[1]}/v1")
    _Handler.state = state
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "FIRST_DELAY", 0.01)


def _config(server: Server, **changes: Any) -> StepConfig:
    values: dict[str, Any] = {"backend": "openai", "model": MODEL, "endpoint": server.endpoint, "timeout": 5.0}
    return StepConfig(**(values | changes))


def _request(prompt: str, **changes: Any) -> ChatRequest:
    return ChatRequest(**({"id": prompt, "step": "generate", "prompt": prompt} | changes))


def _complete(server: Server, *requests: ChatRequest, **config: Any) -> list[Completion | RequestError]:
    backend = OpenAIBackend(_config(server, **config))
    try:
        return backend.complete(requests)
    finally:
        backend.close()


def test_answers_come_in_order_with_their_token_counts(server):
    answers = _complete(server, *(_request(f"slow {number}") for number in range(20)))
    assert [answer.text for answer in answers if isinstance(answer, Completion)] == [
        f"answer to slow {number}" for number in range(20)
    ]
    assert answers[0] == Completion("answer to slow 0", "stop", 7, 3)


def test_it_works_beside_another_kind_of_event_loop(server, monkeypatch):
    """A worker of Ray has that of uvloop, which differs in what it takes."""
    uvloop = pytest.importorskip("uvloop")
    monkeypatch.setattr(asyncio, "new_event_loop", uvloop.new_event_loop)
    assert _complete(server, _request("fine")) == [Completion("answer to fine", "stop", 7, 3)]


def test_each_answer_is_told_as_it_finishes(server):
    backend = OpenAIBackend(_config(server))
    told: list[str] = []
    backend.complete([_request("wait x1"), _request("fine")], on_answer=lambda request, _: told.append(request.id))
    assert told == ["fine", "wait x1"]
    contract.check_each_answer_is_told(backend)
    backend.close()


def test_it_is_a_backend_whose_identity_leaves_the_endpoint_out(server):
    backend = OpenAIBackend(_config(server, revision="abc"))
    assert isinstance(backend, Backend)
    assert backend.identity == {"backend": "openai", "model": MODEL, "revision": "abc"}
    backend.close()
    backend.close()


@pytest.mark.parametrize("kind", ["429", "500", "502", "503", "reset", "garbage", "no choices"])
def test_transient_failures_are_repeated_until_they_pass(server, kind):
    prompt = f"{kind} x2"
    assert _complete(server, _request(prompt)) == [Completion(f"answer to {prompt}", "stop", 7, 3)]
    assert server.tries[prompt] == 3


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("429", "rate_limited"),
        ("500", "server_error"),
        ("reset", "connection_lost"),
        ("garbage", "malformed_response"),
    ],
)
def test_failures_that_last_become_errors_of_their_request_alone(server, kind, reason):
    bad, good = _complete(server, _request(kind), _request("fine"), options={"attempts": 3})
    assert isinstance(bad, RequestError)
    assert (bad.reason, bad.retryable) == (reason, True)
    assert server.tries[kind] == 3
    assert isinstance(good, Completion)


def test_a_hanging_request_times_out_and_the_others_do_not_wait_for_it(server):
    hanging, good = _complete(server, _request("hang"), _request("fine"), timeout=0.2, options={"attempts": 2})
    assert isinstance(hanging, RequestError)
    assert (hanging.reason, hanging.retryable) == ("timeout", True)
    assert "0.2 s" in hanging.detail
    assert isinstance(good, Completion)


@pytest.mark.parametrize(("kind", "least"), [("wait", 0.3), ("wait-date", 0.2)])
def test_retry_after_is_honoured_in_seconds_and_as_a_date(server, kind, least):
    started = time.monotonic()
    (answer,) = _complete(server, _request(f"{kind} x1"))
    assert isinstance(answer, Completion)
    assert least <= time.monotonic() - started < patient(5)


@pytest.mark.parametrize(
    ("status", "reason"), [("400", "bad_request"), ("422", "bad_request"), ("too long", "too_long")]
)
def test_what_cannot_succeed_is_not_repeated(server, status, reason):
    bad, good = _complete(server, _request(status), _request("fine"))
    assert isinstance(bad, RequestError)
    assert (bad.reason, bad.retryable) == (reason, False)
    assert server.tries[status] == 1
    assert isinstance(good, Completion)


def test_too_long_requests_say_their_length_and_the_limit(server):
    (error,) = _complete(server, _request("too long"))
    assert isinstance(error, RequestError)
    assert "512" in error.detail
    assert "900" in error.detail


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("cut", "truncated"), ("filtered", "content_filter"), ("refused", "content_filter"), ("empty", "empty_answer")],
)
def test_unfinished_answers_are_failures(server, kind, reason):
    error = answer_or_error(_complete(server, _request(kind))[0])
    assert isinstance(error, RequestError)
    assert error.reason == reason


def test_an_unknown_end_is_an_error(server):
    (error,) = _complete(server, _request("tools"))
    assert isinstance(error, RequestError)
    assert error.reason == "unexpected_finish"


def test_the_image_arrives_pixel_for_pixel(server):
    image = np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    _complete(server, _request("look", step="local_caption", images=(image,), system="You look."))
    system, user = server.bodies[0]["messages"]
    assert system == {"role": "system", "content": [{"type": "text", "text": "You look."}]}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    url = user["content"][0]["image_url"]["url"]
    data = np.frombuffer(base64.b64decode(url.removeprefix("data:image/png;base64,")), np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    np.testing.assert_array_equal(decoded[..., ::-1], image)


def test_a_vision_request_without_its_image_is_refused_unsent(server):
    (error,) = _complete(server, _request("look", step="local_caption"))
    assert isinstance(error, RequestError)
    assert error.reason == "image_missing"
    assert not server.bodies


def test_settings_seeds_schemas_and_options_are_sent(server):
    request = _request("fine", seed=2**32 - 1, temperature=0.5, max_tokens=9, schema=ANSWER_SCHEMA)
    _complete(server, request, options={"top_p": 0.9, "attempts": 2})
    (body,) = server.bodies
    assert (body["seed"], body["temperature"], body["max_tokens"], body["top_p"]) == (2**32 - 1, 0.5, 9, 0.9)
    assert body["response_format"]["json_schema"]["schema"] == ANSWER_SCHEMA
    assert "attempts" not in body
    assert body["messages"] == [{"role": "user", "content": "fine"}]


def test_a_schema_is_sent_in_the_form_that_the_server_knows(server):
    _complete(server, _request("fine", schema=ANSWER_SCHEMA), options={"schema_as": "json_object"})
    (body,) = server.bodies
    assert body["response_format"] == {"type": "json_object", "schema": ANSWER_SCHEMA}
    assert "schema_as" not in body
    with pytest.raises(BackendUnavailable, match="expected 'json_schema' or 'json_object', found 'grammar'"):
        OpenAIBackend(_config(server, options={"schema_as": "grammar"}))


def test_concurrency_is_bounded_and_used(server):
    _complete(server, *(_request(f"slow {number}") for number in range(24)), concurrency=6)
    assert server.most_at_once == 6


def test_callers_share_the_slots(server):
    backend = OpenAIBackend(_config(server, concurrency=4))
    answers: list[Any] = []
    callers = [
        threading.Thread(
            target=lambda n=n: answers.extend(backend.complete([_request(f"slow {n}{k}") for k in range(5)]))
        )
        for n in "abc"
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    backend.close()
    assert len(answers) == 15
    assert all(isinstance(answer, Completion) for answer in answers)
    assert server.most_at_once == 4


def test_the_key_comes_from_the_named_variable(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    _complete(server, _request("fine"), api_key_env="MY_KEY")
    assert server.keys == {"Bearer secret"}
    monkeypatch.setenv("MY_KEY", "wrong")
    with pytest.raises(BackendUnavailable, match="MY_KEY") as caught:
        OpenAIBackend(_config(server, api_key_env="MY_KEY"))
    assert "wrong" not in str(caught.value)


def test_a_server_that_is_not_there_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(BackendUnavailable, match="vllm serve tiny"):
        OpenAIBackend(StepConfig(backend="openai", model=MODEL, endpoint=endpoint))


def test_a_model_that_is_not_served_is_named_with_those_that_are(server):
    with pytest.raises(BackendUnavailable, match="does not serve 'other': it lists tiny"):
        OpenAIBackend(_config(server, model="other"))


@pytest.mark.parametrize(
    ("prompt", "message"), [("401", "OPENAI_API_KEY"), ("403", "OPENAI_API_KEY"), ("404", "base URL")]
)
def test_what_concerns_every_request_stops_the_batch(server, prompt, message):
    with pytest.raises(BackendUnavailable, match=message):
        _complete(server, _request(prompt), *(_request(f"slow {number}") for number in range(4)))
