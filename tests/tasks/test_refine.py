"""Refining: what the verifier finds goes back to the model, a bounded number of times, and every round is counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from talking_points.build_config import StepConfig, VerificationConfig
from talking_points.descriptions.asking import Answer
from talking_points.descriptions.backends.protocol import (
    Capabilities,
    ChatRequest,
    Completion,
    OnAnswer,
    RequestError,
)
from talking_points.descriptions.composed import compose_instead
from talking_points.descriptions.composition import compose_description
from talking_points.descriptions.steps import refine_request
from talking_points.descriptions.verification import verify
from talking_points.records import Candidate
from talking_points.stop_requests import clear_stop
from tasks.refine import refine_until_accepted
from tests.descriptions.candidates import make_candidate

CHECKS = VerificationConfig(attempts=3)
LOOK = "a small, dark, round spot on pale brown fur"


class Editor:
    """A model that writes a wrong sentence so many times per row before the right one; ``None``: it answers nothing."""

    capabilities = Capabilities(vision=False)
    identity = {"backend": "editor"}  # noqa: RUF012 - constant

    def __init__(self, wrong: dict[str, int | None]) -> None:
        self.wrong = wrong
        self.asked: list[ChatRequest] = []

    def complete(
        self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None
    ) -> list[Completion | RequestError]:
        self.asked += requests
        return [self._answer(request) for request in requests]

    def close(self) -> None: ...

    def _answer(self, request: ChatRequest) -> Completion | RequestError:
        wrong = self.wrong[request.id]
        if wrong is None:
            return RequestError("bad_request", "no")
        right = compose_description(Candidate.from_row(request.facts), LOOK, request.seed)
        text = f"{right[:-1]}, at (412, 233)." if request.facts["attempt"] < wrong else right
        return Completion(text, "stop", 100, 10)


@pytest.fixture(autouse=True)
def not_stopped() -> Iterator[None]:
    clear_stop()
    yield
    clear_stop()


def test_findings_go_back_until_the_verifier_accepts_and_rounds_are_counted() -> None:
    wrong = {"at once": 0, "once": 1, "twice": 2, "always": 9, "no answer": None}
    rows = [replace(make_candidate(), id=name) for name in wrong]
    texts = {
        "object_caption": dict.fromkeys(wrong, "A cat."),
        "local_caption": dict.fromkeys(wrong, LOOK),
        "draft": dict.fromkeys(wrong, "The point is on the cat."),
    }
    editor = Editor(wrong)
    answers, attempts = refine_until_accepted(rows, texts, editor, None, StepConfig(), CHECKS, seed=0)

    assert attempts == {"at once": 1, "once": 2, "twice": 3, "always": 3, "no answer": 1}
    assert {name: answer.requests for name, answer in answers.items()} == attempts
    assert answers["twice"].tokens_in == 300
    reasons = {name: answer.error.reason for name, answer in answers.items() if answer.error}
    assert reasons == {"always": "coordinates", "no answer": "bad_request"}
    assert "(412, 233)" in answers["always"].text, "the quarantine shows what was refused"

    rounds = [request for request in editor.asked if request.id == "twice"]
    assert 'Draft: "The point is on the cat."' in rounds[0].prompt
    assert "Problems:" not in rounds[0].prompt.rpartition("Now the sentence at hand")[2]
    for request in rounds[1:]:
        question = request.prompt.rpartition("Now the sentence at hand")[2]
        assert "Problems:" in question
        assert "(412, 233)" in question
    assert len({request.seed for request in rounds}) == 3


def test_what_a_weak_model_does_not_manage_is_composed_and_what_a_server_lost_is_not() -> None:
    row = make_candidate()
    request = refine_request(row, "A cat.", LOOK, "The point is on the cat.", (), 0, StepConfig(), 0)
    answers = {
        "refused": Answer("x", RequestError("echo"), requests=2, tokens_in=200),
        "lost": Answer("", RequestError("timeout", retryable=True)),
        "good": Answer("A sentence."),
    }
    composed = compose_instead(dict.fromkeys(answers, request), answers)
    assert set(composed) == {"refused"}
    assert (composed["refused"].error, composed["refused"].requests, composed["refused"].tokens_in) == (None, 2, 200)
    assert verify(composed["refused"].text, row, CHECKS).accepted
