"""How fast training steps are, against the plain way of doing the same, with random weights.

    python benchmarks/training.py                      the tiny preset on the CPU; the 7B too where a GPU is present
    python benchmarks/training.py --sizes 7b --batch-size 8

Plain means: the image of every sample encoded in every step instead of each image once, one description generated at
a time, policy and reference scored one sequence at a time with adapters in every block. The figures are the last line
of the output, as JSON: samples per second and what they gain, the share of the device's peak, on a GPU the memory, and
for the 7B the hours that each of the paper's trainings would take.
CPU figures are per CPU-second of the process, so that a busy machine does not change them.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from omg_llava import peak_flops  # the benchmark beside this one
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import PointFeatures
from talking_points.examples.points import PointExample, PointSet
from talking_points.examples.words import Facts
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.presets import (
    medium_config,
    paper_config,
    tiny_config,
    train_tokenizer,
)
from talking_points.training.adaptation import prepare_adaptation
from talking_points.training.config import AdaptConfig
from talking_points.training.descriptor_policy import DescriptorPolicy
from talking_points.training.grpo import group_advantages, grpo_loss
from talking_points.training.rewards import Rewarded, neg_mse

DESCRIPTION = (
    "The point is on the dog, which is toward the left of the image and vertically centered, on its head, toward the "
    "upper right of the dog, and within the head it is slightly left of the center, in a region showing a small, "
    "round, dark brown spot set off against a beige surface."
)
GROUP = 3
PAPER_SAMPLES = {"sft": 10 * 17_000, "localizer": 15 * 17_000, "grpo": 3 * 22_600 * GROUP}
"""Samples of the paper's three trainings: epochs times points, and times the group where descriptions are sampled."""


def points(images: int, per_image: int, side: int) -> PointSet:
    """Random points on noise."""
    random = np.random.default_rng(0)
    pixels = {str(i): random.integers(0, 255, (side, side, 3), dtype=np.uint8) for i in range(images)}
    facts = Facts("dog", "head", "is in the center of the image", None, None, 0, 1)
    examples = [
        PointExample(
            f"{image}-{number}", image, "noise", (float(x), float(y)), (side, side), (0, 0, side, side), None, facts,
            f"{len(pixels) * number + int(image)}. {DESCRIPTION}",
        )
        for image in pixels
        for number, (x, y) in enumerate(random.integers(0, side, (per_image, 2)))
    ]  # fmt: skip
    return PointSet(examples, lambda wanted: ((i, Image.fromarray(pixels[i])) for i in pixels if i in wanted))


def models(size: str, device: str) -> tuple[PointDescriptor, PointLocalizer]:
    """A descriptor and a localizer with random weights; the 7B's language model in bfloat16."""
    tokenizer = train_tokenizer([DESCRIPTION], 400)
    made = []
    for kind in (PointDescriptor, PointLocalizer):
        config = {"tiny": tiny_config, "medium": medium_config, "7b": paper_config}[size](tokenizer)
        torch.manual_seed(0)
        with torch.device(device):
            model = kind(config)
        model.tokenizer = tokenizer
        if size == "7b":
            model.language_model.to(torch.bfloat16)
            model.projector.to(torch.bfloat16)
            model.text_projector.to(torch.bfloat16)
        made.append(model)
    return made[0], made[1]


@dataclass(frozen=True)
class Way:
    """One way to do a step: ``work`` returns how many samples it did, ``prepare`` is not timed."""

    work: Callable[[], int]
    prepare: Callable[[], Any] = lambda: None


def rates(ways: dict[str, Way], device: str, peak: float, repeats: int) -> dict[str, float]:
    """Samples per second (GPU) or per CPU-second of each way: its best round after one that is not counted.

    Every round takes all ways in turns, so that a machine whose speed changes changes it for all of them. The
    ``share_of_peak`` are the operations of matrix products, counted in the first round, over the device's ``peak``.
    """
    gpu = device == "cuda"
    # As training computes: what is trained is float32, the rest bfloat16.
    autocast = torch.autocast(device, torch.bfloat16, enabled=gpu)
    clock = time.perf_counter if gpu else time.process_time
    figures = dict.fromkeys(ways, 0.0)
    operations = {}
    for name, way in ways.items():
        way.prepare()
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        with FlopCounterMode(display=False) as counter, autocast:
            count = way.work()
        operations[name] = counter.get_total_flops() / count
        if gpu:
            figures[f"{name}_peak_gib"] = torch.cuda.max_memory_allocated() / 1024**3
    for _ in range(repeats):
        for name, way in ways.items():
            way.prepare()
            if gpu:
                torch.cuda.synchronize()
            start = clock()
            with autocast:
                count = way.work()
            if gpu:
                torch.cuda.synchronize()
            figures[name] = max(figures[name], count / (clock() - start))
    shares = {f"{name}_share_of_peak": figures[name] * operations[name] / peak for name in ways}
    return figures | shares


def stepped(model: torch.nn.Module, loss: torch.Tensor) -> None:
    """Backward, and gradients thrown away."""
    loss.backward()
    model.zero_grad(set_to_none=True)


def supervised(model: PointDescriptor | PointLocalizer, data: PointSet, known: PointFeatures, cached: bool) -> int:
    """One supervised step, from cached or from freshly encoded features; returns the number of samples."""
    examples = list(data.examples)
    arguments: dict[str, Any] = {"descriptions": [example.text for example in examples]}
    if cached:
        features, index, point_features = known.batch(examples)
        arguments |= {"features": features.to(model.device), "image_index": index}
        if point_features is not None:
            arguments["point_features"] = point_features
    else:
        images = dict(data.images({example.image for example in examples}))
        arguments["image_index"] = torch.arange(len(examples))
        with torch.no_grad():
            arguments["features"] = model.encode_images([images[example.image] for example in examples])
    if isinstance(model, PointLocalizer) or not cached:
        arguments["points"] = data.keypoints
    stepped(model, model(**arguments).loss)
    return len(examples)


