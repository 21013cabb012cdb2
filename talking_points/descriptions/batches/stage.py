"""A stage's side of its batches: join what its shards have queued into files, submit, look, collect into the cache.

A file's record is written before every step that cannot be taken back, so that a run after a kill knows what the
provider has: nothing is submitted twice, and nothing that was paid for is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from talking_points.build_config import BatchConfig, StepConfig
from talking_points.descriptions.backends.chat_completions import UNPAID, no_money
from talking_points.descriptions.backends.openai import OpenAIBackend
from talking_points.descriptions.backends.protocol import BackendUnavailable, Completion, RequestError
from talking_points.descriptions.batches.collecting import read_answers
from talking_points.descriptions.batches.provider import Provider, pause
from talking_points.descriptions.batches.records import (
    COLLECTED,
    CREATING,
    SENT,
    WRITTEN,
    BatchFile,
    BatchFolder,
    keys_in,
    write_record,
)
from talking_points.descriptions.request_cache import RequestCache
from talking_points.descriptions.spending import Spent
from talking_points.errors import AnswersPending
from talking_points.redaction import redact
from talking_points.regular_files import open_regular
from talking_points.stop_requests import Stopped
from talking_points.units import counted
from talking_points.whole_files import writing_whole

FIRST_LOOK = 5.0
"""Seconds to the second look at batches that were just submitted; the time doubles up to ``batch.poll``."""
_RUNNING = frozenset(("validating", "in_progress", "finalizing", "cancelling"))
_ENDED = frozenset(("completed", "expired", "failed", "cancelled", "canceled"))
_STATUSES = {
    **dict.fromkeys(("complete", "succeeded", "success", "done", "finished", "ended"), "completed"),
    **dict.fromkeys(("error", "errored", "failure"), "failed"),
    **dict.fromkeys(("timeout", "timed_out", "timeout_exceeded"), "expired"),
}
"""Words of others: whoever waits for OpenAI's would wait without end."""
_TOO_MUCH_AT_ONCE = ("token_limit_exceeded", "enqueued")
"""Marks of a failure that means: the provider takes no more before others are done."""


