"""Stage 4: a caption of the Gaussian-weighted crop around the point (paper section 3.1: LLaVA).

A stage of its own, so that one GPU holds one model at a time.
"""

from __future__ import annotations

from talking_points.build_config import CropConfig
from talking_points.config import Section
from talking_points.descriptions.backends.protocol import ChatRequest
from talking_points.descriptions.steps import local_caption_request
from talking_points.records import Candidate
from tasks.object_caption import SampleInput
from tasks.running.captions import caption_rows
from tasks.running.manifests import Manifest
from tasks.running.shards import Order, shard_task
from tasks.running.source_images import ImagesInTurn
from tasks.running.text_shards import Step

VERSION = 4
"""To be raised with every change to parsing or the rows: shards are made again, from kept answers."""


class Settings(Section):
    """What can change the captions."""

    step: Step
    seed: int
    crop: CropConfig


def run_local_caption(order: Order[Settings, SampleInput]) -> Manifest:
    """Caption the crop around the keypoint of every row."""
    settings, images = order.settings, ImagesInTurn(order.environment)

    def request(candidate: Candidate) -> ChatRequest:
        pixels = images.pixels(candidate)
        return local_caption_request(candidate, pixels, settings.step.config, settings.crop, settings.seed)

    return caption_rows("local_caption", order, settings.step, order.inputs.sample, request)


local_caption = shard_task("local_caption")(run_local_caption)
