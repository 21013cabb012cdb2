"""The embedded default: answers every step from annotations and image statistics, without a model.

It reads ``ChatRequest.facts`` (a candidate's fields, captions, draft, findings) instead of the prompt, and the
Gaussian-weighted crop of a ``local_caption`` request. Same request, same answer, on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from talking_points.build_config import CropConfig, StepConfig
from talking_points.descriptions.backends import BACKENDS
from talking_points.descriptions.backends.protocol import ChatRequest, Completion, OnAnswer, RequestError
from talking_points.descriptions.composition import (
    compose_description,
    compose_draft,
    compose_local_caption,
    compose_object_caption,
)
from talking_points.descriptions.local_appearance import measure
from talking_points.records import Candidate

_VERSION = "1"
"""To be raised whenever a changed rule changes any text: cached answers depend on it."""

_DRAWS = 8
"""Phrasings looked at before a refinement settles for one."""


class RulesBackend:
    """Composes captions and descriptions; see ``talking_points.descriptions.composition``."""

    capabilities = BACKENDS["rules"].capabilities

    def __init__(self, step: StepConfig) -> None:
        del step  # nothing to set up: the same rules for every configuration

    @property
    def identity(self) -> Mapping[str, str]:
        """The version of the rules is all that determines an answer."""
        return {"backend": "rules", "version": _VERSION}

    def complete(
        self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None
    ) -> list[Completion | RequestError]:
        """Answer every request; one whose facts or image are missing gets an error of its own."""
        del on_answer  # its answers are not worth keeping
        return [_answer(request) for request in requests]

    def close(self) -> None:
        """Nothing is held."""


def _answer(request: ChatRequest) -> Completion | RequestError:
    try:
        text = _compose(request)
    except KeyError as error:
        return RequestError("missing_fact", f"step '{request.step}' needs the fact {error}, which the request lacks")
    except ValueError as error:
        return RequestError("unusable_facts", str(error))
    return Completion(text, completion_tokens=len(text.split()))


def _compose(request: ChatRequest) -> str:
    facts = request.facts
    if request.step == "local_caption":
        if not request.images:
            raise ValueError("the local caption is measured in the Gaussian-weighted crop: the request has no image")
        return compose_local_caption(measure(request.images[0], CropConfig(**facts.get("crop", {}))), request.seed)
    candidate = Candidate.from_row(facts)
    if request.step == "object_caption":
        return compose_object_caption(candidate, request.seed)
    if request.step == "generate":
        return compose_draft(candidate, facts["local_caption"], request.seed)
    return _refine(candidate, facts, request.seed)


def _refine(candidate: Candidate, facts: Mapping[str, object], seed: int) -> str:
    """A flowing sentence other than the draft, shorter or longer where the verifier asked for it."""
    draft, codes = str(facts["draft"]), set(facts.get("finding_codes") or ())  # type: ignore[call-overload]
    draw = random.Random(seed)
    caption = str(facts["local_caption"])
    sentences = [compose_description(candidate, caption, draw.getrandbits(32)) for _ in range(_DRAWS)]
    others = [sentence for sentence in sentences if sentence != draft]
    if not others:
        raise ValueError("every phrasing equals the draft")
    if "too_long" in codes:
        return min(others, key=lambda sentence: len(sentence.split()))
    if "too_short" in codes:
        return max(others, key=lambda sentence: len(sentence.split()))
    return others[0]
