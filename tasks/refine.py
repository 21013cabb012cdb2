"""Stage 6: refine every draft, back and forth with the verifier.

What fails is written again with the verifier's findings, at most ``verification.attempts`` times.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from talking_points.build_config import StepConfig, VerificationConfig
from talking_points.config import Section
from talking_points.descriptions.asking import Answer, ask, share_backend
from talking_points.descriptions.backends.protocol import Backend
from talking_points.descriptions.composed import compose_instead
from talking_points.descriptions.request_cache import RequestCache
from talking_points.descriptions.steps import refine_request
from talking_points.descriptions.verification import Verdict, verify
from talking_points.records import Candidate
from tasks.generate import CaptionedInputs
from tasks.running.manifests import Details, Manifest
from tasks.running.merging import Texts, explain, read_rows, show_captions
from tasks.running.shards import Order, ShardWriter, shard_task
from tasks.running.text_shards import Checks, Step, commit_texts, request_cache, server_logs

VERSION = 5
"""To be raised with every change to parsing, verifying or the rows: shards are made again, from kept answers."""


class Settings(Section):
    """What can change the descriptions."""

    step: Step
    seed: int
    verification: Checks
    merged_captions: str


@dataclass(frozen=True)
class DraftedInputs(CaptionedInputs):
    """One shard of the sample, its captions and its drafts."""

    draft: Manifest


def run_refine(order: Order[Settings, DraftedInputs]) -> Manifest:
    """Refine every draft until the verifier accepts it."""
    settings, inputs = order.settings, order.inputs
    writer, config = ShardWriter(order), settings.step.config
    rows, texts = read_rows(
        writer.storage,
        inputs.sample,
        object_caption=inputs.object_caption,
        local_caption=inputs.local_caption,
        draft=inputs.draft,
    )
    with share_backend("refine", config, server_logs(order)) as backend, request_cache(order, config) as cache:
        answers, attempts = refine_until_accepted(
            rows, texts, backend, cache, config, settings.verification, settings.seed, settings.merged_captions
        )
    rounds = Counter(str(count) for count in attempts.values())
    details: Details = {"rounds": dict(sorted(rounds.items()))}
    if settings.verification.compose_refused:
        requests = {
            row.id: refine_request(
                row,
                *show_captions(row, texts, settings.merged_captions),
                texts["draft"][row.id],
                (),
                0,
                config,
                settings.seed,
            )
            for row in rows
            if answers[row.id].error is not None
        }
        composed = compose_instead(requests, answers)
        answers |= composed
        details["composed"] = sorted(composed)
    return commit_texts(writer, settings.step, rows, answers, attempts, details)


def refine_until_accepted(
    rows: list[Candidate],
    texts: Texts,
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
                *show_captions(row, texts, shown),
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
        answers[row.id] = replace(answers[row.id], error=explain(verdicts[row.id]))
    return answers, attempts


refine = shard_task("refine")(run_refine)