class StageBatches:
    """Answers what the shards of one stage wait for. ``say`` is told in words what happens."""

    def __init__(
        self, folder: BatchFolder, cache: RequestCache, config: StepConfig, say: Callable[[str], None]
    ) -> None:
        assert config.batch is not None
        self._folder, self._cache, self._config, self._say = folder, cache, config, say
        self._batch: BatchConfig = config.batch

    def answer(self) -> None:
        """Until every request that a shard waits for has an outcome.

        Raises ``AnswersPending`` where the configuration says not to wait for the answers, and ``BackendUnavailable``
        where the provider cannot be asked or there is no money for what is left.
        """
        self._join_parts()
        if self._batch.offline:
            self._take_files()
            return
        if any(record.state == WRITTEN for record in self._folder.files()):
            # A wrong key or name of a model is told now, and not when the provider has thought about it for hours.
            OpenAIBackend(self._config).close()
        with Provider(self._config) as provider:
            try:
                self._run(provider)
            except (KeyboardInterrupt, Stopped):
                if self._batch.cancel_on_stop:
                    self._cancel(provider)
                raise

    def _run(self, provider: Provider) -> None:
        wait, told = min(FIRST_LOOK, self._batch.poll), ""
        while True:
            self._submit(provider)
            open_files = [record for record in self._folder.files() if record.state == SENT]
            news = [self._look(provider, record) for record in open_files]
            wanted = [record for record in self._folder.files() if self._folder.is_wanted(record)]
            if not wanted:
                return
            line = "; ".join(news)
            if line != told:
                self._say(line)
                told, wait = line, min(FIRST_LOOK, self._batch.poll)
            if not self._batch.wait:
                raise AnswersPending(
                    f"{len(wanted)} batch(es) are with the provider: run the build again to collect their answers"
                )
            pause(wait)
            wait = min(2 * wait, self._batch.poll)

    def _join_parts(self) -> None:
        """Files within the provider's limits from what the shards have queued, in the order of the shards."""
        parts = sorted(self._folder.parts.glob("*.jsonl"))
        lines = (line for part in parts for line in _lines(part))
        for group in _groups(lines, self._batch.max_requests, int(self._batch.max_megabytes * 1e6)):
            record = BatchFile(self._folder.next_name(), 0)
            path = self._folder.input_of(record)
            with writing_whole(path) as temporary, temporary.open("wb") as stream:
                for line in group:
                    stream.write(line)
                    record.requests += 1
            self._folder.attach(record, keys_in(path))
        for part in parts:
            part.unlink(missing_ok=True)
        for record in self._folder.files():
            if record.state == WRITTEN and not self._folder.is_wanted(record):
                self._folder.remove(record)

    def _submit(self, provider: Provider) -> None:
        """Give the provider what it may have by now."""
        records = self._folder.files()
        sent = sum(record.state == SENT for record in records)
        for record in records:
            if record.state == CREATING:
                sent += self._settle_creation(provider, record)
            elif record.state == WRITTEN and self._folder.is_wanted(record):
                if sent >= self._batch.at_once or not self._affordable(record, sent):
                    return
                path = self._folder.input_of(record)
                name = f"talking-points-{record.name}-{record.mark[:12]}.jsonl"
                record.file_id = provider.upload(path, name)
                # From here on it may be there: a run that finds this record looks for the batch before it creates one.
                self._write(record, CREATING)
                self._create(provider, record)
                self._say(f"batch {record.batch_id} of {record.requests} requests is submitted")
                sent += 1

    def _settle_creation(self, provider: Provider, record: BatchFile) -> bool:
        """A run was killed while it created this batch: whether the provider has it, or gets it now."""
        try:
            found = provider.find(record.ids[0], record.mark)
        except BackendUnavailable as error:
            raise BackendUnavailable(
                f"whether batch {record.name} was submitted before a build was killed cannot be found out ({error}): "
                f"look for it at the provider, then delete {self._folder.path / record.name}.json to submit it again, "
                'or set "batch_id" in it to the id that it has there and "state" to "sent"'
            ) from error
        if found:
            record.batch_id = found
            self._write(record, SENT)
        elif self._folder.is_wanted(record):
            self._create(provider, record)
        else:
            self._folder.remove(record)
            return False
        return True

    def _create(self, provider: Provider, record: BatchFile) -> None:
        record.batch_id = provider.create(record.ids[0], record.mark)
        self._write(record, SENT)

    def _look(self, provider: Provider, record: BatchFile) -> str:
        """Look at one batch and collect it where it has ended; what is to be told about it."""
        found = provider.look(record.ids[1])
        status = "gone" if found is None else _status(found)
        if status not in _ENDED and found is not None:
            counts = found.get("request_counts")
            done = counts.get("completed") if isinstance(counts, Mapping) else None
            of = f" {done} of {record.requests}" if isinstance(done, int) and done else ""
            return f"batch {record.batch_id} {'in progress' if status in _RUNNING else status[:40]}{of}"
        record.status, record.detail = status, _why(found)
        if status == "failed" and any(mark in record.detail.lower() for mark in _TOO_MUCH_AT_ONCE):
            self._take_back(record)
            return f"batch {record.batch_id} waits: {record.detail}"
        for field, ending in (("output_file_id", "output"), ("error_file_id", "errors")):
            file_id = found.get(field) if found else None
            if isinstance(file_id, str) and file_id:
                checked = replace(record, file_id=file_id).ids[0]
                provider.fetch(checked, self._folder.path / f"{record.name}.{ending}.jsonl", record.requests)
        return f"batch {record.batch_id} {status}: {self._collect(record)}"

    def _take_back(self, record: BatchFile) -> None:
        """A batch that the provider has not begun, because it has others: it is submitted again after them."""
        others = [other for other in self._folder.files() if other.state == SENT and other.name != record.name]
        if not others:
            self._write(record, WRITTEN)
            raise BackendUnavailable(
                f"the provider takes no batch of {record.requests} requests ({record.detail}): lower "
                "batch.max_requests, or wait until other batches of the account are done, and run again"
            )
        self._write(replace(record, state=WRITTEN, mark=BatchFile("", 0).mark, file_id="", batch_id=""), WRITTEN)

    def _collect(self, record: BatchFile) -> str:
        """Keep the answers of an ended batch: finished ones in the cache, the others as outcomes; told in words."""
        waiting = self._folder.waiting(record)
        answered, unpaid = 0, ""
        for path in self._folder.answers_of(record):
            for key, outcome in read_answers(path, waiting):
                asked = waiting.pop(key, None)
                if asked is None:
                    continue
                answered += isinstance(outcome, Completion)
                if isinstance(outcome, RequestError) and outcome.reason == UNPAID:
                    unpaid = redact(outcome.detail)
                    self._folder.settle(key, None)
                else:
                    self._keep(key, asked, outcome)
        reason = {
            "expired": "batch_expired",
            "failed": "batch_failed",
            "cancelled": "batch_cancelled",
            "canceled": "batch_cancelled",
            "gone": "batch_lost",
        }.get(record.status, "answer_missing")
        detail = redact(record.detail) or f"the batch ended as '{record.status}' without an answer to this request"
        for key in waiting:
            self._folder.settle(key, None if record.stopped else RequestError(reason, detail, retryable=True))
        self._folder.close_file(record)
        if unpaid:
            raise no_money(redact(self._config.endpoint or "the provider"), unpaid, self._config.api_key_env)
        return f"{answered} answers of {record.requests}" + (f", {len(waiting)} missing" if waiting else "")

    def _keep(self, key: str, asked: tuple[int, int], outcome: Completion | RequestError) -> None:
        if self._cache.ledger and (isinstance(outcome, Completion) or outcome.completion_tokens):
            self._cache.ledger.count_answer(*asked, outcome)
        if isinstance(outcome, Completion):
            if outcome.finish_reason == "stop" and outcome.text:
                self._cache.store(key, outcome)
        else:
            outcome = replace(outcome, detail=redact(outcome.detail))
        self._folder.settle(key, outcome)

    def _take_files(self) -> None:
        """Collect the files of answers that somebody put beside the files of requests, and ask for the others."""
        missing = []
        for record in self._folder.files():
            if record.state == COLLECTED:
                continue
            if self._folder.answers_of(record):
                record.status = "completed"
                self._say(f"{record.name}.output.jsonl: {self._collect(record)}")
            elif self._folder.is_wanted(record):
                missing.append(self._folder.input_of(record))
        if missing:
            first = missing[0]
            raise AnswersPending(
                f"requests wait in {counted(len(missing), 'file')}, the first: {first}. Have each answered, e.g. "
                f"by 'vllm run-batch -i {first.name} -o {first.stem}.output.jsonl --model {self._config.model}', put "
                f"the answers beside it as {first.stem}.output.jsonl, and run the build again"
            )

    def _affordable(self, record: BatchFile, sent: int) -> bool:
        """Whether the budget covers a file, whatever is on its way being counted as dearly as it can become.

        Raises ``BackendUnavailable`` where it does not and nothing is on its way that may turn out cheaper.
        """
        ledger = self._cache.ledger
        left = ledger.left() if ledger else None
        if ledger is None or left is None:
            return True
        on_their_way = [other for other in self._folder.files() if other.state in (CREATING, SENT)]
        needed = [self._highest_cost(other) for other in (*on_their_way, record)]
        if sum(needed) <= left:
            return True
        if sent:
            return False
        raise BackendUnavailable(
            f"the budget leaves {left:.2f} and the next batch of {record.requests} requests may cost {needed[-1]:.2f}: "
            "finished answers are kept; set a larger budget, or a smaller batch.max_requests, and run the build again"
        )

    def _highest_cost(self, record: BatchFile) -> float:
        ledger = self._cache.ledger
        assert ledger is not None
        images, tokens_in, tokens_out = self._folder.highest_tokens(record)
        requests = len(self._folder.waiting(record))
        return ledger.expected(Spent(requests, images, tokens_in, tokens_out))

    def _cancel(self, provider: Provider) -> None:
        for record in self._folder.files():
            if record.state == SENT:
                self._write(replace(record, stopped=True), SENT)
                provider.cancel(record.ids[1])

    def _write(self, record: BatchFile, state: str) -> None:
        record.state = state
        write_record(self._folder.path, record)


