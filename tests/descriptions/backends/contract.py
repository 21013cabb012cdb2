"""What every model backend must do, as checks on a real, tiny model; each backend's test calls them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from talking_points.descriptions.backends.protocol import Backend, ChatRequest, Completion, RequestError


def text_request(prompt: str = "Describe the point.", **changes: Any) -> ChatRequest:
    """A short text question."""
    values: dict[str, Any] = {
        "id": prompt,
        "step": "generate",
        "prompt": prompt,
        "system": "You describe.",
        "max_tokens": 12,
    }
    return ChatRequest(**(values | changes))


def image_request(seed: int = 0, **changes: Any) -> ChatRequest:
    """A question about a random image."""
    image = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    values: dict[str, Any] = {"id": f"image {seed}", "step": "local_caption", "prompt": "Describe.", "images": (image,)}
    return ChatRequest(**({"max_tokens": 12} | values | changes))


def texts(answers: list[Completion | RequestError]) -> list[str]:
    """The texts of answers that must all be completions."""
    assert all(isinstance(answer, Completion) for answer in answers), answers
    return [answer.text for answer in answers if isinstance(answer, Completion)]


def check_greedy_text_is_repeated(backend: Backend) -> None:
    """The same greedy requests give the same texts twice, whatever batch they come in."""
    assert isinstance(backend, Backend)
    requests = [text_request("word " * length) for length in (1, 9, 4, 17, 2)]
    first = texts(backend.complete(requests))
    assert first == texts(backend.complete(requests))
    assert first == [texts(backend.complete([request]))[0] for request in requests]
    assert len(set(first)) > 1


def check_seeds(backend: Backend) -> None:
    """A seed fixes a sampled text; another seed gives another."""
    request = text_request(temperature=1.0, max_tokens=20)
    requests = [dataclasses.replace(request, seed=seed) for seed in (1, 2, 3, 1)]
    first = texts(backend.complete(requests))
    assert first[0] == first[3]
    assert len(set(first)) == 3
    assert first == texts(backend.complete(requests))


def check_token_counts(backend: Backend) -> None:
    """Prompt and answer tokens are counted, and a cut answer says so."""
    short, long = backend.complete([text_request("a"), text_request("a " * 30)])
    assert isinstance(short, Completion)
    assert isinstance(long, Completion)
    assert 0 < short.prompt_tokens < long.prompt_tokens
    assert short.finish_reason in ("stop", "length")
    if short.finish_reason == "length":
        assert short.completion_tokens == 12


def check_each_answer_is_told(backend: Backend) -> None:
    """``on_answer`` hears of every answer of the engine, with its request."""
    requests = [text_request(f"word {number}") for number in range(5)]
    told: dict[str, Completion | RequestError] = {}
    answers = backend.complete(requests, on_answer=lambda request, answer: told.update({request.id: answer}))
    assert [told[request.id] for request in requests] == answers


def check_too_long_fails_alone(backend: Backend, limit: int) -> None:
    """A request beyond the context is an error with its length and the limit; its neighbours are answered."""
    good = text_request("fine")
    answers = backend.complete([good, text_request("far too long " * 800), good])
    error = answers[1]
    assert isinstance(error, RequestError)
    assert error.reason == "too_long"
    assert str(limit) in error.detail
    assert any(int(number) > limit for number in error.detail.replace(",", " ").split() if number.isdigit())
    alone = backend.complete([good])[0]
    assert answers[0] == answers[2] == alone


def check_the_image_arrives(backend: Backend) -> None:
    """Different images give different texts; a vision request without its image is refused, alone."""
    answers = texts(backend.complete([image_request(seed) for seed in range(4)]))
    assert len(set(answers)) > 1
    assert answers == texts(backend.complete([image_request(seed) for seed in range(4)]))
    refused, answered = backend.complete([image_request(0, images=()), image_request(1)])
    assert isinstance(refused, RequestError)
    assert refused.reason == "image_missing"
    assert texts([answered]) == answers[1:2]
