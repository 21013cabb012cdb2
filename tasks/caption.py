"""Stages 3 and 4: a caption of the object in the whole image, and one of the crop around the point.

They are separate stages so that one GPU holds one model at a time (paper section 3.1: OMG-LLaVA, then LLaVA).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from talking_points.build_config import CropConfig
from talking_points.descriptions.asking import ask, shared_backend
from talking_points.descriptions.backends.protocol import ChatRequest, Step
from talking_points.descriptions.steps import local_caption_request, object_caption_request
from talking_points.records import Candidate
from talking_points.sources.protocol import SkippedImage
from tasks.running.shards import Manifest, Order, ShardWriter, shard_task
from tasks.running.source_images import photograph_pixels
from tasks.running.storage import Storage
from tasks.running.text_shards import commit_texts, read_candidates, request_cache, step_config

VERSION = 2
"""To be raised with every change to parsing or the rows: shards are made again, from kept answers."""

_NO_PIXELS: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)


def run_object_caption(order: Order) -> Manifest:
    """Caption the object of every row (input: a sample shard)."""
    config, seed = step_config(order), order["settings"]["seed"]
    # The rules compose from annotations: decoding 21,000 photographs for them would be for nothing.
    blind = config.backend == "rules"

    def request(candidate: Candidate) -> ChatRequest:
        pixels = _NO_PIXELS if blind else photograph_pixels(candidate, order["environment"]["roots"])
        return object_caption_request(candidate, pixels, config, seed)

    return _run("object_caption", order, request)


def run_local_caption(order: Order) -> Manifest:
    """Caption the Gaussian-weighted crop around the keypoint of every row (input: a sample shard)."""
    config, seed = step_config(order), order["settings"]["seed"]
    crop = CropConfig.model_validate(order["settings"]["crop"])

    def request(candidate: Candidate) -> ChatRequest:
        pixels = photograph_pixels(candidate, order["environment"]["roots"])
        return local_caption_request(candidate, pixels, config, crop, seed)

    return _run("local_caption", order, request)


def _run(step: Step, order: Order, request: Callable[[Candidate], ChatRequest]) -> Manifest:
    storage, config = Storage(order["environment"]["output"]), step_config(order)
    writer = ShardWriter(order, storage)
    rows = read_candidates(storage, order["inputs"][0])

    def requests() -> Iterator[ChatRequest]:
        for row in rows:
            try:
                yield request(row)
            except SkippedImage as skipped:
                writer.reject(row.__dict__, skipped.reason, skipped.detail)

    with shared_backend(step, config) as backend, request_cache(order, config) as cache:
        answers = ask(backend, requests(), config, cache)
    return commit_texts(writer, rows, answers)


object_caption = shard_task("object_caption")(run_object_caption)
local_caption = shard_task("local_caption")(run_local_caption)
"""Prefect tasks of the two stages."""
