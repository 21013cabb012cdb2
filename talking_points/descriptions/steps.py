"""The four text steps as pure functions: candidates in, chat requests out, completions parsed.

Asking and parsing are apart on purpose: stored answers can be parsed again without generating anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talking_points.build_config import CropConfig, StepConfig
from talking_points.descriptions.answer_text import extract_answer, visible
from talking_points.descriptions.backends.protocol import ChatRequest, Completion, RequestError, Step
from talking_points.descriptions.composition import Wording
from talking_points.descriptions.gaussian_crop import gaussian_crop
from talking_points.descriptions.nouns import say_object, say_part
from talking_points.descriptions.prompts import render
from talking_points.descriptions.verification import Finding, unfit_material
from talking_points.records import Candidate, derive_seed

ANSWER_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"description": {"type": "string"}},
    "required": ["description"],
    "additionalProperties": False,
}
"""What guided decoding asks for: one field, one text."""


def object_caption_request(
    candidate: Candidate, pixels: NDArray[np.uint8], config: StepConfig, seed: int
) -> ChatRequest:
    """Ask for a caption of the object in its image (paper section 3.1, OMG-LLaVA's place).

    ``pixels`` is the whole image, uint8 RGB (height, width, 3); the keypoint is in ``facts["keypoint"]``.
    """
    return _request("object_caption", candidate, config, seed, images=(pixels,))


def local_caption_request(
    candidate: Candidate, pixels: NDArray[np.uint8], config: StepConfig, crop: CropConfig, seed: int
) -> ChatRequest:
    """Ask what the Gaussian-weighted crop around the keypoint shows (paper section 3.1, LLaVA's place)."""
    image = gaussian_crop(pixels, candidate.keypoint, candidate.part_bbox, crop)
    return _request("local_caption", candidate, config, seed, {"crop": crop.model_dump()}, images=(image,))


def generate_request(
    candidate: Candidate, object_caption: str, local_caption: str, config: StepConfig, seed: int
) -> ChatRequest:
    """Ask for the first description from the spatial phrases and both captions; an empty one is not shown."""
    return _request(
        "generate", candidate, config, seed, {"object_caption": object_caption, "local_caption": local_caption}
    )


def refine_request(
    candidate: Candidate,
    object_caption: str,
    local_caption: str,
    draft: str,
    findings: Sequence[Finding],
    attempt: int,
    config: StepConfig,
    seed: int,
) -> ChatRequest:
    """Ask for the final description; an empty caption is not shown.

    ``attempt`` counts from 0. From the second attempt on, ``draft`` is the text that failed and ``findings`` are
    the verifier's reasons, given to the model as sentences.
    """
    facts = {
        "object_caption": object_caption,
        "local_caption": local_caption,
        "draft": draft,
        "findings": [finding.detail for finding in findings],
        "finding_codes": [finding.code for finding in findings],
        "attempt": attempt,
    }
    return _request("refine", candidate, config, seed, facts, attempt=attempt)


def _request(
    step: Step,
    candidate: Candidate,
    config: StepConfig,
    seed: int,
    further: Mapping[str, Any] | None = None,
    images: tuple[NDArray[np.uint8], ...] = (),
    attempt: int = 0,
) -> ChatRequest:
    facts = vars(candidate) | dict(further or {}) | {"structured": config.structured}
    # The prompt names things as people do; composing backends get the annotation's own names.
    names = {
        "object": say_object(candidate.object),
        "part": say_part(candidate.object, candidate.part),
        "instance": Wording.of(candidate).instance,
    }
    system, user = render(config.prompt or step, facts | names)
    return ChatRequest(
        id=candidate.id,
        step=step,
        prompt=user,
        system=system,
        images=images,
        facts=facts,
        seed=derive_seed(seed, candidate.id, step, attempt),
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        schema=ANSWER_SCHEMA if config.structured else None,
    )


def answer_or_error(
    completion: Completion | RequestError, structured: bool = False, step: Step | None = None
) -> str | RequestError:
    """The text of a usable answer, or why there is none: cut off, filtered, empty or not the asked-for JSON.

    With ``step`` a caption or draft is also refused where it declines the task, speaks to somebody or holds markup:
    later steps take its words for what can be seen. Descriptions are the verifier's, which gives its reasons back.
    """
    if isinstance(completion, RequestError):
        return completion
    if completion.finish_reason == "content_filter":
        return RequestError("content_filter", "the answer was withheld by the model's content filter")
    if completion.finish_reason == "length":
        tokens = completion.completion_tokens
        detail = f"the answer was cut off after {tokens} tokens: raise max_tokens if it happens often"
        return RequestError("truncated", detail, retryable=True)
    try:
        text = parse_answer(completion.text, structured)
    except ValueError as error:
        return RequestError("malformed_answer", str(error), retryable=True)
    if not text:
        return RequestError("empty_answer", _why_empty(completion.text), retryable=True)
    finding = unfit_material(text, step) if step else None
    return RequestError(finding.code, f"{finding.detail} Found: {text[:120]!r}", retryable=True) if finding else text


def _why_empty(written: str) -> str:
    if written.strip():
        return f"the model wrote reasoning or marks and no answer after them: {written.strip()[:80]!r}"
    return "the model answered with nothing"


_FENCE = re.compile(r"^```[a-zA-Z]*\s*\n?(.*?)\n?```$", re.DOTALL)
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"))


def parse_answer(text: str, structured: bool = False) -> str:
    """Take the answer out of a model's text: without reasoning, fences, surrounding quotes and line breaks, and
    without characters that nobody sees.

    With ``structured`` the text must be a JSON object with a string ``description``; raises ``ValueError`` where
    it is not. A plain answer that happens to be such an object is read the same way.
    """
    # An object's fields may hold reasoning of their own: it is no reason to cut the object in two.
    whole = visible(text).strip()
    stripped = whole if whole.startswith("{") and whole.endswith("}") else extract_answer(text).strip()
    fenced = _FENCE.match(stripped)
    if fenced:
        stripped = fenced.group(1).strip()
    if structured or (stripped.startswith("{") and stripped.endswith("}")):
        try:
            value = json.loads(stripped)["description"]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            if structured:
                found = stripped[:80]
                raise ValueError(f"expected a JSON object with 'description', found {found!r}") from error
        else:
            if not isinstance(value, str):
                raise ValueError(f"expected 'description' to be a string, found {type(value).__name__}")
            stripped = extract_answer(value)
    stripped = " ".join(stripped.split())
    for opening, closing in _QUOTES:
        inner = stripped[1:-1]
        if len(stripped) > 1 and stripped[0] == opening and stripped[-1] == closing and opening not in inner:
            return inner.strip()
    return stripped
