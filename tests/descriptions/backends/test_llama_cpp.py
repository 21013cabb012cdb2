"""GGUF models in process on a tiny file: run by ``make test-llama-cpp`` in an environment of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.llama_cpp, pytest.mark.slow]
pytest.importorskip("llama_cpp", reason="needs llama-cpp-python (make test-llama-cpp)")
pytest.importorskip("gguf", reason="needs gguf (make test-llama-cpp)")

from talking_points.config import StepConfig  # noqa: E402
from talking_points.descriptions.backends.llama_cpp import LlamaCppBackend  # noqa: E402
from talking_points.descriptions.backends.protocol import BackendUnavailable, Completion, RequestError  # noqa: E402
from tests.descriptions.backends import contract  # noqa: E402
from tests.descriptions.backends.contract import image_request, text_request, texts  # noqa: E402
from tests.tiny_gguf import CONTEXT, write_tiny_gguf  # noqa: E402


def _open(file: Path, **options: Any) -> LlamaCppBackend:
    settings = {"n_ctx": CONTEXT, "n_threads": 1} | options
    return LlamaCppBackend(StepConfig(backend="llama_cpp", model=str(file), options=settings))


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppBackend]:
    opened = _open(write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf"))
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


def test_structured_answers_are_json(backend):
    schema = {
        "type": "object",
        "properties": {"description": {"type": "string", "enum": ["a cat", "a dog"]}},
        "required": ["description"],
    }
    (answer,) = texts(backend.complete([text_request(schema=schema, max_tokens=60)]))
    assert json.loads(answer)["description"] in ("a cat", "a dog")


def test_images_are_refused(backend):
    (error,) = backend.complete([image_request(0)])
    assert isinstance(error, RequestError)
    assert error.reason == "image_not_accepted"


def test_each_answer_is_told(backend):
    contract.check_each_answer_is_told(backend)


def test_the_identity_tells_files_apart(backend):
    assert int(backend.identity["bytes"]) > 1000


@pytest.mark.parametrize("content", [None, b"not a gguf file"])
def test_a_model_that_cannot_be_loaded_is_named(tmp_path, content):
    file = tmp_path / "broken.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BackendUnavailable, match="GGUF"):
        _open(file)
