from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talking_points.build_config import CropConfig, StepConfig, VerificationConfig
from talking_points.descriptions.backends.protocol import Backend, ChatRequest, Completion, RequestError
from talking_points.descriptions.backends.rules import RulesBackend
from talking_points.descriptions.steps import (
    answer_or_error,
    generate_request,
    local_caption_request,
    object_caption_request,
    refine_request,
)
from talking_points.descriptions.verification import Finding, verify
from talking_points.records import Candidate
from tests.descriptions.candidates import candidates, make_candidate

STEP = StepConfig()
PAGE = np.full((375, 500, 3), (200, 180, 150), np.uint8)
cv2.circle(PAGE, (420, 60), 5, (20, 16, 12), -1)


def _answer(request: ChatRequest) -> str:
    answer = answer_or_error(RulesBackend(STEP).complete([request])[0])
    assert isinstance(answer, str), answer
    return answer


def _describe(candidate: Candidate, attempt: int = 0, findings: tuple[Finding, ...] = (), draft: str = "") -> str:
    object_caption = _answer(object_caption_request(candidate, PAGE, STEP, 0))
    local_caption = _answer(local_caption_request(candidate, PAGE, STEP, CropConfig(), 0))
    draft = draft or _answer(generate_request(candidate, object_caption, local_caption, STEP, 0))
    request = refine_request(candidate, object_caption, local_caption, draft, findings, attempt, STEP, 0)
    return _answer(request)


def test_it_is_a_backend():
    assert isinstance(RulesBackend(STEP), Backend)
    assert RulesBackend(STEP).identity["backend"] == "rules"


@settings(max_examples=150, deadline=None)
@given(candidates())
def test_all_four_steps_give_a_description_that_passes(candidate):
    assert verify(_describe(candidate), candidate, VerificationConfig()).findings == ()


def test_the_local_caption_says_what_the_crop_shows():
    request = local_caption_request(make_candidate(), PAGE, STEP, CropConfig(), 0)
    assert "small, round, black" in _answer(request)


@given(st.integers(0, 5))
def test_every_attempt_differs_from_the_draft_it_corrects(attempt):
    candidate = make_candidate()
    failed = _describe(candidate, attempt)
    finding = Finding("point_place_wrong", "The place of the point is wrong.", True)
    again = _describe(candidate, attempt + 1, (finding,), failed)
    assert again != failed
    assert verify(again, candidate, VerificationConfig()).accepted


def test_length_findings_are_acted_upon():
    candidate = make_candidate()
    lengths = {
        code: len(_describe(candidate, 1, (Finding(code, "", True),), "x").split())
        for code in ("too_long", "too_short", "unfinished")
    }
    assert lengths["too_long"] <= lengths["unfinished"] <= lengths["too_short"]
    assert lengths["too_long"] < lengths["too_short"]


def test_answers_do_not_depend_on_the_batch():
    requests = [object_caption_request(make_candidate(id=f"{number:016d}"), PAGE, STEP, 0) for number in range(6)]
    backend = RulesBackend(STEP)
    assert backend.complete(requests) == [backend.complete([request])[0] for request in requests]
    assert len({answer.text for answer in backend.complete(requests) if isinstance(answer, Completion)}) > 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"images": ()}, "unusable_facts"), ({"step": "generate", "facts": {"object": "cat"}}, "missing_fact")],
)
def test_a_request_that_lacks_something_fails_alone(changes, reason):
    good = local_caption_request(make_candidate(), PAGE, STEP, CropConfig(), 0)
    bad = dataclasses.replace(good, **changes)
    answers = RulesBackend(STEP).complete([good, bad, good])
    assert isinstance(answers[1], RequestError)
    assert answers[1].reason == reason
    assert answers[0] == answers[2]
    assert isinstance(answers[0], Completion)
