"""Whatever one response of a server is, it costs its own request at most; what it says is read in every known form."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends import openai
from talking_points.descriptions.backends.chat_completions import Retry, read_completion, retry_after
from talking_points.descriptions.backends.endpoint import api_key
from talking_points.descriptions.backends.openai import OpenAIBackend
from talking_points.descriptions.backends.protocol import (
    BackendUnavailable,
    ChatRequest,
    Completion,
    RequestError,
)

TEXT = "a smooth brown surface"
Reply = tuple[int, dict[str, str], bytes]


def completion(content: Any = TEXT, finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {
        "choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def read(body: Any) -> Completion | RequestError:
    """What is read from a response with this body."""
    try:
        return read_completion(httpx.Response(200, content=json.dumps(body).encode()))
    except Retry as retry:
        return retry.error


@pytest.mark.parametrize(
    ("finish", "read_as"),
    [
        *((name, "stop") for name in ("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE", "")),
        *((name, "stop") for name in (None, "FINISH_REASON_STOP", "end-turn", {"type": "stop"})),
        *((name, "length") for name in ("length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens")),
        *((name, "content_filter") for name in ("content_filter", "SAFETY", "RECITATION", "refusal", "sensitive")),
    ],
)
def test_the_end_of_an_answer_is_known_in_the_spelling_of_every_server(finish: Any, read_as: str) -> None:
    assert read(completion(finish=finish)) == Completion(TEXT, read_as, 7, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("finish", ["error", "network_error", "abort", "insufficient_system_resource"])
def test_an_answer_that_the_server_broke_off_is_asked_for_again(finish: str) -> None:
    error = read(completion(finish=finish))
    assert isinstance(error, RequestError)
    assert (error.reason, error.retryable) == ("server_error", True)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": TEXT}], TEXT),
        ([{"type": "output_text", "text": TEXT}], TEXT),
        ([{"text": TEXT}], TEXT),
        (["a smooth ", {"type": "text", "text": "brown surface"}], TEXT),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": TEXT}], TEXT),
        ([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": {"value": TEXT}}], TEXT),
        ({"type": "text", "text": TEXT}, TEXT),
        ([], ""),
        (None, ""),
    ],
)
def test_text_parts_are_joined_and_thinking_is_left_out(content: Any, text: str) -> None:
    assert read(completion(content)) == Completion(text, "stop", 7, 3)


def test_text_beside_the_reason_is_read_as_the_older_api_gives_it() -> None:
    assert read({"choices": [{"text": TEXT, "finish_reason": "stop"}]}) == Completion(TEXT)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (completion(None, reasoning_content="The user wants"), "reasoning_only"),
        (completion("", reasoning="The user wants"), "reasoning_only"),
        (completion(7), "malformed_response"),
        (completion([7]), "malformed_response"),
        (completion([{"type": "text"}]), "malformed_response"),
        (completion(finish="tool_calls"), "unexpected_finish"),
        (completion(finish=["stop"]), "unexpected_finish"),
        ({"choices": []}, "malformed_response"),
        ({"choices": None}, "malformed_response"),
        ({"choices": [{"finish_reason": "stop"}]}, "malformed_response"),
        ({"error": {"message": "busy"}}, "malformed_response"),
        ([], "malformed_response"),
        (None, "malformed_response"),
    ],
)
def test_what_is_no_answer_is_told_as_what_it_is(body: Any, reason: str) -> None:
    error = read(body)
    assert isinstance(error, RequestError)
    assert error.reason == reason


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "many",
        {"prompt_tokens": "7"},
        {"prompt_tokens": -1},
        {"prompt_tokens": float("nan")},
        {"prompt_tokens": 10**30},
    ],
)
def test_an_answer_is_not_lost_for_an_odd_count_of_tokens(usage: Any) -> None:
    assert read(completion() | {"usage": usage}) == Completion(TEXT, "stop", 0, 0)


@pytest.mark.parametrize(
    ("usage", "prompt", "answer"),
    [
        ({"input_tokens": 7, "output_tokens": 3}, 7, 3),
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": None}, 7, 3),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 6}}, 7, 3),
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 110}, 7, 103),  # reasoning is in the total alone
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": None}, 7, 3),
        ({"total_tokens": 10}, 0, 0),
    ],
)
def test_tokens_are_counted_in_the_words_of_every_server(usage: Any, prompt: int, answer: int) -> None:
    assert read(completion() | {"usage": usage}) == Completion(TEXT, "stop", prompt, answer)


@pytest.mark.parametrize(
    "body", [completion("", reasoning_content="hm"), completion(finish="tool_calls"), completion(finish="odd")]
)
def test_what_is_no_answer_says_what_it_took(body: Any) -> None:
    """A budget counts all that is paid for."""
    error = read(body)
    assert isinstance(error, RequestError)
    assert (error.prompt_tokens, error.completion_tokens) == (7, 3)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("0.5", 0.5, 0.5),
        ("-3", 0, 0),
        ("inf", 10**6, float("inf")),
        ("Sat Nov 28 10:00:00 2020", 0, 0),
        ("Sat, 28 Nov 2020 10:00:00 -0000", 0, 0),
        ("Sat, 28 Nov 2099 10:00:00 GMT", 10**6, 10**11),
        ("Sat Nov 28 10:00:00 2099", 10**6, 10**11),
        ("nan", None, None),
        ("soon", None, None),
        ("", None, None),
        ("Sat, 99 Nov 2026 10:00:00 GMT", None, None),
        ("1, 2", None, None),
    ],
)
def test_every_way_to_ask_for_a_pause_is_understood_or_ignored(value: str, least: Any, most: Any) -> None:
    wait = retry_after(httpx.Response(429, headers={"Retry-After": value}))
    assert wait is None if least is None else wait is not None and least <= wait <= most


class _Server:
    """Answers POSTs with what ``reply`` gives for the number of the request, from 1."""

    def __init__(self, reply: Callable[[int], Reply], listed: list[str]) -> None:
        seen: list[tuple[str, dict[str, str], bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test output clean."""

            def do_GET(self) -> None:
                self.give((200, {}, json.dumps({"data": [{"id": name} for name in listed]}).encode()))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                seen.append((self.path, dict(self.headers), body))
                self.give(reply(len(seen)))

            def give(self, answer: Reply) -> None:
                status, headers, body = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self.seen = seen
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


