"""The one seam between the pipeline and whatever writes its text.

A backend takes a batch of chat requests and gives, in the same order, a completion or an error for each.
An error belongs to its request alone: it never takes the batch down. Only the failure of the engine itself
(a server that is gone, weights that do not load) raises ``BackendUnavailable``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from talking_points.errors import RunError
from talking_points.records import STEPS as STEPS
from talking_points.records import Step as Step

FinishReason = Literal["stop", "length", "content_filter"]


class BackendUnavailable(RunError):
    """The engine as a whole cannot answer: a missing package, model, server or device."""


@dataclass(frozen=True)
class ChatRequest:
    """One question to a model.

    ``prompt`` is the rendered user text and ``system`` the optional system text. ``images`` are uint8 RGB
    arrays (height, width, 3). ``facts`` holds the values the prompt was rendered from, for backends that
    compose instead of generate and for those that take points; others ignore it. ``schema`` asks for guided
    decoding (JSON schema).
    """

    id: str
    step: Step
    prompt: str
    system: str = ""
    images: tuple[NDArray[np.uint8], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    max_tokens: int = 256
    temperature: float = 0.0
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Completion:
    """A finished answer. ``length`` and ``content_filter`` are failures for the pipeline, not successes."""

    text: str
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class RequestError:
    """Why one request has no answer; ``retryable`` says whether asking again can help, the tokens what it took."""

    reason: str
    detail: str = ""
    retryable: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0


OnAnswer = Callable[[ChatRequest, Completion | RequestError], None]
"""Told about each answer as it finishes, from any thread, so that it can be kept before the batch is complete."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do, checked against the configuration before any expensive work.

    ``concurrent`` says that ``complete`` may be called from several threads at once, ``points`` that the model takes
    ``facts["keypoint"]`` as a prompt, so that no mark need be drawn for it, ``repeats`` that a request which is asked
    again gets the same text again, so that none need be.
    """

    vision: bool
    seeds: bool = True
    guided_decoding: bool = False
    batch: bool = True
    concurrent: bool = False
    points: bool = False
    repeats: bool = False
    steps: tuple[Step, ...] = STEPS


@runtime_checkable
class Backend(Protocol):
    """What every backend offers. ``identity`` is what can change an answer: it goes into cache keys."""

    capabilities: Capabilities

    @property
    def identity(self) -> Mapping[str, str]:
        """Name, model, revision and versions that determine the answers, for cache keys and provenance."""
        ...

    def complete(
        self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None
    ) -> list[Completion | RequestError]:
        """Answer every request, in order. Raises ``BackendUnavailable`` when the engine itself fails.

        An engine whose requests finish one by one calls ``on_answer`` for each; one that answers a batch as a whole
        need not.
        """
        ...

    def close(self) -> None:
        """Release the model and its memory; a closed backend is not used again."""
        ...
