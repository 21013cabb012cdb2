"""What every model backend does with a request before its engine sees it: messages, images, refusals."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.descriptions.backends import VISION_STEPS
from talking_points.descriptions.backends.protocol import ChatRequest, RequestError


def refusal(request: ChatRequest, vision: bool) -> RequestError | None:
    """Why a request must not be sent: a step that shows an image without one, or an image for a text model."""
    if request.step in VISION_STEPS and not request.images:
        return RequestError("image_missing", f"step '{request.step}' shows an image, but the request carries none")
    if request.images and not vision:
        return RequestError("image_not_accepted", "the request carries an image, but the model takes text only")
    return None


def too_long(prompt_tokens: int, max_tokens: int, limit: int) -> RequestError:
    """The error of a request whose prompt and answer do not fit the model's context, all in tokens."""
    detail = f"{prompt_tokens} prompt tokens and up to {max_tokens} answer tokens exceed the model's {limit}"
    return RequestError("too_long", detail)


def special_tokens(tokenizer: Any) -> frozenset[str]:
    """The texts that a Hugging Face tokenizer reads as marks of a conversation and never as words: its special tokens
    and the others that were added to its vocabulary, ``<think>`` and ``<image>`` among them.
    """
    added: dict[str, int] = getattr(tokenizer, "get_added_vocab", dict)()
    return marks_among([*tokenizer.all_special_tokens, *added])


def marks_among(tokens: Iterable[str]) -> frozenset[str]:
    """Those of a vocabulary's added tokens that are marks, which all have brackets: added words are left out."""
    return frozenset(token.strip() for token in tokens if len(token.strip()) > 2 and set("<>[]{}|｜◁▷") & set(token))


def strip_marks(request: ChatRequest, marks: frozenset[str]) -> ChatRequest:
    """The request with every mark of the model's own tokenizer taken out of its texts.

    They hold names and captions from elsewhere, and no words of ours are marks: what looks like one would end the
    turn, or ask for an image that is not there.
    """
    if not marks:
        return request
    system, prompt = _strip_text(request.system, marks), _strip_text(request.prompt, marks)
    if (system, prompt) == (request.system, request.prompt):
        return request
    return replace(request, system=system, prompt=prompt)


def _strip_text(text: str, marks: frozenset[str]) -> str:
    pattern, previous = _pattern(marks), ""
    while previous != text:
        previous, text = text, pattern.sub(" ", text)
    return text


@lru_cache(maxsize=4)
def _pattern(marks: frozenset[str]) -> re.Pattern[str]:
    # Some tokenizers normalise the case before they look for marks.
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))), re.IGNORECASE)


def _encode_data_url(image: NDArray[np.uint8]) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": png_data_url(image)}}


def messages(
    request: ChatRequest,
    image_part: Callable[[NDArray[np.uint8]], dict[str, Any]] = _encode_data_url,
    *,
    always_parts: bool = False,
) -> list[dict[str, Any]]:
    """The request as chat messages.

    Without images the content is plain text, which the template of every text model takes. With images it is a list
    of parts: each image as ``image_part`` gives it (by default a PNG ``data:`` URL, the form of the OpenAI API), then
    the text. ``always_parts`` gives that form to a request without images too: templates of vision models, LLaVA's
    among them, leave plain text out of the prompt.
    """
    parts = always_parts or bool(request.images)

    def content(text: str, *images: dict[str, Any]) -> str | list[dict[str, Any]]:
        return [*images, {"type": "text", "text": text}] if parts else text

    user = {"role": "user", "content": content(request.prompt, *map(image_part, request.images))}
    if not request.system:
        return [user]
    return [{"role": "system", "content": content(request.system)}, user]


def png_data_url(image: NDArray[np.uint8]) -> str:
    """An RGB image, uint8 (height, width, 3), as a lossless ``data:`` URL."""
    return f"data:image/png;base64,{base64.b64encode(encode_image(image, 'png').data).decode()}"


def encode_image(image: NDArray[np.uint8], form: Literal["png", "jpeg"]) -> NDArray[np.uint8]:
    """The bytes, uint8 (n,), of an RGB image, uint8 (height, width, 3), as PNG or as JPEG of quality 95."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, 95] if form == "jpeg" else []
    encoded, buffer = cv2.imencode(f".{form}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    if not encoded:
        raise ValueError(f"cannot encode an image of shape {image.shape} as {form.upper()}")
    return np.asarray(buffer, np.uint8)
