"""Stage 5: merge both captions and the spatial phrases into a draft."""

from __future__ import annotations

from dataclasses import dataclass

from talking_points.config import Section
from talking_points.descriptions.asking import ask, share_backend
from talking_points.descriptions.steps import generate_request
from tasks.running.manifests import Manifest
from tasks.running.merging import read_rows, show_captions
from tasks.running.shards import Inputs, Order, ShardWriter, shard_task
from tasks.running.text_shards import Step, commit_texts, request_cache

VERSION = 2
"""To be raised with every change to parsing or the rows: shards are made again, from kept answers."""


class Settings(Section):
    """What can change the drafts."""

    step: Step
    seed: int
    merged_captions: str


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
    requests = (
        generate_request(row, *show_captions(row, texts, settings.merged_captions), config, settings.seed)
        for row in rows
    )
    with share_backend("generate", config) as backend, request_cache(order, config) as cache:
        answers = ask(backend, requests, config, cache)
    return commit_texts(writer, settings.step, rows, answers)


generate = shard_task("generate")(run_generate)
