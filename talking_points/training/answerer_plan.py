"""What a training of the Point Answerer takes, before anything is downloaded: memory and hours on three machines.

Arithmetic, not measurement: adapters need the forward pass and the gradients of activations, four operations per weight
of the language model and token, and no gradients of its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from talking_points.dataset_files import open_parquet
from talking_points.examples.pose_files import open_poses
from talking_points.models.answerer import PointAnswerer
from talking_points.models.capellm.configuration import AnswererConfig as ModelConfig
from talking_points.models.capellm.modeling import parameter_counts
from talking_points.models.capellm.presets import paper_config, small_config
from talking_points.sources.keypoint_sets import set_of
from talking_points.sources.mp100 import Mp100
from talking_points.training.answerer_config import AnswererConfig

PAPER_EXAMPLES = 61_600
"""Conversations of k = 4 rounds about the first partition's 13,712 training annotations."""

PROMPT_TOKENS = 76
"""Of one round with its description of 33 words and its answer."""

UTILISATION = 0.4
"""Share of a GPU's peak that is taken to be reached."""


@dataclass(frozen=True)
class Machine:
    """GPUs with their memory and their peak in bfloat16."""

    name: str
    gpus: int
    gigabytes: float
    teraflops: float
    checkpointing: bool = False


MACHINES = (
    Machine("8 GPUs of 80 GB (H100)", 8, 80, 989),
    Machine("1 GPU of 80 GB (H100)", 1, 80, 989),
    Machine("1 GPU of 24 GB (RTX 4090), gradient checkpointing", 1, 24, 165, True),
)


def plan_training(config: AnswererConfig) -> str:
    """Parameters, memory and hours of a configuration, as lines of text."""
    settings = small_config() if config.preset == "small" else paper_config()
    with torch.device("meta"):
        counts = parameter_counts(PointAnswerer(settings))
    examples = count_examples(config)
    tokens = 1 + settings.image_tokens + PROMPT_TOKENS * config.answerer.k
    steps = examples * config.answerer.epochs / (config.answerer.batch_size * config.answerer.accumulation)
    lines = [f"{part}: {count / 1e6:,.2f} million parameters" for part, count in counts.items()]
    lines.append(
        f"{examples:,} conversations of about {tokens} tokens, {config.answerer.epochs:g} epochs, "
        f"{steps / config.answerer.processes:,.0f} steps"
    )
    for machine in MACHINES:
        memory = memory_gigabytes(settings, counts, tokens, machine.checkpointing)
        fits = "fits" if memory < 0.95 * machine.gigabytes else "does not fit"
        hours = hours_of(counts, tokens * examples * config.answerer.epochs, machine)
        lines.append(f"{machine.name}: {memory:.1f} GB of {machine.gigabytes:g} ({fits}), about {hours:.1f} hours")
    return "\n".join(lines)


def count_examples(config: AnswererConfig) -> int:
    """Conversations of an epoch: counted in the files of keypoints or in the dataset's rows, else the paper's."""
    root, rows = config.poses.root, config.poses.rows
    if config.poses.own is not None:
        objects = open_poses(config.poses, "train", config.seed).examples
        return sum(-(-int(one.visible.sum()) // config.answerer.k) for one in objects)
    if rows is not None:
        return sum(map(_count_rows, rows.glob("data/train-*.parquet")))
    if root is None or not root.is_dir():
        return PAPER_EXAMPLES
    found = Mp100(root, "train", partition=config.poses.partition).count_annotations()["train"]
    return sum(count * -(-len(set_of(category)) // config.answerer.k) for category, count in found.items())


def _count_rows(path: Path) -> int:
    with open_parquet(path, ["id"]) as file:
        return int(file.metadata.num_rows)


def memory_gigabytes(settings: ModelConfig, counts: dict[str, int], tokens: int, checkpointing: bool) -> float:
    """Of one GPU with one conversation at a time: weights, optimizer, activations; a tenth on top for what is unknown.

    The language model is in bfloat16, everything else in float32; what is trained has a gradient and two moments.
    """
    trained = sum(count for part, count in counts.items() if part == "projector" or part.endswith("adapters"))
    weights = 2 * counts["language_model"] + 4 * counts["vision"] + 16 * trained
    text = settings.text_config
    # Per layer and token, in bfloat16: the layer's input where it is computed again, else about 17 such vectors.
    activations = 2 * (1 if checkpointing else 17) * tokens * text.hidden_size * text.num_hidden_layers
    return 1.1 * (weights + activations) / 1e9


def hours_of(counts: dict[str, int], tokens: float, machine: Machine) -> float:
    """Hours of a training on so many tokens; checkpointing computes the forward pass twice."""
    operations = (6 if machine.checkpointing else 4) * counts["language_model"] * tokens
    return operations / (machine.gpus * machine.teraflops * 1e12 * UTILISATION) / 3600
