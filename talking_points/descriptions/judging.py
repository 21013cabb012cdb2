"""Judging a finished description: what a model is asked, and how its score is read.

A score is a whole number on the configured scale or it is none: nothing is guessed from what else a model writes.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.build_config import CropConfig, JudgeConfig
from talking_points.descriptions.backends.protocol import ChatRequest, Completion, RequestError
from talking_points.descriptions.composition import Wording
from talking_points.descriptions.gaussian_crop import gaussian_crop
from talking_points.descriptions.nouns import say_object, say_part
from talking_points.descriptions.prompts import render
from talking_points.descriptions.steps import answer_or_error
from talking_points.records import Candidate, derive_seed

_NUMBER = re.compile(r"(?:(?:score|rating)\s*[:=]?\s*)?([+-]?\d{1,9})(?:\s*(?:/|out of|von)\s*(\d{1,9}))?\s*\.?", re.I)


def judge_request(
    candidate: Candidate,
    texts: Mapping[str, str],
    pixels: NDArray[np.uint8] | None,
    config: JudgeConfig,
    crop: CropConfig,
    seed: int,
) -> ChatRequest:
    """Ask how well a description leads to its point.

    ``texts`` are the row's ``description`` and ``local_caption``; ``pixels``, the whole image as uint8 RGB
    (height, width, 3), are needed where the judge is shown any.
    """
    least, most = config.scale
    facts: dict[str, Any] = dataclasses.asdict(candidate) | {
        "description": texts["description"],
        "local_caption": texts["local_caption"],
        "object": say_object(candidate.object),
        "part": say_part(candidate.object, candidate.part),
        "instance": Wording.of(candidate).instance,
        "shows": config.shows,
        "scale_min": least,
        "scale_max": most,
        "structured": config.structured,
    }
    images: tuple[NDArray[np.uint8], ...] = ()
    if pixels is not None and config.shows == "crop":
        images = (gaussian_crop(pixels, candidate.keypoint, candidate.part_bbox, crop),)
    elif pixels is not None and config.shows == "image":
        images = (_circled(pixels, candidate.keypoint),)
    system, user = render(config.prompt or "judge", facts)
    return ChatRequest(
        id=candidate.id,
        step="judge",
        prompt=user,
        system=system,
        images=images,
        facts=facts,
        seed=derive_seed(seed, candidate.id, "judge", 0),
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        schema=_schema(least, most) if config.structured else None,
    )


def read_score(completion: Completion | RequestError, scale: tuple[int, int]) -> str | RequestError:
    """The score in an answer, as digits; an error where the answer is anything but one whole number on the scale."""
    text = answer_or_error(completion)
    if not isinstance(text, str):
        return text
    least, most = scale
    found = _in_object(text) if text.startswith("{") else _in_text(text, most)
    if found is not None and least <= found <= most:
        return str(found)
    expected = f"expected a whole number from {least} to {most}"
    return RequestError("malformed_score", f"{expected}, found {text[:80]!r}", retryable=True)


def _in_text(text: str, most: int) -> int | None:
    found = _NUMBER.fullmatch(text.replace("*", "").strip())
    if found is None or (found[2] is not None and int(found[2]) != most):
        return None
    return int(found[1])


def _in_object(text: str) -> int | None:
    try:
        value = json.loads(text)["score"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 1e9:
        return None
    return int(value) if value == int(value) else None


def _schema(least: int, most: int) -> dict[str, Any]:
    """Scores by name: engines keep to a list of values where they pass over bounds of numbers."""
    score = {"type": "integer", "enum": list(range(least, most + 1))}
    return {"type": "object", "properties": {"score": score}, "required": ["score"], "additionalProperties": False}


def _circled(pixels: NDArray[np.uint8], point: tuple[float, float]) -> NDArray[np.uint8]:
    """A copy of the image with a red circle around the point, outlined in white."""
    canvas = np.array(pixels, dtype=np.uint8)
    centre = round(point[0]), round(point[1])
    radius = max(4, round(max(canvas.shape[:2]) / 60))
    cv2.circle(canvas, centre, radius, (255, 255, 255), max(3, radius // 2), cv2.LINE_AA)
    cv2.circle(canvas, centre, radius, (230, 0, 0), max(1, radius // 4), cv2.LINE_AA)
    return canvas
