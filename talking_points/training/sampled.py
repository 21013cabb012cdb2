"""What trainings on a policy's own samples share: a table of samples, and means of what every step measured."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from talking_points.config import ConfigError
from talking_points.training.checkpoints import checkpoint_step, last_checkpoint
from talking_points.training.sample_tables import rewind
from talking_points.training.trainer import StageTrainer


class SampledTrainer(StageTrainer):
    """Runs on one device; goes on from a checkpoint with a table that ends where the checkpoint does."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._measured: dict[str, list[float]] = defaultdict(list)
        super().__init__(*arguments, **named)
        if self.args.world_size > 1:
            raise ConfigError(f"{self.doing} runs on one device: start it without accelerate launch")

    doing = "reinforcement"
    """What this is called in messages."""

    @property
    def table(self) -> Path:
        """Samples as JSON lines."""
        return Path(self.args.output_dir) / "samples.jsonl"

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        means = {name: float(np.mean(values)) for name, values in self._measured.items()}
        self._measured.clear()
        super().log({**logs, **means}, *args, **kwargs)

    def measure(self, **values: Any) -> None:
        """Numbers of this step, whose means are logged."""
        for name, value in values.items():
            self._measured[name].append(float(value))

    def run(self) -> dict[str, float]:
        checkpoint = last_checkpoint(self.args.output_dir)
        with self._writing(str(self.table)):
            rewind(self.table, 0 if checkpoint is None else checkpoint_step(checkpoint))
        return super().run()