Serve = Callable[..., _Server]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr(openai, "FIRST_DELAY", 0.01)
    running: list[_Server] = []

    def start(reply: Callable[[int], Reply], listed: list[str] | None = None) -> _Server:
        running.append(_Server(reply, ["m"] if listed is None else listed))
        return running[-1]

    yield start
    for server in running:
        server.http.shutdown()
        server.http.server_close()


RIGHT: Reply = (200, {"Content-Type": "application/json"}, json.dumps(completion()).encode())


def ask(server: _Server, *, count: int = 1, **config: Any) -> list[Completion | RequestError]:
    """Answers of the server to so many requests, one after another."""
    values = {"backend": "openai", "model": "m", "endpoint": server.url, "concurrency": 1, "timeout": 5.0} | config
    backend = OpenAIBackend(StepConfig(**values))
    try:
        return backend.complete([ChatRequest(id=f"r{n}", step="generate", prompt="what?") for n in range(count)])
    finally:
        backend.close()


@pytest.mark.parametrize(
    "odd",
    [
        (429, {"Retry-After": "Sat Nov 28 10:00:00 2020"}, b'{"error":{"message":"slow down"}}'),
        (503, {"Retry-After": "soon"}, b"\xff\xfe"),
        (500, {}, b'{"error": [1, 2]}'),
        (502, {"Content-Type": "text/html; charset=no-such"}, b"<html>"),
        (200, {"Content-Encoding": "gzip"}, b"this is not gzip"),
        (200, {"Content-Encoding": "gzip"}, gzip.compress(b"{" * 100)[:-9]),
        (200, {"Content-Type": "application/json; charset=utf-16"}, b"\xff"),
        (200, {}, b"[" * 200_000),
        (200, {}, b'{"choices": [{"message": {"content": "\xff"}}]}'),
        (200, {"Content-Length": "9999999"}, b"{}"),
        (200, {"Content-Length": "abc"}, b"{}"),
        (200, {"Set-Cookie": "\x7f=;;;=", "Date": "never"}, b"null"),
        (
            200,
            {},
            b'{"choices": [{"message": {"content": ' + b"[" * 700 + b"]" * 700 + b'}, "finish_reason": "stop"}]}',
        ),
        (200, {"Content-Encoding": "gzip, gzip"}, gzip.compress(gzip.compress(RIGHT[2]))),
        (200, {}, b""),
        (204, {}, b""),
        (200, {"X-Odd": "a\x00b"}, RIGHT[2]),
        (307, {"Location": "http://[::bad/"}, b""),
    ],
    ids=lambda odd: f"{odd[0]} {odd[1]}"[:60],
)
def test_one_odd_response_costs_one_try(serve: Serve, odd: Reply) -> None:
    server = serve(lambda number: odd if number == 2 else RIGHT)
    answers = ask(server, count=3, timeout=0.5)
    assert [getattr(answer, "text", answer) for answer in answers] == [TEXT] * 3


