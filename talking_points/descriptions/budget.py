"""What a build will ask of its models: requests, tokens and hours, from the prompts and stated assumptions.

The time follows the roofline of one GPU (Williams et al. 2009): reading a prompt is bound by arithmetic, writing an
answer by the weights and the cache that every step of the decoder reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from talking_points.build_config import BuildConfig, JudgeConfig, StepConfig
from talking_points.candidates.spatial import object_location, part_location, point_location
from talking_points.descriptions.backends import BACKENDS
from talking_points.descriptions.backends.protocol import STEPS, ChatRequest, Step
from talking_points.descriptions.judging import judge_request
from talking_points.descriptions.memory_plan import GPUS, MemoryPlan, caches_prefixes, plan_memory
from talking_points.descriptions.steps import (
    generate_request,
    local_caption_request,
    object_caption_request,
    refine_request,
)
from talking_points.records import Box, Candidate

CHARACTERS_PER_TOKEN = 4.0
TOKENS_PER_WORD = 1.35
"""English in the vocabularies of Llama 2 and 3."""

ANSWER_WORDS: dict[Step, int] = {"object_caption": 40, "local_caption": 25, "generate": 80, "refine": 80, "judge": 2}
"""The longest answers that the prompts ask for; a judge's is a number."""

REFINEMENTS = 1.25
"""Refinements per row, corrections included."""

PEAK_FLOPS, COMPUTE_SHARE = 989e12, 0.4
PEAK_BANDWIDTH, BANDWIDTH_SHARE = 3.35e12, 0.6
"""Data sheet of the H100 SXM (dense bfloat16, HBM3), and the shares of it that engines reach."""

LOADING = 1e9
"""Bytes per second from disk to GPU."""

STEP_SECONDS = {
    "transformers": 0.025,
    "omg_llava": 0.025,
    "vllm": 0.008,
    "vllm_server": 0.008,
    "llama_cpp": 0.005,
    "llama_server": 0.005,
}
"""Least time of one decoder step, whatever the model: launching its kernels."""

ASSUMPTIONS = (
    f"{CHARACTERS_PER_TOKEN:g} characters per token; answers as long as the prompts allow; {REFINEMENTS:g} refinements "
    f"per row; H100 at {COMPUTE_SHARE:.0%} of {PEAK_FLOPS / 1e12:g} TFLOP/s for prompts and {BANDWIDTH_SHARE:.0%} of "
    f"{PEAK_BANDWIDTH / 1e12:g} TB/s for answers; weights loaded at {LOADING / 1e9:g} GB/s"
)

_ENGINE_REQUESTS = 256
"""Requests that vLLM runs at a time unless ``max_num_seqs`` says otherwise."""
_REQUESTS_PER_CONNECTION = 4
"""A concurrent backend is given so many times its ``concurrency`` at once, so that one slow row does not idle it."""


@dataclass(frozen=True)
class StepBudget:
    """One step of a build. Tokens are totals; ``tokens_in`` counts images too. ``seconds`` is None where no model
    of a known size runs here.
    """

    step: Step
    requests: int
    most_requests: int
    tokens_in: int
    tokens_out: int
    memory: MemoryPlan | None
    seconds: float | None


def plan_budget(config: BuildConfig, points: int) -> list[StepBudget]:
    """Requests, tokens, memory and time of every text step for so many points, and of a judge that is a model."""
    judge: list[Step] = ["judge"] if "judge" in config.asking else []
    return [_step_budget(step, config, points) for step in (*STEPS, *judge)]


def plan_seconds(config: BuildConfig) -> dict[str, float | None]:
    """Seconds of a worker per row that the plan gives each text step, without loading its model; None: not known.

    The workers share one engine: while it works on a row, all of them count the time.
    """
    points = 10_000
    budget = {step.step: step.seconds for step in plan_budget(config, points)}
    return {step: None if seconds is None else seconds / points * config.workers for step, seconds in budget.items()}


def _step_budget(step: Step, config: BuildConfig, points: int) -> StepBudget:
    section = config.step(step)
    requests, most = points, points
    if step == "refine":
        most = points * config.verification.attempts
        requests = min(most, math.ceil(points * REFINEMENTS))
    prompt, shared = prompt_tokens(step, config)
    memory = plan_memory(section, prompt, shared, requests_in_flight(section, config.workers, requests))
    answer = min(round(ANSWER_WORDS[step] * TOKENS_PER_WORD), section.max_tokens)
    shown = step != "judge" or config.judge is None or config.judge.shows != "text"
    image = memory.size.image_tokens if memory and shown else 0
    return StepBudget(
        step=step,
        requests=requests,
        most_requests=most,
        tokens_in=requests * (prompt + image),
        tokens_out=requests * answer,
        memory=memory,
        seconds=_seconds(section, memory, requests, prompt, shared, answer) if memory else None,
    )


