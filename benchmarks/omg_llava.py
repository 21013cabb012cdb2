"""How fast the models describe and localize points, with random weights.

    python benchmarks/omg_llava.py                     tiny and medium on the CPU; the 7B too where a GPU is present
    python benchmarks/omg_llava.py --sizes 7b --batch-size 64

The figures are the last line of the output, as JSON. The paper reports 0.35 to 0.39 samples/s for the 7B.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import Mask2FormerConfig, PreTrainedTokenizerFast
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
)

from talking_points.image_files import read_rgb
from talking_points.models.base import TalkingPointsModel
from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.omg_llava.image_processing import OmgLlavaImageProcessor
from talking_points.models.omg_llava.pixel_decoder import DeformableAttention, cell_centres
from talking_points.models.presets import (
    medium_config,
    paper_config,
    tiny_config,
    train_tokenizer,
)

DESCRIPTION = (
    "A brown dog stands in the left half of the image, facing right. The point lies on its head, in the upper right "
    "of it, just below the ear, where the short dark fur meets a lighter stripe that runs down to the nose."
)
# Dense bfloat16 peaks of the data sheets, in TFLOP/s.
GPU_PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0}


@dataclass(frozen=True)
class Setting:
    """One size to measure: the batch, and how many tokens a description has."""

    config: TalkingPointsConfig
    batch_size: int
    new_tokens: int
    device: str
    dtype: torch.dtype


def stand_in_tokenizer() -> PreTrainedTokenizerFast:
    """About 1.2 tokens per word of questions and descriptions, as a tokenizer of a large vocabulary gives."""
    config = TalkingPointsConfig()
    question = config.question.format(keypoint=config.keypoint_token)
    return train_tokenizer([DESCRIPTION, question, config.localizer_question] * 4, 430)


def build(kind: type[TalkingPointsModel], setting: Setting, tokenizer: PreTrainedTokenizerFast) -> TalkingPointsModel:
    """A model with random weights on its device; the vision path in float32 whatever the language model runs in."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(setting.dtype)
    try:
        with torch.device(setting.device):
            model = kind(setting.config).eval()
    finally:
        torch.set_default_dtype(before)
    model.vision.float()
    if isinstance(model, PointLocalizer):
        model.coordinate_head.float()
    model.tokenizer = tokenizer
    return model


def seconds(work: Callable[[], object], device: str) -> float:
    """One run. A single CPU thread is timed by its own clock, which neighbours disturb least."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def median_seconds(work: Callable[[], object], device: str, repeats: int = 3) -> float:
    """Median after one warm-up."""
    work()
    return statistics.median(seconds(work, device) for _ in range(repeats))


@dataclass(frozen=True)
class Comparison:
    """Median seconds of two ways, and the median over rounds of the second's time in units of the first's."""

    first: float
    second: float
    ratio: float


def compare(first: Callable[[], object], second: Callable[[], object], device: str, rounds: int = 5) -> Comparison:
    """Both in turn, after a warm-up of each, so that a neighbour's load falls on both."""
    first()
    second()
    times = [(seconds(first, device), seconds(second, device)) for _ in range(rounds)]
    one, other = (statistics.median(column) for column in zip(*times, strict=True))
    return Comparison(one, other, statistics.median(b / a for a, b in times))


def make_images(count: int, side: int) -> list[np.ndarray]:
    """Different images of the model's own size."""
    return [np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8) for seed in range(count)]


def peak_flops(device: str) -> float:
    """The data sheet's bfloat16 peak of a GPU; on a CPU the float32 rate of a large product, measured now."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
        return next((peak for known, peak in GPU_PEAKS.items() if known in name), float("nan")) * 1e12
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / median_seconds(lambda: a @ a, device, repeats=5)


def preprocessing() -> dict[str, float]:
    """CPU-seconds of a photograph on its way to the 7B's vision path: decoded, padded, resized, normalised."""
    photograph = io.BytesIO()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8))
    noise.resize((640, 480), Image.Resampling.BICUBIC).save(photograph, "JPEG", quality=92)
    processor = OmgLlavaImageProcessor(1024)

    def prepare() -> None:
        processor.pixel_values(read_rgb(photograph.getvalue()))

    prepare()
    start = time.process_time()
    for _ in range(10):
        prepare()
    taken = (time.process_time() - start) / 10
    return {"cpu_seconds_per_image": taken, "images_per_second_on_eight_cores": 8 / taken}


def deformable_attention(device: str) -> dict[str, float]:
    """One deformable attention at the 7B's size for a 512-pixel image, ours and transformers'."""
    grids = [(16, 16), (32, 32), (64, 64)]
    config = Mask2FormerConfig()
    theirs = Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention(256, config.num_attention_heads, 3, 4)
    ours = DeformableAttention(256, config.num_attention_heads, 3, 4)
    ours.load_state_dict(theirs.state_dict())
    ours, theirs = ours.to(device), theirs.to(device)
    tokens = torch.randn(1, sum(h * w for h, w in grids), 256, device=device)
    references = torch.cat([cell_centres(*grid, torch.device(device)) for grid in grids])
    spread = references[None, :, None].expand(1, -1, 3, -1)

    def run_theirs() -> None:
        theirs(tokens, encoder_hidden_states=tokens, reference_points=spread, spatial_shapes_list=grids)

    with torch.no_grad():
        found = compare(run_theirs, lambda: ours(tokens, tokens, references, grids), device, rounds=15)
    return {"ours_ms": found.second * 1e3, "transformers_ms": found.first * 1e3, "ratio": found.ratio}


