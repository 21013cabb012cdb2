"""What the two caption stages share: one request per row of a sample shard, one text per answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from talking_points.descriptions.asking import FIRST_WINDOW, ask, share_backend
from talking_points.descriptions.backends.protocol import ChatRequest
from talking_points.descriptions.backends.protocol import Step as StepName
from talking_points.records import Candidate
from talking_points.sources.protocol import SkippedImage
from tasks.running.manifests import Manifest
from tasks.running.shards import AnyOrder, ShardWriter
from tasks.running.text_shards import Step, commit_texts, read_candidates, request_cache, server_logs


def caption_rows(
    name: StepName, order: AnyOrder, step: Step, sample: Manifest, request: Callable[[Candidate], ChatRequest]
) -> Manifest:
    """Ask for a caption of every row; rows whose image cannot be read are rejected."""
    writer = ShardWriter(order)
    rows = read_candidates(writer.storage, sample)
    unread: dict[str, SkippedImage] = {}

    def requests() -> Iterator[ChatRequest]:
        for row in _by_image(rows):
            try:
                yield request(row)
            except SkippedImage as skipped:
                unread[row.id] = skipped

    with share_backend(name, step.config, server_logs(order)) as backend, request_cache(order, step.config) as cache:
        answers = ask(backend, requests(), step.config, cache)
    for row in rows:
        if row.id in unread:
            writer.reject(row.__dict__, unread[row.id].reason, unread[row.id].detail)
    return commit_texts(writer, step, rows, answers)


def _by_image(rows: list[Candidate]) -> list[Candidate]:
    """Image by image, so that each is decoded and encoded once. The first ones tell whether the backend can answer at
    all: they stay as they were drawn, of many images.
    """
    first, others = rows[:FIRST_WINDOW], rows[FIRST_WINDOW:]
    return [*first, *sorted(others, key=lambda row: (row.source, row.image_path))]