def requests_in_flight(step: StepConfig, workers: int, requests: int) -> int:
    """How many requests a step's engine has at a time."""
    capabilities = BACKENDS[step.backend].capabilities
    if not capabilities.batch:
        return 1
    if not capabilities.concurrent:
        return min(step.batch_size, requests)
    most = int(step.options.get("max_num_seqs", _ENGINE_REQUESTS))
    return min(most, workers * _REQUESTS_PER_CONNECTION * step.concurrency, requests)


def _seconds(
    step: StepConfig, memory: MemoryPlan, requests: int, prompt: int, shared: int, answer: int
) -> float | None:
    """Time on one H100; None where the model does not fit it."""
    size = memory.size
    batch = memory.at_once(GPUS["80 GB"])
    if batch == 0:
        return None
    flops, bandwidth = PEAK_FLOPS * COMPUTE_SHARE, PEAK_BANDWIDTH * BANDWIDTH_SHARE
    read = prompt + size.image_tokens - (shared if caches_prefixes(step) else 0)
    reading = requests * (2 * size.parameters * read / flops + size.image_seconds)
    held = batch * (prompt + size.image_tokens + answer / 2) * size.cache_bytes_per_token
    decoder_step = max(
        (size.weights + held) / bandwidth, 2 * size.parameters * batch / flops, STEP_SECONDS[step.backend]
    )
    return size.weights / LOADING + reading + requests * answer / batch * decoder_step


def prompt_tokens(step: Step, config: BuildConfig) -> tuple[int, int]:
    """Tokens of a step's prompt for an ordinary row, and how many of them all rows have in common from the start."""
    texts = [_text(_request(step, config, candidate, caption)) for candidate, caption in _EXAMPLES]
    first, second = texts
    shared = next(
        (at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other), min(map(len, texts))
    )
    return math.ceil(max(map(len, texts)) / CHARACTERS_PER_TOKEN), math.floor(shared / CHARACTERS_PER_TOKEN)


def _text(request: ChatRequest) -> str:
    return request.system + request.prompt


def _request(step: Step, config: BuildConfig, candidate: Candidate, caption: str) -> ChatRequest:
    section = config.step(step)
    pixels = np.zeros((candidate.image_height, candidate.image_width, 3), np.uint8)
    whole = caption if config.merged_captions != "local_caption" else ""
    local = caption[:120] if config.merged_captions != "object_caption" else ""
    makers: dict[Step, Callable[[], ChatRequest]] = {
        "object_caption": lambda: object_caption_request(candidate, pixels, section, 0),
        "local_caption": lambda: local_caption_request(candidate, pixels, section, config.crop, 0),
        "generate": lambda: generate_request(candidate, whole, local, section, 0),
        "refine": lambda: refine_request(candidate, whole, local, 2 * caption, [], 0, section, 0),
        "judge": lambda: judge_request(
            candidate,
            {"description": 2 * caption, "local_caption": caption[:120]},
            pixels,
            cast(JudgeConfig, section),
            config.crop,
            0,
        ),
    }
    return makers[step]()


def _example(name: str, part: str, object_bbox: Box, part_bbox: Box, keypoint: tuple[float, float]) -> Candidate:
    width, height = 500, 375
    return Candidate(
        id=name, source="partimagenet", image_id="", image_path="", image_sha256="", image_phash=0,
        image_width=width, image_height=height, object=name, part=part, object_bbox=object_bbox, part_bbox=part_bbox,
        instance_index=0, instance_count=1, instance_exact=True, keypoint=keypoint,
        sift_response=0.0, sift_size=0.0, sift_angle=0.0,
        object_location=object_location(object_bbox, width, height),
        part_location=part_location(part_bbox, object_bbox, name),
        point_location=point_location(keypoint, part_bbox),
    )  # fmt: skip


_EXAMPLES = (
    (
        _example("bicycle", "handlebar", (20.0, 60.0, 300.0, 280.0), (210.0, 70.0, 60.0, 50.0), (255.0, 80.0)),
        "A red city bicycle with a basket leans against a white wall on the left side of the picture, seen from the "
        "side with its front wheel turned toward the viewer and its saddle in the shade.",
    ),
    (
        _example("dog", "snout", (200.0, 100.0, 280.0, 250.0), (220.0, 130.0, 70.0, 60.0), (240.0, 165.0)),
        "The brown and white dog that stands on the grass in the right half of the picture looks to the left with its "
        "mouth open, its long ears hanging down and its tail raised behind its back.",
    ),
)
"""Two ordinary rows: a candidate, and a caption of 30 to 40 words."""