def test_half_a_character_in_an_answer_is_one_that_files_take(serve: Serve) -> None:
    body = RIGHT[2].replace(b"brown", b"brown \\ud83d")
    (answer,) = ask(serve(lambda number: (200, {}, body)))
    assert isinstance(answer, Completion)
    assert answer.text.encode() == "a smooth brown \ufffd surface".encode()


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_keeps_the_request_is_followed(serve: Serve, status: int) -> None:
    moved = (status, {"Location": "/v2/chat/completions"}, b"")
    answers = iter([moved, RIGHT, RIGHT] if status == 308 else [moved, RIGHT, moved, RIGHT])
    server = serve(lambda number: next(answers))
    assert len(set(ask(server, count=2))) == 1
    paths = [path for path, _, _ in server.seen]
    old, new = "/v1/chat/completions", "/v2/chat/completions"
    assert paths == ([old, new, new] if status == 308 else [old, new, old, new])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (402, {"message": "Insufficient Balance", "code": 402}),
        (429, {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": None}),
        (429, {"message": "suspended", "type": "exceeded_current_quota_error"}),
        (400, {"message": "Billing hard limit has been reached", "code": "billing_hard_limit_reached"}),
        (403, {"message": "no credits", "code": "insufficient_credits"}),
        (400, {"message": "Your credit balance is too low to access the API", "type": "invalid_request_error"}),
        (200, {"message": "Insufficient credits", "code": 402}),
    ],
)
def test_an_account_without_money_stops_the_build_and_rejects_no_row(serve: Serve, status: int, error: Any) -> None:
    server = serve(lambda number: (status, {}, json.dumps({"error": error}).encode()) if number > 2 else RIGHT)
    with pytest.raises(BackendUnavailable, match=rf"without money .HTTP \d+: {error['message']}"):
        ask(server, count=4)
    assert len(server.seen) <= 5


