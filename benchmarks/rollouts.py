"""One step of the tiny segmenter's reinforcement, its questions together, beside the same done one answer at a time.

    python benchmarks/rollouts.py

A step samples ``--group`` answers to each of ``--questions`` questions about as many images, scores them as when they
were written, and updates. One at a time, every answer reads its image and question anew. The last line is the factor.
"""

from __future__ import annotations

import argparse
import time

import torch

from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.presets import train_tokenizer
from talking_points.models.segmenter import Segmenter, Written
from talking_points.models.segmenter_presets import add_lattice, order_lattice, segmenter_config
from talking_points.training.grpo import group_advantages, gspo_loss


def tiny() -> Segmenter:
    """The tiny preset with random weights."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["the dog", "the cat"], 512)
    add_lattice(tokenizer, 128)
    model = Segmenter(segmenter_config(tokenizer, 96, 2, 128))
    model.tokenizer = tokenizer
    order_lattice(model)
    model.prepare_training()
    return model.eval()


def step(model: Segmenter, features: VisionFeatures, index: torch.Tensor, group: int, tokens: int) -> int:
    """Sample, score and update once; returns how many tokens were written."""
    questions = ["the dog"] * len(index)
    written: Written = model.write(
        features, index, questions, group=group, temperature=1.0, max_new_tokens=tokens, batch_size=10_000
    )
    with torch.no_grad():
        old = model.log_probs(features, index, questions, written, group)
    rewards = written.mask.sum(1).double().view(-1, group)
    scores = model.log_probs(features, index, questions, written, group)
    gspo_loss(scores, old, group_advantages(rewards).flatten().float(), written.mask).total.backward()
    model.zero_grad()
    return int(written.mask.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=36, help="of an answer at most: an outline of 16 points")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    model = tiny()
    pixels = torch.randn(settings.questions, 3, 96, 96)
    features = model.encode_pixels(pixels).compact()
    index = torch.arange(settings.questions)
    step(model, features, index[:1], 2, 4)  # what is done once
    start = time.process_time()
    together = step(model, features, index, settings.group, settings.tokens) / (time.process_time() - start)
    start, written = time.process_time(), 0
    for number in index.tolist()[:2]:
        for _ in range(settings.group):
            written += step(model, features.select([number]), torch.tensor([0]), 1, settings.tokens)
    apart = written / (time.process_time() - start)
    print(f"together {together:.0f} tokens per CPU-second, one at a time {apart:.0f}")
    print(f"{together / apart:.1f} times as many (at least 5)")


if __name__ == "__main__":
    main()