def adapted(
    model: PointDescriptor, localizer: PointLocalizer, data: PointSet, known: PointFeatures, judged: PointFeatures,
    config: AdaptConfig,
) -> int:  # fmt: skip
    """One step of adaptation; returns the number of sampled descriptions."""
    policy = DescriptorPolicy(model, known, config.last_blocks, max_new_tokens=config.max_new_tokens)
    samples = policy.sample(data.examples, GROUP)
    examples = [
        replace(e, text=t)
        for e, t in zip(np.repeat(np.array(data.examples, object), GROUP), samples.texts, strict=True)
    ]
    features, index, _ = judged.batch(examples)
    found = localizer.localize(None, samples.texts, features=features.to(localizer.device), image_index=index)
    advantages = group_advantages(torch.from_numpy(neg_mse(Rewarded.of(examples, found))).view(-1, GROUP)).flatten()
    reference, log_probs = policy.reference(samples), policy.log_probs(samples)
    stepped(model, grpo_loss(log_probs, reference, advantages.to(log_probs), samples.mask).total)
    return len(examples)


class Fresh:
    """The image of a point encoded whenever it is asked for."""

    def __init__(self, model: PointDescriptor, data: PointSet) -> None:
        self.model, self.data = model, data

    def batch(self, examples: Sequence[PointExample]) -> tuple[VisionFeatures, torch.Tensor, torch.Tensor]:
        images = dict(self.data.images([example.image for example in examples]))
        features = self.model.encode_images([images[example.image] for example in examples])
        index = torch.arange(len(examples))
        return features, index, self.model.encode_points(features, [e.keypoint for e in examples], index)


def adapted_plainly(model: PointDescriptor, localizer: PointLocalizer, data: PointSet, config: AdaptConfig) -> int:
    """The same step one description at a time, nothing shared and nothing cached, backward through every block."""
    fresh: Any = Fresh(model, data)
    for example in data.examples:
        image = dict(data.images([example.image]))[example.image]
        scores, found = [], []
        for _ in range(GROUP):
            policy = DescriptorPolicy(model, fresh, config.last_blocks, max_new_tokens=config.max_new_tokens)
            samples = policy.sample([example], 1)
            found.append(localizer.localize([image], samples.texts)[0])
            reference = policy.reference(samples)
            scores.append((policy.log_probs(samples), reference, samples.mask))
        rewards = neg_mse(Rewarded.of([example] * GROUP, np.stack(found)))
        for advantage, (log_probs, reference, mask) in zip(
            group_advantages(torch.tensor(rewards)[None])[0], scores, strict=True
        ):
            stepped(model, grpo_loss(log_probs, reference, advantage[None].to(log_probs), mask).total)
    return GROUP * len(data)


def with_adapters(descriptor: PointDescriptor, config: AdaptConfig) -> None:
    """New adapters in the last blocks that the configuration says, without dropout."""
    prepare_adaptation(descriptor, config)
    descriptor.eval()


def measure(size: str, device: str, batch_size: int, new_tokens: int, repeats: int) -> dict[str, float]:
    """All rates of one size."""
    descriptor, localizer = models(size, device)
    data = points(max(1, batch_size // 2), 2, 1024 if size == "7b" else 256)
    figures: dict[str, float] = {}
    peak = peak_flops(device)
    with TemporaryDirectory() as folder:
        cache = FeatureConfig(folder=Path(folder), limit_gb=10, dtype="bfloat16" if size == "7b" else "float32")
        known, judged = PointFeatures(descriptor, data, cache), PointFeatures(localizer, data, cache)
        known.prepare()
        judged.prepare()
        for name, model, features in (("sft", descriptor, known), ("localizer", localizer, judged)):
            model.prepare_training()
            step = partial(supervised, model, data, features)
            ways = {name: Way(partial(step, True)), f"{name}_plain": Way(partial(step, False))}
            figures |= rates(ways, device, peak, repeats)
            print(json.dumps({size: figures}), flush=True)  # is there, should this be stopped before its end
        config = AdaptConfig(group=GROUP, max_new_tokens=new_tokens)
        everywhere = config.model_copy(update={"last_blocks": len(descriptor.language_model.model.layers)})
        localizer.eval().requires_grad_(False)
        few = data.subset(range(2))
        ways = {
            "grpo": Way(
                partial(adapted, descriptor, localizer, data, known, judged, config),
                partial(with_adapters, descriptor, config),
            ),
            "grpo_plain": Way(
                partial(adapted_plainly, descriptor, localizer, few, everywhere),
                partial(with_adapters, descriptor, everywhere),
            ),
        }
        figures |= rates(ways, device, peak, min(repeats, 2))
    for name, samples in PAPER_SAMPLES.items():
        figures[f"{name}_gain"] = figures[name] / figures[f"{name}_plain"]
        if size == "7b":
            figures[f"{name}_paper_hours"] = samples / figures[name] / 3600
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    """Measure the sizes asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=("tiny", "medium", "7b"))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=90)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5, help="rounds after the first; of GRPO at most two")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("high")  # TF32 in the float32 vision path of a GPU
    gpu = torch.cuda.is_available()
    results = {}
    for size in options.sizes or (["7b"] if gpu else ["tiny", "medium"]):
        device = "cuda" if gpu and size == "7b" else "cpu"
        results[size] = measure(size, device, options.batch_size, options.new_tokens, options.repeats)
        print(size, device, results[size], flush=True)
        gc.collect()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
