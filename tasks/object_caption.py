"""Stage 3: a caption of the object in the whole image (paper section 3.1: OMG-LLaVA)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talking_points.config import Section
from talking_points.descriptions.backends.protocol import ChatRequest
from talking_points.descriptions.steps import object_caption_request
from talking_points.records import Candidate
from tasks.running.captions import caption_rows
from tasks.running.manifests import Manifest
from tasks.running.shards import Inputs, Order, shard_task
from tasks.running.source_images import ImagesInTurn
from tasks.running.text_shards import Step

VERSION = 4
"""To be raised with every change to parsing or the rows: shards are made again, from kept answers."""

_NO_PIXELS: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)


class Settings(Section):
    """What can change the captions."""

    step: Step
    seed: int


@dataclass(frozen=True)
class SampleInput(Inputs):
    """One shard of the sample."""

    sample: Manifest


def run_object_caption(order: Order[Settings, SampleInput]) -> Manifest:
    """Caption the object of every row."""
    config, seed = order.settings.step.config, order.settings.seed
    # The rules compose from annotations: decoding 21,000 images for them would be for nothing.
    blind, images = config.backend == "rules", ImagesInTurn(order.environment)

    def request(candidate: Candidate) -> ChatRequest:
        pixels = _NO_PIXELS if blind else images.pixels(candidate)
        return object_caption_request(candidate, pixels, config, seed)

    return caption_rows("object_caption", order, order.settings.step, order.inputs.sample, request)


object_caption = shard_task("object_caption")(run_object_caption)
