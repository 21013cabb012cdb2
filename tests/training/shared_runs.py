"""Small reinforcement trainings, in one process or as one of several that share every batch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from talking_points.examples.config import FeatureConfig
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.training.adaptation import adapt_descriptor
from talking_points.training.config import AdaptConfig
from talking_points.training.refinement import RefineTrainer
from talking_points.training.stages import run_stage
from tests.training.conftest import small
from tests.training.small_runs import HELD_OUT, SHORT, TRAIN
from tests.training.test_segmenter import settings


def run_both(folder: Path, output: str) -> None:
    """GRPO of a descriptor and GSPO of a segmenter; batches of three do not come out even among two."""
    torch.set_num_threads(1)
    short = {**SHORT, "batch_size": 3, "max_steps": 3, "save_steps": 3, "eval_steps": 3}
    config = AdaptConfig(**short, group=3, max_new_tokens=6, last_blocks=1, sample_steps=1)
    features = FeatureConfig(folder=folder / output / "features", limit_gb=1.0)
    judge = small(PointLocalizer, seed=1)
    adapt_descriptor(small(PointDescriptor), judge, TRAIN, HELD_OUT, config, features, folder / output / "adapted")
    with patch.object(RefineTrainer, "rewards", by_length):
        run_stage("refined", settings(folder, output, batch_size=7, learning_rate=1e-3, beta=0.1, sample_steps=1))


def by_length(self: RefineTrainer, examples: Any, texts: list[str]) -> Any:
    """Rewards that differ, for answers of a model that has hardly been trained, of which none is well formed."""
    return np.array([len(text) % 7 / 7 for text in texts]), [None] * len(texts)


if __name__ == "__main__":
    run_both(Path(sys.argv[1]), "together")
