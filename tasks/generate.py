"""Stage 5: merge both captions and the spatial phrases into a draft."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from talking_points.config import Section
from talking_points.descriptions.asking import Answer, ask, share_backend
from talking_points.descriptions.backends.protocol import ChatRequest
from talking_points.descriptions.composed import compose_instead
from talking_points.descriptions.steps import generate_request
from talking_points.records import Candidate
from tasks.running.manifests import Details, Manifest
from tasks.running.merging import read_rows, show_captions
from tasks.running.shards import Inputs, Order, ShardWriter, shard_task
from tasks.running.text_shards import Step, commit_texts, request_cache, server_logs

VERSION = 5
"""To be raised with every change to parsing or the rows: shards are made again, from kept answers."""


class Settings(Section):
    """What can change the drafts."""

    step: Step
    seed: int
    merged_captions: str
    compose_refused: bool = Field(default=False, exclude_if=lambda compose: not compose)


@dataclass(frozen=True)
class CaptionedInputs(Inputs):
    """One shard of the sample and its captions."""

    sample: Manifest
    object_caption: Manifest
    local_caption: Manifest


def run_generate(order: Order[Settings, CaptionedInputs]) -> Manifest:
    """Write a draft of every row that has both captions."""
    settings, inputs = order.settings, order.inputs
    writer, config = ShardWriter(order), settings.step.config
    rows, texts = read_rows(
        writer.storage, inputs.sample, object_caption=inputs.object_caption, local_caption=inputs.local_caption
    )

    def request(row: Candidate) -> ChatRequest:
        return generate_request(row, *show_captions(row, texts, settings.merged_captions), config, settings.seed)

    with share_backend("generate", config, server_logs(order)) as backend, request_cache(order, config) as cache:
        answers = ask(backend, map(request, rows), config, cache)
    composed: dict[str, Answer] = {}
    if settings.compose_refused:
        refused = {row.id: request(row) for row in rows if answers[row.id].error is not None}
        composed = compose_instead(refused, answers)
    details: Details = {"composed": sorted(composed)} if composed else {}
    return commit_texts(writer, settings.step, rows, answers | composed, details=details)


generate = shard_task("generate")(run_generate)
