"""The 7B without its memory: parameter counts per module and the memory plan."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.omg_llava.memory import (
    GIB,
    memory_summary,
    on_meta,
    parameter_counts,
    plan_inference,
    plan_training,
)
from talking_points.models.presets import paper_config


@pytest.fixture(scope="module")
def seven_billion():
    return on_meta(PointDescriptor, paper_config())


def test_parameter_counts_of_the_7b(seven_billion):
    """Each number is worked out from the published layer sizes, not from the code."""
    counts = parameter_counts(seven_billion)
    attention = 2 * 4096 * 4096 + 2 * 4096 * 1024
    block = attention + 3 * 4096 * 14336 + 2 * 4096
    assert counts["language_layers"] == 32 * block + 4096
    assert counts["embedding"] == counts["head"] == 92548 * 4096
    assert counts["projector"] == (
        (512 * 6144 + 6144) + (6144 * 4096 + 4096) + (6656 * 4096 + 4096) + 2 * (4096 * 4096 + 4096) + 4096
    )
    assert counts["text_projector"] == (4096 * 512 + 512) + (512 * 512 + 512)
    widths, depths = (192, 384, 768, 1536), (3, 3, 27, 3)
    blocks = sum(
        depth * ((49 * c + c) + 2 * c + (4 * c * c + 4 * c) + (4 * c * c + c) + c)
        for c, depth in zip(widths, depths, strict=True)
    )
    downsampling = sum(2 * a + 4 * a * b + b for a, b in pairwise(widths))
    assert counts["backbone"] == (48 * 192 + 192 + 2 * 192) + blocks + downsampling
    linear = 256 * 256 + 256
    layer = 8 * linear + 3 * 512 + (256 * 2048 + 2048) + (2048 * 256 + 256)
    heads = 3 * linear + (2 * linear + 256 * 768 + 768) + (512 + linear) + (2 * linear + 257)
    queries = (300 + 300 + 3 + 1 + 2) * 256 + (512 * 256 + 256)
    assert counts["query_decoder"] == 9 * layer + 512 + heads + queries
    sampling = (256 * 192 + 192) + (256 * 96 + 96) + 2 * linear
    encoder = 6 * (sampling + (256 * 1024 + 1024) + (1024 * 256 + 256) + 4 * 256)
    inputs = sum(c * 256 + 256 + 512 for c in widths[1:])
    pyramid = (192 * 256 + 512) + (9 * 256 * 256 + 512) + linear + 3 * 256
    assert counts["pixel_decoder"] == encoder + inputs + pyramid


def test_adapters_of_the_7b_are_the_official_ones_with_a_copy_per_projection():
    model = on_meta(PointLocalizer, paper_config())
    with torch.device("meta"):
        trainable = model.prepare_training()
    counts = parameter_counts(model)
    official = 32 * 37_748_736  # rank 512 on the five fused linear layers of a block: 1.21 billion in all
    copies = 32 * 2 * 512 * 4096  # the input factor of the fused projection, once more for k and v
    assert counts["lora_layers"] == official + copies
    assert counts["coordinate_head"] == (512 * 128 + 128) + (128 * 2 + 2)
    assert not any("lm_head" in name or "embed_tokens" in name or name.startswith("vision.") for name in trainable)


def test_inference_plan_is_mostly_weights_and_fits_one_gpu(seven_billion):
    plan = plan_inference(seven_billion, batch_size=32)
    parameters = sum(parameter.numel() for parameter in seven_billion.parameters())
    assert plan.total > 2 * parameters
    assert 16 * GIB < plan.total < 40 * GIB
    assert f"{plan.total / GIB:.2f} GiB" in str(plan)


def test_training_plan_counts_sixteen_bytes_per_trainable_parameter():
    model = on_meta(PointDescriptor, paper_config())
    with torch.device("meta"):
        model.prepare_training()
    plan = plan_training(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kept = sum(plan.rows[name] for name in plan.rows if "float32" in name and "vision" not in name)
    assert kept == 16 * trainable
    assert plan.total < 80 * GIB
    summary = memory_summary(model)
    assert str(plan) in summary
    assert f"embedding{379.08:>45.2f} M" in summary