@pytest.mark.parametrize(
    ("code", "reason", "tries"),
    [(400, "too_long", 1), ("422", "too_long", 1), (429, "rate_limited", 6), (502, "server_error", 6)],
)
def test_a_failure_that_comes_as_a_success_is_the_failure_that_it_tells(
    serve: Serve, code: Any, reason: str, tries: int
) -> None:
    told = {"message": "maximum context length of 99 tokens" if tries == 1 else "busy", "code": code}
    body = {"error": told, **({"choices": []} if tries == 1 else {})}
    server = serve(lambda number: (200, {"Retry-After": "0"}, json.dumps(body).encode()))
    (error,) = ask(server)
    assert isinstance(error, RequestError)
    assert (error.reason, len([path for path, _, _ in server.seen if "chat" in path])) == (reason, tries)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            (302, {"Location": "/login?token=SECRETVALUE"}, b""),
            r"redirects \(HTTP 302\) to http://127\.0\.0\.1:\d+/login:",
        ),
        (
            (307, {"Location": "https://elsewhere.example/v1/chat/completions"}, b""),
            r"to https://elsewhere\.example/v1",
        ),
        ((308, {"Location": "http://127.0.0.1:1/v1/chat/completions"}, b""), r"to http://127\.0\.0\.1:1/v1"),
        ((301, {}, b""), "HTTP 301 and no address"),
        ((304, {}, b""), "HTTP 304 and no address"),
        ((307, {"Location": "/v1/chat/completions"}, b""), "in a circle"),
    ],
)
def test_a_redirect_that_leads_elsewhere_is_named_at_once(serve: Serve, reply: Reply, message: str) -> None:
    server = serve(lambda number: reply)
    with pytest.raises(BackendUnavailable, match=message) as caught:
        ask(server)
    assert "SECRETVALUE" not in str(caught.value)
    assert len(server.seen) <= 5


@pytest.mark.parametrize(
    ("listed", "asked", "said"),
    [
        (
            ["Meta-Llama/Llama-3.1-8B-Instruct", "x"],
            "llama-3.1-8b-instruct",
            "did you mean 'Meta-Llama/Llama-3.1-8B-Instruct'",
        ),
        (["only-one"], "something", "did you mean 'only-one'"),
        (["qwen2.5-vl", "llava-v1.6"], "llava-1.6", "did you mean 'llava-v1.6'"),
        ([f"model-{n}" for n in range(50)], "zzz", "and 30 more"),
        (["x" * 10_000, "y"], "zzz", f"it lists {'x' * 100}, y"),
    ],
)
def test_a_listed_name_is_suggested(serve: Serve, listed: list[str], asked: str, said: str) -> None:
    with pytest.raises(BackendUnavailable, match=f"does not serve '{asked}'.*{said}"):
        ask(serve(lambda number: RIGHT, listed), model=asked)


@pytest.mark.parametrize("listed", [["m:latest"], ["models/m"], []])
def test_a_model_is_found_under_the_names_that_servers_give_it(serve: Serve, listed: list[str]) -> None:
    assert ask(serve(lambda number: RIGHT, listed))[0] == Completion(TEXT, "stop", 7, 3)


