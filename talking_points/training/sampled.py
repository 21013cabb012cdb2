"""What trainings on a policy's own samples share: a table of samples, and means of what every step measured."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talking_points.processes import process_state
from talking_points.training.checkpoints import checkpoint_step, last_checkpoint
from talking_points.training.sample_tables import rewind
from talking_points.training.shares import sum_gradients, sum_over_processes
from talking_points.training.trainer import StageTrainer


class SampledTrainer(StageTrainer):
    """Goes on from a checkpoint with a table that ends where the checkpoint does.

    Several processes share every batch (``shares``): the loss of each is its part of the batch's.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._measured: dict[str, list[float]] = defaultdict(list)
        super().__init__(*arguments, **named)

    @property
    def shares(self) -> int:
        """In how many shares a batch is sampled: one for every process."""
        return int(self.args.world_size)

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

    def mean_of_shares(self, weight: float, **values: Any) -> dict[str, float]:
        """Means over a part of this step's batch, of which this process has the share ``weight``."""
        own = torch.tensor([float(value) for value in values.values()], dtype=torch.float64) * weight
        if self.args.world_size > 1:
            device = self.args.device
            own = sum_over_processes(own.to(device, torch.float32 if device.type == "mps" else torch.float64))
        return dict(zip(values, own.tolist(), strict=True))

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.args.world_size > 1:
            # The loss does not go through the model that averages gradients by itself.
            if self.accelerator.sync_gradients:
                sum_gradients(self.model.parameters())
            loss = sum_over_processes(loss)
        return loss

    def run(self) -> dict[str, float]:
        checkpoint = last_checkpoint(self.args.output_dir)
        if self.is_world_process_zero():
            with self._writing(str(self.table)):
                rewind(self.table, 0 if checkpoint is None else checkpoint_step(checkpoint))
        process_state().wait_for_everyone()
        return super().run()
