"""Stages 5 to 7: merge both captions and the spatial phrases into a draft, refine it, verify the result.

Refining goes back and forth with the verifier: what fails is written again with the verifier's findings, at most
``verification.attempts`` times. The verify stage then judges every text once more, whoever wrote it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from talking_points.build_config import StepConfig, VerificationConfig
from talking_points.descriptions.asking import Answer, ask, release_backend, shared_backend
from talking_points.descriptions.backends.protocol import Backend, RequestError
from talking_points.descriptions.request_cache import RequestCache
from talking_points.descriptions.steps import generate_request, refine_request
from talking_points.descriptions.verification import Verdict, verify
from talking_points.records import CANDIDATE_SCHEMA, Candidate
from tasks.running.shards import Manifest, Order, ShardWriter, shard_task
from tasks.running.storage import Storage
from tasks.running.text_shards import check_share, commit_texts, read_candidates, read_texts, request_cache, step_config

VERSION = 2
"""To be raised with every change to parsing, verifying or the rows: shards are made again, from kept answers."""

VERIFIED_SCHEMA = pa.schema(
    [
        *CANDIDATE_SCHEMA,
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("object_caption", "local_caption", "draft", "description")
        ),
    ]
)
"""A finished row without its image."""


def run_generate(order: Order) -> Manifest:
    """Write a draft of every row that has both captions (inputs: sample, object captions, local captions)."""
    storage, config = Storage(order["environment"]["output"]), step_config(order)
    writer = ShardWriter(order, storage)
    rows, texts = _merge_inputs(order, storage)
    seed, shown = order["settings"]["seed"], order["settings"]["merged_captions"]
    requests = (generate_request(row, *shown_captions(row, texts, shown), config, seed) for row in rows)
    with shared_backend("generate", config) as backend, request_cache(order, config) as cache:
        answers = ask(backend, requests, config, cache)
    return commit_texts(writer, rows, answers)


def run_refine(order: Order) -> Manifest:
    """Refine every draft until the verifier accepts it (inputs: sample, both captions, drafts)."""
    storage, config = Storage(order["environment"]["output"]), step_config(order)
    writer = ShardWriter(order, storage)
    rows, texts = _merge_inputs(order, storage)
    checks = VerificationConfig.model_validate(order["settings"]["verification"])
    seed, shown = order["settings"]["seed"], order["settings"]["merged_captions"]
    with shared_backend("refine", config) as backend, request_cache(order, config) as cache:
        answers, attempts = refine(rows, texts, backend, cache, config, checks, seed, shown)
    rounds = Counter(str(count) for count in attempts.values())
    return commit_texts(writer, rows, answers, attempts, {"rounds": dict(sorted(rounds.items()))})


def refine(
    rows: list[Candidate],
    texts: dict[str, dict[str, str]],
    backend: Backend,
    cache: RequestCache | None,
    config: StepConfig,
    checks: VerificationConfig,
    seed: int,
    shown: str = "both",
) -> tuple[dict[str, Answer], dict[str, int]]:
    """Answers and number of attempts by row id; a row that never passes ends with its last findings as the error."""
    answers: dict[str, Answer] = {}
    attempts: dict[str, int] = {}
    verdicts: dict[str, Verdict] = {}
    waiting = rows
    for attempt in range(checks.attempts):
        requests = (
            refine_request(
                row,
                *shown_captions(row, texts, shown),
                answers[row.id].text if row.id in verdicts else texts["draft"][row.id],
                verdicts[row.id].findings if row.id in verdicts else (),
                attempt,
                config,
                seed,
            )
            for row in waiting
        )
        fresh = ask(backend, requests, config, cache, check_first_window=attempt == 0)
        again = []
        for row in waiting:
            answer = answers[row.id] = fresh[row.id].after(answers.get(row.id))
            attempts[row.id] = attempt + 1
            if answer.error is not None:
                continue
            verdicts[row.id] = verify(answer.text, row, checks)
            if not verdicts[row.id].accepted:
                again.append(row)
        waiting = again
    for row in waiting:
        answers[row.id] = replace(answers[row.id], error=_rejection(verdicts[row.id]))
    return answers, attempts


def shown_captions(row: Candidate, texts: Mapping[str, Mapping[str, str]], shown: str) -> tuple[str, str]:
    """Object and local caption of a row as the merge sees them: empty where ``merged_captions`` withholds one."""
    whole, local = (
        texts[name][row.id] if shown in ("both", name) else "" for name in ("object_caption", "local_caption")
    )
    return whole, local


def run_verify(order: Order) -> Manifest:
    """Judge every description and join the row together (inputs: sample, both captions, drafts, descriptions)."""
    # Every text is written: what comes after the build has the accelerator to itself.
    release_backend()
    storage = Storage(order["environment"]["output"])
    writer = ShardWriter(order, storage)
    rows, texts = _merge_inputs(order, storage)
    checks = VerificationConfig.model_validate(order["settings"]["verification"])
    finished: list[dict[str, Any]] = []
    for row in rows:
        verdict = verify(texts["description"][row.id], row, checks)
        if verdict.accepted:
            flags = sorted({*row.flags, *verdict.flags})
            finished.append(vars(row) | {name: column[row.id] for name, column in texts.items()} | {"flags": flags})
        else:
            error = _rejection(verdict)
            writer.reject(row.__dict__, error.reason, error.detail, texts["description"][row.id])
    check_share(writer, len(rows))
    return writer.commit(pa.Table.from_pylist(finished, schema=VERIFIED_SCHEMA))


def _merge_inputs(order: Order, storage: Storage) -> tuple[list[Candidate], dict[str, dict[str, str]]]:
    """Rows that have every text so far, and those texts by column and row id."""
    sample, *shards = order["inputs"]
    names = ("object_caption", "local_caption", "draft", "description")[: len(shards)]
    texts = {name: read_texts(storage, shard) for name, shard in zip(names, shards, strict=True)}
    rows = [row for row in read_candidates(storage, sample) if all(row.id in column for column in texts.values())]
    return rows, texts


def _rejection(verdict: Verdict) -> RequestError:
    fatal = [finding for finding in verdict.findings if finding.fatal]
    return RequestError(fatal[0].code, "; ".join(finding.detail for finding in fatal))


generate = shard_task("generate")(run_generate)
refine_task = shard_task("refine")(run_refine)
verify_task = shard_task("verify")(run_verify)
