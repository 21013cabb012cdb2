"""A shard's side of a batch: requests that are not answered yet are written down, and the shard waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from talking_points.build_config import StepConfig
from talking_points.config import fingerprint
from talking_points.descriptions.backends.chat import refusal
from talking_points.descriptions.backends.chat_requests import RequestWriter
from talking_points.descriptions.backends.protocol import ChatRequest, Completion, RequestError
from talking_points.descriptions.batches.records import LINE_START, BatchFolder, Queued
from talking_points.descriptions.request_cache import request_key
from talking_points.descriptions.spending import estimate_tokens
from talking_points.errors import AnswersPending
from talking_points.whole_files import writing_whole

TRIES = 2
"""How often a request is sent: one that fails and may succeed gets a second chance."""
PENDING = "batch_pending"
"""The reason of a row whose answer is awaited; it never reaches a file."""


def stage_folder(cache: str | Path, stage: str, output: str) -> Path:
    """Where the batches of a stage are kept; the folder of remote outputs is shared by all of a user's builds."""
    own = f"-{fingerprint(output)}" if "://" in output else ""
    return Path(cache) / f"batches{own}" / stage


class Outbox:
    """The requests of one shard for the stage's next batch. Close it when the shard has asked for everything."""

    def __init__(self, folder: Path, shard: int, config: StepConfig) -> None:
        self._folder = BatchFolder(folder)
        self._writer = RequestWriter(config)
        self._url = config.batch.url if config.batch else ""
        self._path = self._folder.parts / f"{shard:05d}.jsonl"
        self._context: Any = None
        self._stream: IO[bytes] | None = None
        self._queued: dict[str, Queued] = {}

    def close(self, *, complete: bool = True) -> None:
        """Let the batch have what was written; nothing of it where the shard ended before it had asked all."""
        try:
            if self._stream is not None:
                self._stream.close()
                if complete:
                    self._context.__exit__(None, None, None)
                    self._folder.queue(self._queued.values())
                else:
                    stopped = AnswersPending("the shard ended early")
                    self._context.__exit__(type(stopped), stopped, None)
        finally:
            self._stream = None
            self._folder.__exit__()

    def hand_in(
        self, identity: Mapping[str, Any], requests: Sequence[ChatRequest]
    ) -> dict[str, Completion | RequestError]:
        """What came of each request by its id: an answer that was not kept, an error, or ``PENDING``."""
        return {request.id: self._hand_in(request_key(identity, request), request) for request in requests}

    def _hand_in(self, key: str, request: ChatRequest) -> Completion | RequestError:
        refused = refusal(request, vision=True)
        if refused:
            return refused
        known = self._folder.want(key)
        if known is not None and known.outcome is not None and not known.on_its_way:
            final = known.tries >= TRIES or not _may_pass(known.outcome)
            if final:
                return known.outcome
        if (known is None or not known.on_its_way) and key not in self._queued:
            self._write(key, request)
        return RequestError(PENDING, "its answer is awaited")

    def _write(self, key: str, request: ChatRequest) -> None:
        if self._stream is None:
            self._context = writing_whole(self._path)
            self._stream = self._context.__enter__().open("wb")
        self._stream.write(LINE_START + f'{key}","method":"POST","url":"{self._url}","body":'.encode())
        self._stream.write(self._writer.body(request) + b"}\n")
        self._queued[key] = Queued(key, len(request.images), estimate_tokens(request), request.max_tokens)


def _may_pass(outcome: Completion | RequestError) -> bool:
    """Whether the same request may be answered better: what was cut off or cannot be parsed, and passing errors."""
    if isinstance(outcome, Completion):
        return outcome.finish_reason != "content_filter"
    return outcome.retryable
