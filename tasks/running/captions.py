"""What the two caption stages share: one request per row of a sample shard, one text per answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from talking_points.descriptions.asking import ask, share_backend
from talking_points.descriptions.backends.protocol import ChatRequest
from talking_points.descriptions.backends.protocol import Step as StepName
from talking_points.records import Candidate
from talking_points.sources.protocol import SkippedImage
from tasks.running.manifests import Manifest
from tasks.running.shards import AnyOrder, ShardWriter
from tasks.running.text_shards import Step, commit_texts, read_candidates, request_cache


def caption_rows(
    name: StepName, order: AnyOrder, step: Step, sample: Manifest, request: Callable[[Candidate], ChatRequest]
) -> Manifest:
    """Ask for a caption of every row; rows whose image cannot be read are rejected."""
    writer = ShardWriter(order)
    rows = read_candidates(writer.storage, sample)

    def requests() -> Iterator[ChatRequest]:
        for row in rows:
            try:
                yield request(row)
            except SkippedImage as skipped:
                writer.reject(row.__dict__, skipped.reason, skipped.detail)

    with share_backend(name, step.config) as backend, request_cache(order, step.config) as cache:
        answers = ask(backend, requests(), step.config, cache)
    return commit_texts(writer, step, rows, answers)
