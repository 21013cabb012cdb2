from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.build_config import CropConfig, StepConfig
from talking_points.descriptions.backends.protocol import Completion, RequestError
from talking_points.descriptions.gaussian_crop import gaussian_crop
from talking_points.descriptions.steps import (
    ANSWER_SCHEMA,
    answer_or_error,
    generate_request,
    local_caption_request,
    object_caption_request,
    parse_answer,
    refine_request,
)
from talking_points.descriptions.verification import Finding
from talking_points.records import Candidate
from tests.descriptions.candidates import make_candidate

PIXELS = np.random.default_rng(0).integers(0, 255, (375, 500, 3), dtype=np.uint8)
STEP = StepConfig()


def _refine(attempt: int = 0, seed: int = 0):
    findings = (Finding("look_missing", "Say how it looks.", True),)
    return refine_request(make_candidate(), "a cat", "a spot", "draft", findings, attempt, STEP, seed)


def test_object_caption_shows_the_whole_image_and_knows_the_keypoint():
    request = object_caption_request(make_candidate(), PIXELS, STEP, 0)
    np.testing.assert_array_equal(request.images[0], PIXELS)
    assert request.facts["keypoint"] == (420.0, 60.0)


def test_local_caption_shows_the_gaussian_crop():
    config = CropConfig(size=64)
    candidate = make_candidate()
    request = local_caption_request(candidate, PIXELS, STEP, config, 0)
    expected = gaussian_crop(PIXELS, candidate.keypoint, candidate.part_bbox, config)
    np.testing.assert_array_equal(request.images[0], expected)
    assert request.facts["crop"]["size"] == 64


def test_text_steps_carry_no_image_but_all_facts():
    request = generate_request(make_candidate(), "a cat", "a spot", STEP, 0)
    assert request.images == ()
    assert Candidate.from_row(request.facts) == make_candidate()
    assert (request.facts["object_caption"], request.facts["local_caption"]) == ("a cat", "a spot")


def test_refine_carries_draft_and_findings():
    request = _refine()
    assert request.facts["draft"] == "draft"
    assert request.facts["finding_codes"] == ["look_missing"]
    assert '"Say how it looks."' in request.prompt


def test_prompts_speak_of_things_by_their_spoken_names_and_facts_keep_the_annotated_ones():
    request = generate_request(make_candidate("tvmonitor", "screen"), "", "", STEP, 0)
    assert 'Object: "TV monitor"' in request.prompt
    assert request.facts["object"] == "tvmonitor"


def test_seeds_differ_by_row_step_attempt_and_build_and_nothing_else():
    candidate, other = make_candidate(), make_candidate(id="f" * 16)
    seeds = [
        object_caption_request(candidate, PIXELS, STEP, 0).seed,
        object_caption_request(candidate, PIXELS, STEP, 1).seed,
        object_caption_request(other, PIXELS, STEP, 0).seed,
        generate_request(candidate, "", "", STEP, 0).seed,
        _refine(0).seed,
        _refine(1).seed,
    ]
    assert len(set(seeds)) == len(seeds)
    assert generate_request(candidate, "x", "y", StepConfig(max_tokens=99), 0).seed == seeds[3]


def test_settings_reach_the_request():
    config = StepConfig(max_tokens=77, temperature=0.5, structured=True)
    request = generate_request(make_candidate(), "", "", config, 0)
    assert (request.max_tokens, request.temperature, request.schema) == (77, 0.5, ANSWER_SCHEMA)
    assert generate_request(make_candidate(), "", "", STEP, 0).schema is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("  A cat.\n", "A cat."),
        ('"A cat."', "A cat."),
        ("“A cat.”", "A cat."),
        ("```\nA cat.\n```", "A cat."),
        ('```json\n{"description": "A cat."}\n```', "A cat."),
        ('{"description": "A \\"big\\" cat."}', 'A "big" cat.'),
        ("A cat\nthat sleeps.", "A cat that sleeps."),
        ('"One" and "two"', '"One" and "two"'),
        ("{not json}", "{not json}"),
        ("'", "'"),
        ("", ""),
    ],
)
def test_plain_answers_are_unwrapped(text, answer):
    assert parse_answer(text) == answer


@pytest.mark.parametrize("text", ["A cat.", '{"text": "A cat."}', '{"description": 3}', "[1]", '{"description": "A c'])
def test_structured_answers_must_be_the_object_asked_for(text):
    with pytest.raises(ValueError, match="description"):
        parse_answer(text, structured=True)


@given(st.text(min_size=1).filter(lambda text: text.strip() == " ".join(text.split())))
def test_structured_answers_survive_their_encoding(text):
    assert parse_answer(json.dumps({"description": text}), structured=True) == parse_answer(text.strip()) or '"' in text


@pytest.mark.parametrize(
    ("completion", "reason", "retryable"),
    [
        (Completion("A cat th", "length", 5, 8), "truncated", True),
        (Completion("", "content_filter"), "content_filter", False),
        (Completion(" \n"), "empty_answer", True),
        (RequestError("too_long", "x"), "too_long", False),
    ],
)
def test_unfinished_and_empty_answers_are_failures(completion, reason, retryable):
    error = answer_or_error(completion)
    assert isinstance(error, RequestError)
    assert (error.reason, error.retryable) == (reason, retryable)


def test_a_malformed_structured_answer_is_a_failure_of_its_row():
    error = answer_or_error(Completion("A cat."), structured=True)
    assert isinstance(error, RequestError)
    assert error.reason == "malformed_answer"
    assert "A cat." in error.detail


def test_a_good_answer_is_its_text():
    assert answer_or_error(Completion(' "A cat." ')) == "A cat."