def _status(found: Mapping[str, Any]) -> str:
    """OpenAI's word for what a provider calls a batch's status."""
    told = str(found.get("status")).strip().lower().replace("-", "_").replace(" ", "_").rpartition("_state_")[2]
    return _STATUSES.get(told, told)


def _why(found: Mapping[str, Any] | None) -> str:
    """What a batch says about its own failure."""
    errors = found.get("errors") if found else None
    entries = errors.get("data") if isinstance(errors, Mapping) else errors
    if not isinstance(entries, list):
        return ""
    texts = []
    for entry in entries[:3]:
        if isinstance(entry, Mapping):
            line = f"line {entry['line']}: " if entry.get("line") else ""
            texts.append(f"{line}{entry.get('code') or ''} {entry.get('message') or ''}".strip())
    return redact("; ".join(texts))[:400]


def _lines(path: Path) -> Iterator[bytes]:
    with open_regular(path) as stream:
        yield from stream


def _groups(lines: Iterator[bytes], most: int, size: int) -> Iterator[Iterator[bytes]]:
    """Lines in groups of at most ``most`` lines and ``size`` bytes; one line alone may be larger. Read each in turn."""
    line = next(lines, None)

    def group() -> Iterator[bytes]:
        nonlocal line
        count = held = 0
        while line is not None and (not count or (count < most and held + len(line) <= size)):
            yield line
            count, held = count + 1, held + len(line)
            line = next(lines, None)

    while line is not None:
        yield group()
