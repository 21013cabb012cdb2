"""Asking a backend for a shard's texts: one loaded model per process, answers cached, failures kept per row.

What a model has finished writing is kept as it wrote it, even where it cannot be parsed: when parsing changes, and the
stage's ``VERSION`` with it, its shards are made again from the kept answers, and nothing is generated again.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from talking_points.build_config import NOT_IN_FINGERPRINT, JudgeConfig, StepConfig
from talking_points.config import fingerprint
from talking_points.descriptions.backends import check_capabilities, open_backend
from talking_points.descriptions.backends.protocol import (
    Backend,
    BackendUnavailable,
    ChatRequest,
    Completion,
    RequestError,
    Step,
)
from talking_points.descriptions.batches.outbox import PENDING
from talking_points.descriptions.request_cache import RequestCache, request_keys
from talking_points.descriptions.spending import BudgetSpent, Ledger
from talking_points.descriptions.steps import answer_or_error
from talking_points.errors import RunError
from talking_points.escaping import encodable
from talking_points.redaction import hide_secrets, redact
from talking_points.stop_requests import stop_if_requested, stoppable

Reader = Callable[[Completion | RequestError, ChatRequest], str | RequestError]
"""What is used of an answer, or why nothing is."""

FIRST_WINDOW = 16
"""Rows after which a shard gives up on a backend that has answered none of them."""


class WholesaleFailure(RunError):
    """So many rows fail in the same way at the start of a shard that going on would waste the whole run."""


@dataclass
class _Loaded:
    """The one backend this process holds. Several shards of a stage share it; the next stage replaces it."""

    key: str = ""
    backend: Backend | None = None
    users: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)


_loaded = _Loaded()
_engine = threading.Lock()
"""Held around an engine that answers one caller at a time."""


@contextmanager
def share_backend(step: Step, config: StepConfig, logs: Path | None = None) -> Iterator[Backend]:
    """The backend of a step, loaded on first use; an earlier stage's model is released before it loads.

    The log of a server that it starts goes into ``logs``.

    Raises ``WholesaleFailure`` when it cannot be opened, turns out to be unable to serve the step, or is lost inside
    the block: no other shard would fare better.
    """
    key = fingerprint(config.model_dump(mode="json"))
    try:
        with _loaded.changed:
            _loaded.changed.wait_for(lambda: _loaded.key == key or _loaded.users == 0)
            if _loaded.backend is None or _loaded.key != key:
                release_backend()
                _loaded.backend, _loaded.key = open_backend(config, logs), key
            backend = _loaded.backend
            # A model may offer less than its backend: a text model where an image is to be shown.
            problems = check_capabilities(step, config, backend.capabilities)
            if problems:
                raise WholesaleFailure("; ".join(problems))
            _loaded.users += 1
        try:
            yield backend
        finally:
            with _loaded.changed:
                _loaded.users -= 1
                _loaded.changed.notify_all()
    except BackendUnavailable as error:
        raise WholesaleFailure(f"{error}; finished answers are kept, so run again once this is put right") from error


def release_backend() -> None:
    """Free the loaded model, if there is one and no shard is using it."""
    with _loaded.changed:
        if _loaded.users:
            return
        if _loaded.backend is not None:
            _loaded.backend.close()
        _loaded.backend, _loaded.key = None, ""


@dataclass(frozen=True)
class Answer:
    """One row's text, or why it is not used, and what it took: requests, tokens of prompts and of completions."""

    text: str = ""
    error: RequestError | None = None
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def pending(self) -> bool:
        """Whether the answer is to come from a batch."""
        return self.error is not None and self.error.reason == PENDING

    def after(self, earlier: Answer | None) -> Answer:
        """This answer with what the earlier one to the same row took added."""
        if earlier is None:
            return self
        return replace(
            self,
            requests=self.requests + earlier.requests,
            tokens_in=self.tokens_in + earlier.tokens_in,
            tokens_out=self.tokens_out + earlier.tokens_out,
        )


def ask(
    backend: Backend,
    requests: Iterable[ChatRequest],
    config: StepConfig,
    cache: RequestCache | None,
    *,
    check_first_window: bool = True,
    as_caption: bool = True,
    reads: Reader | None = None,
) -> dict[str, Answer]:
    """Answer the requests batch by batch; returns the answers by request id.

    ``requests`` may be lazy: only one batch, with its images, is in memory. Rows that fail but may succeed get a
    second chance at the end, unless the backend would say the same again. Texts that no caption of a dataset may hold,
    such as markup, are errors unless ``as_caption`` is false; ``reads`` says of answers of another kind what is used of
    them. Raises ``WholesaleFailure`` when the first window of rows fails as one, before hours are spent on a wrong
    endpoint or model, and when the budget that the cache's ledger counts against is spent.
    """
    reads = reads or partial(_text, config=config, as_caption=as_caption)
    answers: dict[str, Answer] = {}
    deferred: list[ChatRequest] = []
    # A server is given more than it answers at a time, so that one slow row does not keep it idle.
    size = 4 * config.concurrency if backend.capabilities.concurrent else config.batch_size
    for batch in _batches(requests, FIRST_WINDOW if check_first_window else size, size):
        fresh = _answer_batch(backend, batch, config, cache, reads)
        answers.update(fresh)
        if not backend.capabilities.repeats:
            deferred += [request for request in batch if _retryable(fresh[request.id])]
        if check_first_window and len(answers) >= FIRST_WINDOW:
            _check_window(list(answers.values()), config)
            check_first_window = False
        del batch
    for batch in _batches(deferred, size, size):
        answers.update(_answer_batch(backend, batch, config, cache, reads))
    if check_first_window:
        _check_window(list(answers.values()), config)
    return answers


