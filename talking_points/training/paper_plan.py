"""What a training at the paper's size takes, before it starts: hours on one H100, memory, disk. No torch is needed.

Arithmetic with stated assumptions, none of it measured: a step costs 6 floating-point operations per weight and token
(forward, its repetition under gradient checkpointing, and the gradient of the activations; the frozen weights have no
gradient of their own), and a generated token is bound by reading the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from talking_points.training.config import AdaptConfig, StageConfig, TrainConfig

GIB = 1024**3

LANGUAGE_PARAMETERS = 7_740_000_000
"""InternLM2-chat-7B with its embeddings, head and our projectors."""
ADAPTER_PARAMETERS = 1_210_000_000
"""Adapters of rank 512 on all linear layers, and the projectors: what is trained, in float32."""
VISION_BYTES = 868_950_532
IMAGE_TOKENS, TEXT_TOKENS, ANSWER_TOKENS = 276, 120, 80
FLOPS, SHARE = 989e12, 0.3
"""An H100's dense bfloat16, and the share of it that training of batches of 8 reaches."""
ENCODING_SECONDS = 0.07
"""Of one image in the vision path, in float32; its features are kept."""
DECODER_STEP = 0.03
"""Seconds of a generated token for a whole batch."""
TRIPLETS, TRIPLET_IMAGES, FAMILY_POINTS = 17_000, 21_000, 20_000
"""Training points and images of the paper's dataset; labelled keypoints of one family of AP-10K."""

ASSUMPTIONS = (
    f"training: {TRIPLETS:,} points, {FAMILY_POINTS:,} keypoints of a family, {IMAGE_TOKENS} visual and {TEXT_TOKENS} "
    f"text tokens a sample, {SHARE:.0%} of {FLOPS / 1e12:g} TFLOP/s, {ENCODING_SECONDS:g} s to encode an image, "
    f"{DECODER_STEP:g} s a generated token of a batch; nothing of this was measured on a GPU"
)


@dataclass(frozen=True)
class TrainingPlan:
    """Hours on one H100, bytes on the GPU, and bytes of disk: of the finished model, and of checkpoints meanwhile."""

    steps: int
    hours: float
    memory: int
    model_bytes: int
    checkpoint_bytes: int


def plan_stage(config: TrainConfig, kind: str) -> TrainingPlan | None:
    """The plan of the stage ``localizer``, ``descriptor`` or ``adapted``; None for presets that train in minutes."""
    if config.preset != "paper":
        return None
    if kind == "adapted":
        return _adaptation(config.adapt)
    section: StageConfig = config.localizer if kind == "localizer" else config.descriptor
    blind = kind == "localizer" and config.localizer.blind
    lora = section.model.get("train_lora", True)
    points = min(TRIPLETS, config.limit or TRIPLETS)
    steps = section.max_steps or math.ceil(section.epochs * points / section.batch_size)
    tokens = TEXT_TOKENS if blind else IMAGE_TOKENS + TEXT_TOKENS
    seconds = steps * section.batch_size * _sample_seconds(tokens, 6)
    if not blind:
        # Once for all stages that read the same features; counted for each, which is the cautious side.
        seconds += TRIPLET_IMAGES * ENCODING_SECONDS
    trained = ADAPTER_PARAMETERS if lora else 40_000_000
    return TrainingPlan(
        steps, seconds / 3600, _memory(section.batch_size * tokens, trained), _model_bytes(trained), 2 * 12 * trained
    )


def _adaptation(config: AdaptConfig) -> TrainingPlan:
    steps = config.max_steps or math.ceil(config.epochs * FAMILY_POINTS / config.batch_size)
    samples = config.batch_size * config.group
    tokens = IMAGE_TOKENS + TEXT_TOKENS + ANSWER_TOKENS
    # Sampling, then the policy, its start and the rewarding localizer read every sample once, and one step is taken.
    step = ANSWER_TOKENS * DECODER_STEP + samples * _sample_seconds(tokens, 2 + 2 + 2 + 4)
    trained = ADAPTER_PARAMETERS // 16
    memory = _memory(samples * tokens, trained) + 2 * LANGUAGE_PARAMETERS
    seconds = steps * step + FAMILY_POINTS / 12 * ENCODING_SECONDS
    return TrainingPlan(steps, seconds / 3600, memory, _model_bytes(trained), 2 * 12 * trained)


def _sample_seconds(tokens: int, operations: int) -> float:
    return operations * LANGUAGE_PARAMETERS * tokens / (FLOPS * SHARE)


def _memory(tokens: int, trained: int) -> int:
    """Frozen weights in bfloat16, the trained ones with gradients and both moments in float32, activations."""
    hidden, inner, layers, vocabulary = 4096, 14_336, 32, 92_550
    activations = tokens * (hidden * layers + 8 * hidden + 4 * inner) * 2 + tokens // 4 * vocabulary * 8
    return 2 * LANGUAGE_PARAMETERS + VISION_BYTES + 16 * trained + activations + 2 * GIB


def _model_bytes(trained: int) -> int:
    return 2 * LANGUAGE_PARAMETERS + VISION_BYTES + 4 * trained
