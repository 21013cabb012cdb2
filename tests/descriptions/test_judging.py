"""What a judge is asked, and that a score is read or refused, never guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from talking_points.build_config import BuildConfig, CropConfig, JudgeConfig, dataset_settings
from talking_points.config import fingerprint
from talking_points.descriptions.backends.protocol import Completion, RequestError
from talking_points.descriptions.judging import judge_request, read_score
from tests.descriptions.candidates import make_candidate

TEXTS = {"description": 'On the dog, "its" ear. {{ system }}', "local_caption": "brown fur"}
SERVED = {"backend": "openai", "model": "m", "endpoint": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("4", "4"),
        (" 5.\n", "5"),
        ("Score: 3", "3"),
        ("**2**", "2"),
        ("rating = 1", "1"),
        ("4/5", "4"),
        ("4 out of 5", "4"),
        ('{"score": 4}', "4"),
        ('{"score": 4.0, "why": "it fits"}', "4"),
        ('```json\n{"score": 2}\n```', "2"),
        ("<think>Surely 1? No.</think>\n5", "5"),
        ("4/10", None),
        ("0", None),
        ("6", None),
        ("-1", None),
        ("4.5", None),
        ("4 or 5", None),
        ("I would give it a 4", None),
        ("four", None),
        ("1 2 3 4 5", None),
        ('{"score": 9}', None),
        ('{"score": "4"}', None),
        ('{"score": true}', None),
        ('{"score": NaN}', None),
        ('{"score": 1e400}', None),
        ('{"points": 4}', None),
        ("[4]", None),
        ("9" * 5000, None),
        ("", None),
    ],
)
def test_a_score_is_one_whole_number_on_the_scale_or_none(text: str, score: str | None) -> None:
    found = read_score(Completion(text), (1, 5))
    if score is not None:
        assert found == score
        return
    assert isinstance(found, RequestError)
    assert found.retryable
    assert found.reason in ("malformed_score", "empty_answer")


def test_errors_cut_and_withheld_answers_are_no_scores() -> None:
    error = RequestError("timeout", "late", retryable=True)
    assert read_score(error, (1, 5)) == error
    for finish, reason in (("length", "truncated"), ("content_filter", "content_filter")):
        found = read_score(Completion("4", finish), (1, 5))  # type: ignore[arg-type]
        assert isinstance(found, RequestError)
        assert found.reason == reason


def test_the_question_names_the_facts_the_scale_and_shows_what_is_configured() -> None:
    row, pixels = make_candidate(), np.zeros((400, 500, 3), np.uint8)
    for shows, size in (("text", None), ("crop", (336, 336, 3)), ("image", pixels.shape)):
        config = JudgeConfig.model_validate({**SERVED, "shows": shows, "scale": [0, 10], "structured": True})
        request = judge_request(row, TEXTS, pixels, config, CropConfig(), 0)
        assert request.step == "judge"
        assert "0 to 10" in request.prompt
        assert row.point_location in request.prompt
        assert "brown fur" in request.prompt
        assert "{{" not in request.prompt
        assert [image.shape for image in request.images] == ([size] if size else [])
        assert request.schema is not None
        assert request.schema["properties"]["score"]["enum"] == list(range(11))
    assert not pixels.any(), "the circle is drawn on a copy"


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({}, "needs .backend and .model"),
        ({"by": "localizer"}, "needs .model"),
        ({"by": "localizer", **SERVED}, "asks no backend"),
        ({"by": "localizer", "model": "x", "reject_below": 2}, "reject_below: expected more than 0 and at most 1"),
        ({**SERVED, "reject_below": 1}, "reject_below: expected more than 1 and at most 5"),
        ({**SERVED, "scale": [5, 1]}, "scale: expected a lower and a higher"),
    ],
)
def test_judges_that_cannot_be_are_refused(judge: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BuildConfig.model_validate({"output": "x", "judge": judge})


def test_only_what_can_change_a_score_is_in_the_fingerprint() -> None:
    def of(**judge: Any) -> str:
        return fingerprint(dataset_settings(BuildConfig.model_validate({"output": "x", "judge": judge or None})))

    plain = BuildConfig.model_validate({"output": "x"})
    assert of() == fingerprint(dataset_settings(plain))
    assert "judge" not in dataset_settings(plain)
    assert of(**SERVED) == of(**SERVED, batch=True, concurrency=3, timeout=9.0) != of()
    assert (
        len({of(**SERVED), of(**SERVED, shows="crop"), of(**SERVED, scale=[1, 9]), of(**SERVED, reject_below=2)}) == 4
    )
