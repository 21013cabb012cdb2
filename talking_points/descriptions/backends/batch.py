"""The ``openai`` backend where its requests are sent as batches: it answers nothing itself.

The stages of a build hand their requests in (``batches/outbox.py``) and read the answers from the cache of requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends.protocol import (
    BackendUnavailable,
    Capabilities,
    ChatRequest,
    Completion,
    OnAnswer,
    RequestError,
)


class BatchBackend:
    """Who answers, for the keys of the cache: the same as without batches, so that answers of both are shared."""

    capabilities = Capabilities(vision=True, guided_decoding=True, concurrent=True)

    def __init__(self, config: StepConfig) -> None:
        self._config = config

    @property
    def identity(self) -> Mapping[str, str]:
        """The same as that of ``OpenAIBackend``."""
        return {"backend": "openai", "model": str(self._config.model), "revision": self._config.revision or ""}

    def complete(
        self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None
    ) -> list[Completion | RequestError]:
        """Raises ``BackendUnavailable``: only the stages of a build know how to wait for a batch."""
        raise BackendUnavailable("batch is for the text stages of a build: set .batch=false here")

    def close(self) -> None:
        """Nothing is open."""