@pytest.mark.parametrize("key", ["sk-EXAMPLE123\n", "sk-EXAMPLE123\r\n", "  sk-EXAMPLE123\t", "\ufeffsk-EXAMPLE123"])
def test_white_space_around_a_key_is_no_part_of_it(serve: Serve, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    server = serve(lambda number: RIGHT)
    ask(server)
    assert server.seen[0][1]["Authorization"] == "Bearer sk-EXAMPLE123"


@pytest.mark.parametrize(
    "key", ["sk-EXAM\nPLE123", "“sk-EXAMPLE123”", "sk-EXAMPLE 123", "sk-EXAMPLE\x00123", "schlüssel"]
)
def test_a_key_that_no_header_carries_is_told_by_its_variable(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    if "\x00" in key:  # no environment takes it; a mapping does
        monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": key})
    else:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(BackendUnavailable, match="environment variable OPENAI_API_KEY has") as caught:
        api_key("OPENAI_API_KEY")
    assert not any(piece in str(caught.value) for piece in ("EXAM", "PLE123", "schl"))


def test_a_blank_key_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " \n")
    assert api_key("OPENAI_API_KEY") is None


def test_a_password_and_a_key_in_the_url_are_sent_and_never_shown(serve: Serve) -> None:
    refused: Reply = (400, {}, b'{"error": {"message": "no such key: QUERYSECRET"}}')
    server = serve(lambda number: refused)
    endpoint = server.url.replace("http://", "http://user:PASSWORDSECRET@") + "?key=QUERYSECRET"
    (error,) = ask(server, endpoint=endpoint)
    path, headers, _ = server.seen[0]
    assert path == "/v1/chat/completions?key=QUERYSECRET"
    assert headers["Authorization"].startswith("Basic ")
    assert isinstance(error, RequestError)
    with pytest.raises(BackendUnavailable) as caught:
        ask(server, endpoint=endpoint.replace("/v1?", "/v1?"), model="other")
    assert "SECRET" not in str(caught.value)


def test_a_server_of_this_machine_is_reached_without_the_proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert ask(serve(lambda number: RIGHT))[0] == Completion(TEXT, "stop", 7, 3)


def test_a_proxy_on_the_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://user:PROXYSECRET@127.0.0.1:9")
    config = StepConfig(backend="openai", model="m", endpoint="http://models.example/v1")
    with pytest.raises(BackendUnavailable, match=r"proxy of HTTP_PROXY.*add 'models\.example' to NO_PROXY") as caught:
        OpenAIBackend(config)
    assert "PROXYSECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "sent", "absent"),
    [
        ({}, {"max_tokens": 256, "temperature": 0.0, "seed": 0}, {"max_completion_tokens"}),
        ({"max_tokens_as": "max_completion_tokens"}, {"max_completion_tokens": 256}, {"max_tokens"}),
        ({"temperature": False, "seed": False}, {"max_tokens": 256}, {"temperature", "seed"}),
        ({"extra_body": {"reasoning_effort": "low", "top_k": 5}}, {"reasoning_effort": "low", "top_k": 5}, set()),
    ],
)
def test_requests_have_the_form_that_the_endpoint_takes(
    serve: Serve, form: dict[str, Any], sent: dict[str, Any], absent: set[str]
) -> None:
    server = serve(lambda number: RIGHT)
    ask(server, request=form)
    body = json.loads(server.seen[0][2])
    assert sent.items() <= body.items()
    assert not absent & set(body)


def test_a_refused_field_is_told_with_the_setting_that_helps(serve: Serve) -> None:
    message = "Unsupported parameter: 'max_tokens' is not supported with this model."
    (error,) = ask(serve(lambda number: (400, {}, json.dumps({"error": {"message": message}}).encode())))
    assert isinstance(error, RequestError)
    assert "request.max_tokens_as=max_completion_tokens" in error.detail


def test_an_image_is_encoded_once_and_off_the_loop(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from talking_points.descriptions.backends import chat_requests
    from talking_points.descriptions.backends.chat import encode_image

    encoders: list[str] = []
    encode = encode_image

    def spy(image: Any, form: Any) -> Any:
        encoders.append(threading.current_thread().name)
        return encode(image, form)

    monkeypatch.setattr(chat_requests, "encode_image", spy)
    server = serve(lambda number: (503, {}, b"") if number == 1 else RIGHT)
    image = np.full((8, 8, 3), 200, np.uint8)
    config = StepConfig(
        backend="openai", model="m", endpoint=server.url, request={"image_format": "jpeg"}, concurrency=1
    )
    backend = OpenAIBackend(config)
    asked = [ChatRequest(id=f"r{n}", step="local_caption", prompt="look", images=(image,)) for n in range(3)]
    assert all(isinstance(answer, Completion) for answer in backend.complete(asked))
    backend.close()
    assert len(encoders) == 1
    assert encoders[0] != "openai-backend"
    bodies = {body for _, _, body in server.seen}
    assert len(server.seen) == 4
    assert len(bodies) == 1
    assert b'"url":"data:image/jpeg;base64,/9j/' in bodies.pop()