def _batches(requests: Iterable[ChatRequest], first: int, size: int) -> Iterator[list[ChatRequest]]:
    """Batches of ``size``, after a smaller first one. None is held while the next is put together: of their images."""
    iterator, count = iter(requests), min(first, size)
    while True:
        batch = list(itertools.islice(iterator, count))
        if not batch:
            return
        yield batch
        del batch
        count = size


def answer_identity(backend: Backend, config: StepConfig) -> dict[str, Any]:
    """What an answer is kept under beside its request: who answers, and every setting that can change what is said.

    Prompt and scale are left out, whose words are in the request; so is what ``NOT_IN_FINGERPRINT`` names, and what
    becomes of a judge's score.
    """
    apart = {*NOT_IN_FINGERPRINT["step"], "prompt", *(JudgeConfig.model_fields.keys() - StepConfig.model_fields)}
    return {**backend.identity, "settings": hide_secrets(config.model_dump(mode="json", exclude=apart))}


def _retryable(answer: Answer) -> bool:
    return answer.error is not None and answer.error.retryable


def _check_window(answers: Sequence[Answer], config: StepConfig) -> None:
    if any(answer.pending for answer in answers):
        return
    reasons = {answer.error.reason for answer in answers if answer.error is not None}
    if len(answers) >= 4 and len(reasons) == 1 and all(answer.error is not None for answer in answers):
        error = answers[0].error
        assert error is not None
        raise WholesaleFailure(
            f"the first {len(answers)} requests to backend '{config.backend}' (model {config.model}) all failed: "
            f"{error.reason}: {error.detail}; check the endpoint, the model and the prompt, then run again"
        )


def _answer_batch(
    backend: Backend,
    requests: Sequence[ChatRequest],
    config: StepConfig,
    cache: RequestCache | None,
    reads: Reader,
) -> dict[str, Answer]:
    """Answers from the cache, or from the backend; each new one is kept and counted as soon as it is there."""
    stop_if_requested()
    completions: dict[str, Completion | RequestError] = {}
    identity, ledger = answer_identity(backend, config), cache.ledger if cache else None
    keys = request_keys(identity, requests) if cache else {}
    if cache:
        kept = cache.lookup(keys)
        # One that cannot be used is asked for again, as it was when it came.
        usable = (r for r in requests if r.id in kept and isinstance(reads(kept[r.id], r), str))
        completions.update({request.id: kept[request.id] for request in usable})
    missing = [request for request in requests if request.id not in completions]

    def keep(request: ChatRequest, completion: Completion | RequestError) -> None:
        if request.id in completions:
            return
        completions[request.id] = completion
        if ledger and (isinstance(completion, Completion) or completion.completion_tokens):
            ledger.count(request, completion)
        if cache and isinstance(completion, Completion) and completion.finish_reason == "stop" and completion.text:
            cache.store(keys[request.id], completion)

    def complete(asked: Sequence[ChatRequest]) -> None:
        with nullcontext() if backend.capabilities.concurrent else _engine:
            for request, completion in zip(asked, backend.complete(asked, on_answer=keep), strict=True):
                keep(request, completion)

    if missing and cache and cache.outbox:
        # The batch's answers are kept and counted when they are collected.
        completions.update(cache.outbox.hand_in(identity, missing))
        missing = []
    while missing:
        asked = missing[: _affordable(ledger)]
        stoppable(partial(complete, asked))
        missing = missing[len(asked) :]
    answers = {}
    for request in requests:
        completion = completions[request.id]
        text = reads(completion, request)
        if not isinstance(completion, Completion):
            found = Answer(error=_tellable(completion))
        elif isinstance(text, str):
            found = Answer(text)
        else:
            found = Answer(encodable(completion.text), _tellable(text))
        took = (completion.prompt_tokens, completion.completion_tokens)
        answers[request.id] = Answer(found.text, found.error, 1, *took)
    return answers


def _affordable(ledger: Ledger | None) -> int | None:
    """How many requests may be asked now; None: all. Raises ``WholesaleFailure`` when there is no money for one."""
    try:
        return ledger.affordable() if ledger else None
    except BudgetSpent as error:
        raise WholesaleFailure(str(error)) from None


def _text(
    completion: Completion | RequestError, request: ChatRequest, config: StepConfig, as_caption: bool
) -> str | RequestError:
    return answer_or_error(completion, config.structured, request.step if as_caption else None)


def _tellable(error: RequestError) -> RequestError:
    """The error with a detail that every file takes and that tells no key: servers repeat what they were given."""
    return replace(error, detail=redact(encodable(error.detail)))
