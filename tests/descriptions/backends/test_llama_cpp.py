"""GGUF models in process on a tiny file: run by ``make test-llama-cpp`` in an environment of its own."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.llama_cpp, pytest.mark.slow]
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python (make test-llama-cpp)")
pytest.importorskip("gguf", reason="needs gguf (make test-llama-cpp)")

from talking_points.build_config import StepConfig  # noqa: E402
from talking_points.descriptions.backends import requantized  # noqa: E402
from talking_points.descriptions.backends.llama_cpp import LlamaCppBackend  # noqa: E402
from talking_points.descriptions.backends.openai import OpenAIBackend  # noqa: E402
from talking_points.descriptions.backends.protocol import (  # noqa: E402
    BackendUnavailable,
    ChatRequest,
    Completion,
    RequestError,
)
from tests.descriptions.backends import contract  # noqa: E402
from tests.descriptions.backends.contract import image_request, text_request, texts  # noqa: E402
from tests.model_server import model_server  # noqa: E402
from tests.tiny_gguf import CONTEXT, write_tiny_gguf  # noqa: E402

SCHEMA = {
    "type": "object",
    "properties": {"description": {"type": "string", "enum": ["a cat", "a dog"]}},
    "required": ["description"],
}


def _open(file: Path, **options: Any) -> LlamaCppBackend:
    settings = {"n_ctx": CONTEXT, "n_threads": 1} | options
    return LlamaCppBackend(StepConfig(backend="llama_cpp", model=str(file), options=settings))


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def backend(tiny_gguf: Path) -> Iterator[LlamaCppBackend]:
    opened = _open(tiny_gguf)
    yield opened
    opened.close()
    opened.close()


def test_greedy_text_is_repeated(backend):
    contract.check_greedy_text_is_repeated(backend)


def test_seeds(backend):
    contract.check_seeds(backend)


def test_token_counts(backend):
    contract.check_token_counts(backend)


def test_a_request_that_is_too_long_fails_alone(backend):
    contract.check_too_long_fails_alone(backend, CONTEXT)


def test_a_request_that_leaves_no_room_for_its_answer_fails_alone(backend):
    error, good = backend.complete([text_request("a " * 150, max_tokens=CONTEXT), text_request("fine")])
    assert isinstance(error, RequestError), error
    assert error.reason == "too_long"
    assert isinstance(good, Completion)


def _related() -> list[ChatRequest]:
    """Requests that begin alike for none, some or all of several blocks, greedy and sampled; two are the same."""
    starts, ends = ("", "It is long. " * 6, "It is long. " * 12), ("a cat", "a dog on the left of a dog", "a cat")
    return [
        text_request(start + end, temperature=heat, seed=7, max_tokens=24)
        for start in starts
        for end in ends
        for heat in (0.0, 0.9)
    ]


@pytest.mark.parametrize("guessed", [0, 6])
def test_an_answer_depends_on_its_own_request_alone(tiny_gguf, guessed):
    requests = _related()

    def opened() -> LlamaCppBackend:
        return _open(tiny_gguf, n_batch=16, guessed=guessed)

    alone = []
    for request in requests:
        fresh = opened()
        alone += texts(fresh.complete([request]))
        fresh.close()
    shared = opened()
    for seed in range(3):
        order = random.Random(seed).sample(range(len(requests)), len(requests))
        found = texts(shared.complete([requests[place] for place in order]))
        assert found == [alone[place] for place in order]
    # One that fails half way leaves nothing behind that the next one builds upon.
    shared.complete([text_request("It is long. " * 200)])
    assert texts(shared.complete(requests)) == alone
    shared.close()


def test_guessed_tokens_change_no_text_and_save_evaluations(tiny_gguf):
    found, calls = {}, {}
    for guessed in (0, 6):
        backend = _open(tiny_gguf, guessed=guessed)
        sizes = _spy_on_batches(backend)
        found[guessed] = texts(backend.complete([text_request("word " * 9, max_tokens=200)]))
        calls[guessed] = len(sizes)
        backend.close()
    assert found[0] == found[6]
    assert calls[6] < calls[0]


def test_the_beginning_of_the_last_prompt_is_not_evaluated_again(tiny_gguf):
    backend = _open(tiny_gguf, n_batch=16, guessed=0)
    sizes = _spy_on_batches(backend)
    first, second = backend.complete([text_request("It is long. " * 12 + end, max_tokens=1) for end in "ab"])
    assert isinstance(first, Completion)
    assert isinstance(second, Completion)
    blocks = math.ceil(first.prompt_tokens / 16)
    assert sum(sizes[:blocks]) == first.prompt_tokens
    assert sum(sizes[blocks:]) <= 32 < second.prompt_tokens
    backend.close()


def _spy_on_batches(backend: LlamaCppBackend) -> list[int]:
    """Fills with the number of tokens of each evaluation."""
    sizes: list[int] = []
    batch: Any = backend._llama._batch
    plain = batch.set_batch

    def spy(**given: Any) -> None:
        sizes.append(len(given["batch"]))
        plain(**given)

    batch.set_batch = spy
    return sizes


def test_weights_are_written_in_another_format_once_and_the_identity_says_so(tiny_gguf, tmp_path, monkeypatch):
    monkeypatch.setattr(requantized, "CACHE", tmp_path)
    plain, other = _open(tiny_gguf), _open(tiny_gguf, quantize="Q8_0")
    (file,) = tmp_path.glob("*.gguf")
    made = file.stat()
    assert made.st_size < tiny_gguf.stat().st_size
    assert plain.identity != other.identity
    asked = [text_request("word " * 9)]
    again = _open(tiny_gguf, quantize="Q8_0")
    assert texts(again.complete(asked)) == texts(other.complete(asked))
    assert file.stat() == made
    for backend in (plain, other, again):
        backend.close()
    with pytest.raises(BackendUnavailable, match="expected one of Q8_0"):
        _open(tiny_gguf, quantize="Q9")


def test_an_answer_ends_before_a_stop_text(tiny_gguf, backend):
    (whole,) = texts(backend.complete([text_request("word " * 9, max_tokens=60)]))
    stop = whole[len(whole) // 2]
    opened = _open(tiny_gguf, stop=[stop])
    assert texts(opened.complete([text_request("word " * 9, max_tokens=60)])) == [whole[: whole.index(stop)]]
    opened.close()


def test_structured_answers_are_json(backend):
    (answer,) = texts(backend.complete([text_request(schema=SCHEMA, max_tokens=60)]))
    assert json.loads(answer)["description"] in ("a cat", "a dog")


def test_images_are_refused(backend):
    (error,) = backend.complete([image_request(0)])
    assert isinstance(error, RequestError)
    assert error.reason == "image_not_accepted"


def test_each_answer_is_told(backend):
    contract.check_each_answer_is_told(backend)


def test_the_identity_tells_files_apart(backend):
    assert int(backend.identity["bytes"]) > 1000


@pytest.fixture(scope="module")
def served(tiny_gguf: Path) -> Iterator[OpenAIBackend]:
    """The same file behind the server of llama-cpp-python, which punishes repetitions unless it is told not to."""
    pytest.importorskip("llama_cpp.server.app", reason="needs the server of llama-cpp-python (make test-llama-cpp)")
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(tiny_gguf), "--model_alias", "tiny"]
    command += ["--n_ctx", str(CONTEXT), "--n_threads", "1"]
    options = {"repeat_penalty": 1.0, "schema_as": "json_object"}
    with model_server(command, tiny_gguf.with_name("server.log")) as url:
        client = OpenAIBackend(StepConfig(backend="openai", model="tiny", endpoint=url, timeout=60, options=options))
        yield client
        client.close()


def test_the_served_model_gives_the_same_text(served, backend):
    contract.check_greedy_text_is_repeated(served)
    contract.check_seeds(served)
    requests = [text_request("word " * length, temperature=heat) for length in (1, 6, 20) for heat in (0.0, 0.9)]
    assert texts(served.complete(requests)) == texts(backend.complete(requests))


def test_a_request_that_is_too_long_for_the_server_fails_alone(served):
    contract.check_too_long_fails_alone(served, CONTEXT)


def test_structured_answers_of_the_server_are_json(served):
    (answer,) = texts(served.complete([text_request(schema=SCHEMA, max_tokens=60)]))
    assert json.loads(answer)["description"] in ("a cat", "a dog")


def test_a_model_that_the_server_does_not_have_is_named(served):
    config = served._config.model_copy(update={"model": "other"})
    with pytest.raises(BackendUnavailable, match="does not serve 'other': it lists tiny"):
        OpenAIBackend(config)


@pytest.mark.parametrize("content", [None, b"not a gguf file"])
def test_a_model_that_cannot_be_loaded_is_named(tmp_path, content):
    file = tmp_path / "broken.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BackendUnavailable, match="GGUF"):
        _open(file)
