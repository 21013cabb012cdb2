"""What the four text stages share: their settings, their input rows and their output rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, cast

import pyarrow as pa
from pydantic import PlainSerializer, model_serializer

from talking_points.build_config import NOT_IN_FINGERPRINT, BuildConfig, StepConfig, VerificationConfig
from talking_points.config import Section
from talking_points.descriptions.asking import Answer
from talking_points.descriptions.prompts import prompt_digest
from talking_points.descriptions.request_cache import OutboxLike, RequestCache
from talking_points.descriptions.spending import Ledger, counted_as
from talking_points.errors import AnswersPending
from talking_points.models.omg_llava.prompt_forms import captioner_prompt, prompt_options
from talking_points.records import Candidate
from talking_points.redaction import hide_secrets
from tasks.running.manifests import Details, Manifest
from tasks.running.shards import AnyOrder, ShardFailed, ShardWriter
from tasks.running.stages import SPENT
from tasks.running.storage import Storage

TEXT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)
"""One text per row of the sample; rows without one are in the shard's rejected file.

The file's metadata says who wrote the texts, so that a changed model or prompt is a changed shard even where the
texts stayed the same.
"""


class Step(Section):
    """A step's configuration and the digest of its prompt. Dumped, it is what can change the step's texts."""

    config: StepConfig
    prompt_sha256: str

    @model_serializer
    def identity(self) -> dict[str, Any]:
        """The fields that can change a text: those of the configuration and, beside them, the prompt's digest."""
        kept = self.config.model_dump(mode="json", exclude=set(NOT_IN_FINGERPRINT["step"]))
        # A key among the options reaches the backend, and neither the shard's file nor its cache key.
        return hide_secrets(kept) | {"prompt_sha256": self.prompt_sha256}


Checks = Annotated[
    VerificationConfig,
    PlainSerializer(lambda checks: checks.model_dump(mode="json", exclude=set(NOT_IN_FINGERPRINT["verification"]))),
]
"""What is checked; dumped without the share of rejected rows that is accepted, which changes no text."""


def describe_step(config: BuildConfig, name: str) -> Step:
    """One step of a build."""
    section = config.step(name)
    digest = prompt_digest(section.prompt or name)
    if section.backend == "omg_llava":
        # Its words about the visual prompts are part of what it is asked.
        form, box = prompt_options(section.options)
        digest = hashlib.sha256(f"{digest} {captioner_prompt(form, '', box=box)}".encode()).hexdigest()
    return Step(config=section, prompt_sha256=digest)


def read_candidates(storage: Storage, manifest: Manifest) -> list[Candidate]:
    """The rows of a sample shard."""
    return [Candidate.from_row(row) for row in storage.read_table(manifest["path"]).to_pylist()]


def read_texts(storage: Storage, manifest: Manifest) -> dict[str, str]:
    """The texts of a text shard by row id."""
    table = storage.read_table(manifest["path"], columns=["id", "text"])
    return dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))


def request_cache(order: AnyOrder, config: StepConfig) -> AbstractContextManager[RequestCache | None]:
    """The cache of a step's finished answers, which counts what new ones cost; none for ``rules``, whose answers take
    less than a look-up.
    """
    if config.backend == "rules":
        return nullcontext(None)
    environment = order.environment
    outbox: OutboxLike | None = None
    if config.batch is not None:
        from talking_points.descriptions.batches.outbox import Outbox, stage_folder

        outbox = Outbox(stage_folder(environment.cache, order.stage, environment.output), order.shard, config)
    return stage_cache(order, config, outbox)


def stage_cache(order: AnyOrder, config: StepConfig, outbox: OutboxLike | None = None) -> RequestCache:
    """The finished answers of a stage, with the ledger that counts new ones."""
    spending = order.environment.spending if config.model else None
    url = order.environment.answers
    if url is not None:
        from talking_points.descriptions.shared_cache import SharedLedger, SharedRequestCache

        shared = SharedLedger(url, spending, counted_as(config)) if spending else None
        return SharedRequestCache(url, shared, outbox)
    ledger = Ledger(spending, counted_as(config)) if spending else None
    return RequestCache(Path(order.environment.cache) / f"{order.stage}.sqlite", ledger, outbox)


def server_logs(order: AnyOrder) -> Path:
    """Where a server that a step starts writes its log: beside the answers that are kept."""
    return Path(order.environment.cache).parent / "servers"


def commit_texts(
    writer: ShardWriter,
    step: Step,
    rows: list[Candidate],
    answers: Mapping[str, Answer],
    attempts: Mapping[str, int] | None = None,
    details: Details | None = None,
) -> Manifest:
    """Write a text shard; rows whose answer is an error are rejected with its reason.

    Raises ``ShardFailed`` past the configured share of rejected rows, and ``AnswersPending`` where a batch has yet to
    answer.
    """
    awaited = sum(answer.pending for answer in answers.values())
    if awaited:
        raise AnswersPending(f"{awaited} of {len(rows)} rows wait for a batch")
    texts = []
    for row in rows:
        answer = answers.get(row.id)
        if answer is None:
            continue
        if answer.error is not None:
            writer.reject(row.__dict__, answer.error.reason, answer.error.detail, answer.text)
            continue
        texts.append({"id": row.id, "text": answer.text, "attempts": (attempts or {}).get(row.id, 1)})
    check_share(writer, len(rows))
    spent = {name: sum(getattr(answer, name) for answer in answers.values()) for name in SPENT}
    written_by = json.dumps(step.model_dump(mode="json"), sort_keys=True)
    table = pa.Table.from_pylist(texts, schema=TEXT_SCHEMA.with_metadata({"step": written_by}))
    return writer.commit(table, cast(Details, spent | dict(details or {})))


def check_share(writer: ShardWriter, rows: int) -> None:
    """Raise ``ShardFailed`` when more of the rows were rejected than the configuration accepts."""
    allowed = writer.order.environment.max_rejected_share
    share = len(writer.rejected) / max(rows, 1)
    if share > allowed:
        reasons = sorted({row["reason"] for row in writer.rejected})
        raise ShardFailed(
            f"{len(writer.rejected)} of {rows} rows rejected ({share:.0%}, allowed {allowed:.0%}): "
            f"{', '.join(reasons)}; the first: {writer.rejected[0]['detail'] or writer.rejected[0]['reason']}"
        )
