"""The omg_llava backend on a small checkpoint with random weights."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the omg_llava backend needs torch")

from talking_points.build_config import StepConfig  # noqa: E402
from talking_points.descriptions.backends import open_backend  # noqa: E402
from talking_points.descriptions.backends.omg_llava import OmgLlavaBackend  # noqa: E402
from talking_points.descriptions.backends.protocol import (  # noqa: E402
    Backend,
    BackendUnavailable,
    ChatRequest,
    Completion,
    RequestError,
)
from talking_points.models.omg_llava.modeling import LanguageInputs  # noqa: E402

PROMPT = "Describe the object in one sentence."


@pytest.fixture(scope="module")
def backend(tiny_omg_llava):
    return OmgLlavaBackend(StepConfig(backend="omg_llava", model=str(tiny_omg_llava), batch_size=3))


def _request(index: int, **changes) -> ChatRequest:
    images = [np.random.default_rng(index % 2).integers(0, 256, (40 + 30 * (index % 2), 60, 3)).astype(np.uint8)]
    facts = {"keypoint": (5.0 + 7 * index, 30.0), "object_bbox": (2.0, 3.0, 30.0, 20.0) if index % 3 else None}
    fields = {"images": tuple(images), "facts": facts, "max_tokens": 8, "prompt": PROMPT, **changes}
    return ChatRequest(id=str(index), step="object_caption", **fields)


def test_it_is_opened_by_name_and_follows_the_protocol(tiny_omg_llava):
    backend = open_backend(StepConfig(backend="omg_llava", model=str(tiny_omg_llava)))
    assert isinstance(backend, Backend)
    assert backend.capabilities.steps == ("object_caption",)
    assert backend.capabilities.points
    assert backend.identity["model"] == str(tiny_omg_llava)
    assert len(backend.identity["revision"]) == 16
    backend.close()


def test_a_batch_is_answered_in_order_as_one_by_one(backend):
    requests = [_request(index) for index in range(5)]
    together = backend.complete(requests)
    assert all(isinstance(answer, Completion) for answer in together)
    assert together == [backend.complete([request])[0] for request in requests]
    assert len({answer.text for answer in together}) > 1
    assert all(answer.completion_tokens <= 8 and answer.prompt_tokens > 20 for answer in together)


def test_points_and_boxes_change_the_answer(backend):
    point, other = ({"keypoint": (3, 3)}, {"keypoint": (55, 35)})
    box = {"object_bbox": (0, 0, 10, 10)}
    requests = [_request(0, facts=facts, max_tokens=24) for facts in (point, other, {**point, **box})]
    assert len({answer.text for answer in backend.complete(requests)}) == 3


def test_the_vision_path_runs_once_per_image_over_several_at_a_time(backend, monkeypatch):
    seen, calls = [], []
    encode = backend._model.encode_images

    def counted(images):
        seen.extend(images)
        calls.append(len(images))
        return encode(images)

    monkeypatch.setattr(backend._model, "encode_images", counted)
    backend._features.clear()
    backend.complete([_request(index) for index in (0, 2, 4, 6, 1)])
    backend.complete([_request(8, facts={"keypoint": (1, 1)})])
    assert len(seen) == 2
    # Requests are sorted by image, so that a batch of three meets one or two of them.
    calls.clear()
    backend._features.clear()
    answers = backend.complete([_request(index) for index in (0, 1)])
    assert calls == [2]
    assert answers == [backend.complete([_request(index)])[0] for index in (0, 1)]


def test_a_bad_request_fails_alone(backend):
    good = _request(1)
    bad = {
        "image_missing": _request(0, images=()),
        "missing_fact": _request(0, facts={}),
        "unusable_facts": _request(0, facts={"keypoint": (60, 3)}),
    }
    answers = backend.complete([*bad.values(), good])
    assert [answer.reason for answer in answers[:3]] == list(bad)
    assert all(isinstance(answer, RequestError) and not answer.retryable for answer in answers[:3])
    assert answers[3] == backend.complete([good])[0]


def test_a_request_that_is_too_long_fails_alone(backend):
    """Its length counts the image's tokens: as many as the language model is given."""
    good, limit = _request(1), backend._limit
    answers = backend.complete([good, _request(0, prompt="far too long " * 800), good])
    error = answers[1]
    assert isinstance(error, RequestError)
    assert error.reason == "too_long"
    assert str(limit) in error.detail
    assert answers[0] == answers[2] == backend.complete([good])[0]
    embedded = backend._model.splice(_language_inputs(backend, good)).inputs_embeds.shape[1]
    assert answers[0].prompt_tokens == embedded


def _language_inputs(backend, request) -> LanguageInputs:
    with torch.no_grad():
        features = backend._model.encode_images(request.images)
        index = torch.tensor([0])
        marks = backend._model.encode_points(features, [request.facts["keypoint"]], index)
        regions = backend._model.encode_boxes(features, [request.facts["object_bbox"]], index)
    return LanguageInputs([backend._turn(request)], features, index, marks, regions)


def test_markup_in_names_cannot_break_the_prompt(backend):
    request = _request(0, prompt="Describe <image> the <mark> [SEG]<|im_end|> dog.", system="Be <region> brief.")
    assert isinstance(backend.complete([request])[0], Completion)


def test_sampling_follows_each_requests_own_seed(backend):
    sampled = [_request(0, temperature=1.5, seed=seed) for seed in (1, 2, 1)]
    answers = [answer.text for answer in backend.complete([*sampled, _request(1)])]
    assert answers[0] == answers[2] != answers[1]
    assert backend.complete(sampled[1:2])[0].text == answers[1]


def test_each_answer_is_announced_once(backend):
    announced = []
    requests = [_request(index) for index in range(4)]
    answers = backend.complete(requests, lambda request, answer: announced.append((request.id, answer)))
    assert sorted(announced, key=lambda pair: pair[0]) == [(r.id, a) for r, a in zip(requests, answers, strict=True)]


def test_an_answer_that_ran_out_of_tokens_says_so(backend):
    [answer] = backend.complete([_request(0, max_tokens=2)])
    assert (answer.finish_reason, answer.completion_tokens) == ("length", 2)


def test_each_request_keeps_its_own_limit(backend):
    short, long = backend.complete([_request(0, max_tokens=2), _request(0, max_tokens=8)])
    assert short.completion_tokens == 2
    assert long.text.startswith(short.text.rstrip("�"))


@pytest.mark.parametrize("model", [None, "nothing-here"])
def test_a_model_that_is_not_there_makes_the_backend_unavailable(model, tmp_path):
    step = StepConfig.model_construct(
        **{**StepConfig().model_dump(), "backend": "omg_llava", "model": model and str(tmp_path / model)}
    )
    with pytest.raises(BackendUnavailable):
        OmgLlavaBackend(step)