def measure(setting: Setting, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """All figures of one size."""
    config, device, batch = setting.config, setting.device, setting.batch_size
    descriptor, localizer = (build(kind, setting, tokenizer) for kind in (PointDescriptor, PointLocalizer))
    assert isinstance(descriptor, PointDescriptor)
    assert isinstance(localizer, PointLocalizer)
    images = make_images(batch, config.image_size)
    points = np.random.default_rng(0).uniform(0, config.image_size - 1, (max(batch, 8), 2))
    length: dict[str, Any] = {"max_new_tokens": setting.new_tokens, "min_new_tokens": setting.new_tokens}

    def describe(chosen: Sequence[np.ndarray], where: np.ndarray) -> list[str]:
        return descriptor.describe(chosen, where, batch_size=batch, **length)

    some = min(batch, 4)

    def one_by_one() -> None:
        for image, point in zip(images[:some], points, strict=False):
            describe([image], point[None])

    batching = compare(lambda: describe(images, points[:batch]), one_by_one, device)
    batched = batching.first
    sharing = compare(lambda: describe(images[:1], points[:1]), lambda: describe(images[:1] * 8, points[:8]), device)
    texts = [DESCRIPTION] * batch
    localized = median_seconds(lambda: localizer.localize(images, texts, batch_size=batch), device)

    def describe_and_localize() -> None:
        """As an evaluation does it: the frozen vision path runs once per image for both models."""
        features, index, point_features = descriptor.encode(images, points[:batch])
        stored: dict[str, Any] = {"features": features, "image_index": index, "batch_size": batch}
        written = descriptor.describe(None, points[:batch], point_features=point_features, **stored, **length)
        localizer.localize(None, written, **stored)

    both = median_seconds(describe_and_localize, device)
    vision = median_seconds(lambda: descriptor.encode_images(images[:1]), device)
    together = median_seconds(lambda: descriptor.encode_images(images[:8]), device)

    counter = FlopCounterMode(display=False)
    with counter:
        descriptor.encode_images(images[:1])
    linear = sum(p.numel() for n, p in descriptor.language_model.named_parameters() if "embed_tokens" not in n)
    visual = (config.image_size // config.visual_token_stride) ** 2 + 32
    question, description = (len(turn.ids) for turn in (*descriptor.turns(1), *localizer.turns([DESCRIPTION])))
    # Per sample: the vision path, reading image and question and image and description, writing.
    per_sample = counter.get_total_flops() + 2 * linear * (2 * visual + question + description + setting.new_tokens)
    gpu = device == "cuda"
    memory = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "parameters_millions": sum(p.numel() for p in descriptor.parameters()) / 1e6,
        "batch_size": batch,
        "question_tokens": question,
        "vision_seconds_per_image": vision,
        "vision_seconds_per_image_of_eight": together / min(batch, 8),
        "describe_tokens_per_second": batch * setting.new_tokens / batched,
        "describe_samples_per_second": batch / batched,
        "localize_samples_per_second": batch / localized,
        "describe_and_localize_samples_per_second": batch / both,
        "batched_speedup": batching.ratio * batch / some,
        "eight_points_cost_of_one": sharing.ratio,
        "peak_memory_gib": memory / 1024**3,
        "share_of_peak": per_sample * batch / both / peak_flops(device),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--sizes", nargs="+", choices=("tiny", "medium", "7b"))
    parser.add_argument("--batch-size", type=int, help="default: 16, and 64 for the 7B")
    parser.add_argument("--new-tokens", type=int, default=64, help="length of a description")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; with one, CPU seconds are measured")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("high")  # TF32 in the float32 vision path of a GPU
    tokenizer = stand_in_tokenizer()
    configs = {"tiny": tiny_config, "medium": medium_config, "7b": paper_config}
    results: dict[str, dict[str, float]] = {
        "preprocessing": preprocessing(),
        "deformable_attention": deformable_attention("cuda" if gpu else "cpu"),
    }
    for size in arguments.sizes or ("tiny", "medium", *(("7b",) if gpu else ())):
        large = size == "7b"
        setting = Setting(
            config=configs[size](tokenizer),
            batch_size=arguments.batch_size or (64 if large else 16),
            new_tokens=arguments.new_tokens,
            device="cuda" if gpu and large else "cpu",
            dtype=torch.bfloat16 if large else torch.float32,
        )
        print(json.dumps(results), flush=True)  # is there, should this be stopped before its end
        results[size] = measure(setting, tokenizer)
    for name, figures in results.items():
        print(f"\n{name}")
        for figure, value in figures.items():
            print(f"  {figure:<44}{value:12.3f}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
