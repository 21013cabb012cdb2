"""Texts composed by rules in the place of those that a weak model did not manage, where a build allows it."""

from __future__ import annotations

from collections.abc import Mapping

from talking_points.build_config import StepConfig
from talking_points.descriptions.asking import Answer
from talking_points.descriptions.backends.protocol import ChatRequest, Completion
from talking_points.descriptions.backends.rules import RulesBackend

INFRASTRUCTURE = frozenset(
    ("timeout", "connection_lost", "server_error", "rate_limited", "server_crashed", "out_of_memory")
)
"""Reasons that say nothing about a model's text: such a row is asked for again, and never composed."""


def compose_instead(requests: Mapping[str, ChatRequest], answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """Composed answers, by row id, for those of ``requests`` whose answer was refused; what asking took is kept."""
    refused = {
        name: answer
        for name, answer in answers.items()
        if name in requests and answer.error is not None and answer.error.reason not in INFRASTRUCTURE
    }
    composed = RulesBackend(StepConfig()).complete([requests[name] for name in refused])
    return {
        name: Answer(completion.text).after(answer)
        for (name, answer), completion in zip(refused.items(), composed, strict=True)
        if isinstance(completion, Completion)
    }
