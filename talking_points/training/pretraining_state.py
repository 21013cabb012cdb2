"""What a pretraining of a small vision path goes on from after an interruption, to the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from talking_points.tensor_files import load_pickled
from talking_points.training.optimizers import OneCycle
from talking_points.whole_files import advising, going_on, writing_whole

CHECKPOINT, BACKBONE_CHECKPOINT = "checkpoint.pt", "backbone-checkpoint.pt"
"""Names of the file in a stage's folder, and of that of its first half; both go once the stage has its weights."""

CHECKPOINT_STEPS = 50


class PretrainingState:
    """Weights of the task, its optimizer, learning rates and random numbers, in one file; without a path, nowhere."""

    def __init__(self, path: Path | None, task: nn.Module, cycle: OneCycle, random: np.random.Generator) -> None:
        self.path, self.task, self.cycle, self.random = path, task, cycle, random

    def read(self) -> int:
        """Take up what the file holds, where there is one; returns how many steps were made."""
        if self.path is None or not self.path.is_file():
            return 0
        with going_on(self.path, "remove the file to begin anew"):
            found = load_pickled(self.path)
            self.task.load_state_dict(found["task"])
            self.cycle.optimizer.load_state_dict(found["optimizer"])
            self.cycle.schedule.load_state_dict(found["schedule"])
            self.random.bit_generator.state = json.loads(found["random"])
            torch.set_rng_state(found["torch_random"])
            return int(found["steps"])

    def keep(self, steps: int, total: int) -> None:
        """Write the file when it is time to, and after the last step."""
        if self.path is None or (steps % CHECKPOINT_STEPS and steps < total):
            return
        with advising(str(self.path), "make room and run again"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with writing_whole(self.path) as temporary:
                content = {
                    "task": self.task.state_dict(),
                    "optimizer": self.cycle.optimizer.state_dict(),
                    "schedule": self.cycle.schedule.state_dict(),
                    # Its numbers have 128 bits, which only text holds here.
                    "random": json.dumps(self.random.bit_generator.state),
                    "torch_random": torch.get_rng_state(),
                    "steps": steps,
                }
                torch.save(content, temporary)


def forget_pretraining(folder: Path) -> None:
    """Remove the checkpoints of a stage whose weights are written."""
    for name in (BACKBONE_CHECKPOINT, CHECKPOINT):
        (folder / name).unlink(missing_ok=True)
