"""The offline engine on tiny models, on a CPU: run by ``make test-vllm`` in an environment of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
pytest.importorskip("vllm", reason="needs the vLLM environment (make test-vllm)")

from talking_points.build_config import StepConfig  # noqa: E402
from talking_points.descriptions.backends import open_backend  # noqa: E402
from talking_points.descriptions.backends.openai import OpenAIBackend  # noqa: E402
from talking_points.descriptions.backends.protocol import BackendUnavailable, Completion, RequestError  # noqa: E402
from talking_points.descriptions.backends.vllm import VllmBackend  # noqa: E402
from tests.descriptions.backends import contract  # noqa: E402
from tests.descriptions.backends.contract import image_request, text_request, texts  # noqa: E402
from tests.model_server import model_server  # noqa: E402

CONTEXT = 512


def _open(folder: Path, **options: Any) -> VllmBackend:
    settings = {"max_model_len": CONTEXT, "enforce_eager": True, "max_num_seqs": 16} | options
    return VllmBackend(StepConfig(backend="vllm", model=str(folder), dtype="float32", options=settings))


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> Iterator[VllmBackend]:
    backend = _open(tiny_llama)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def llava(tiny_llava: Path) -> Iterator[VllmBackend]:
    backend = _open(tiny_llava)
    yield backend
    backend.close()


def test_text(llama):
    contract.check_greedy_text_is_repeated(llama)
    contract.check_seeds(llama)
    contract.check_token_counts(llama)
    assert not llama.capabilities.vision
    assert {"vllm", "dtype", "model"} <= set(llama.identity)


def test_a_request_that_is_too_long_fails_alone(llama):
    contract.check_too_long_fails_alone(llama, CONTEXT)


def test_a_request_that_leaves_no_room_for_its_answer_fails_alone(llama):
    tight = text_request("a " * 200, max_tokens=400)
    error, good = llama.complete([tight, text_request("fine")])
    assert isinstance(error, RequestError), error
    assert error.reason == "too_long"
    assert str(CONTEXT) in error.detail
    assert isinstance(good, Completion)


def test_structured_answers_are_json(llama):
    schema = {
        "type": "object",
        "properties": {"description": {"type": "string", "enum": ["a cat", "a dog"]}},
        "required": ["description"],
        "additionalProperties": False,
    }
    (answer,) = texts(llama.complete([text_request(schema=schema, max_tokens=40)]))
    assert json.loads(answer)["description"] in ("a cat", "a dog")


def test_callers_in_several_threads_share_the_engine(llama):
    alone = texts(llama.complete([text_request(f"word {number}") for number in range(8)]))
    found: dict[int, str] = {}
    told: list[str] = []

    def ask(number: int) -> None:
        request = text_request(f"word {number}")
        answers = llama.complete([request], on_answer=lambda asked, _answer: told.append(asked.id))
        found[number] = texts(answers)[0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(8)] == alone
    assert sorted(told) == [f"word {number}" for number in range(8)]
    assert 0 < llama.idle_share < 1


def test_images(llava):
    assert llava.capabilities.vision
    contract.check_the_image_arrives(llava)


def _whole(answers: list[Completion | RequestError]) -> list[str]:
    """The texts without a last character that the token limit cut in two: only transformers marks its first half."""
    return [text.rstrip("\N{REPLACEMENT CHARACTER}") for text in texts(answers)]


def test_the_text_is_that_of_transformers(tiny_llama, tiny_llava, llama, llava):
    from talking_points.descriptions.backends.transformers import TransformersBackend

    text = [text_request("word " * length) for length in (1, 5, 12)]
    for folder, backend, requests in (
        (tiny_llama, llama, text),
        (tiny_llava, llava, [*text, *(image_request(seed) for seed in range(3))]),
    ):
        other = TransformersBackend(
            StepConfig(backend="transformers", model=str(folder), device="cpu", dtype="float32")
        )
        assert _whole(backend.complete(requests)) == _whole(other.complete(requests))
        other.close()


@pytest.fixture
def served(tiny_llava: Path, tmp_path: Path) -> Iterator[str]:
    """Base URL of vLLM's own OpenAI-compatible server on the tiny LLaVA."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny_llava)]
    command += ["--served-model-name", "tiny", "--dtype", "float32", "--max-model-len", str(CONTEXT), "--enforce-eager"]
    with model_server([*command, "--limit-mm-per-prompt", '{"image": 1}'], tmp_path / "server.log") as url:
        yield url


def test_the_served_model_gives_the_same_text(served, llava):
    config = StepConfig(backend="openai", model="tiny", endpoint=served, concurrency=4, timeout=120)
    backend = OpenAIBackend(config)
    requests = [text_request("a"), text_request("b c d"), *(image_request(seed) for seed in range(3))]
    assert _whole(backend.complete(requests)) == _whole(llava.complete(requests))
    contract.check_the_image_arrives(backend)
    contract.check_too_long_fails_alone(backend, CONTEXT)
    backend.close()


def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(BackendUnavailable, match="Expected a Hub id or a folder"):
        _open(tmp_path)


@pytest.mark.parametrize("kind", ["llama", "llava"])
def test_a_server_of_the_builds_own_is_killed_comes_back_and_gives_the_same_texts(
    request, tiny_llama, tiny_llava, tmp_path, kind
):
    folder = {"llama": tiny_llama, "llava": tiny_llava}[kind]
    engine: VllmBackend = request.getfixturevalue(kind)
    options = {"max_model_len": CONTEXT, "enforce_eager": True, "max_num_seqs": 16}
    config = StepConfig.model_validate(
        {
            "backend": "vllm_server",
            "model": str(folder),
            "dtype": "float32",
            "options": options,
            "server": {"environment": sys.prefix, "startup_seconds": 300},
        }
    )
    asked = [text_request("a"), text_request("b c d")]
    if kind == "llava":
        asked += [image_request(seed) for seed in range(3)]
    backend = open_backend(config, tmp_path)
    try:
        assert backend.identity["engine"]
        first = _whole(backend.complete(asked))
        assert first == _whole(engine.complete(asked))
        (process,) = (line for line in next(tmp_path.glob("*.log")).read_text().splitlines() if line.startswith("pid"))
        os.killpg(int(process.split()[1]), signal.SIGKILL)
        assert _whole(backend.complete(asked)) == first
    finally:
        backend.close()
