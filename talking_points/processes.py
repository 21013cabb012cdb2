"""Which of the processes that train together this one is."""

from __future__ import annotations

import torch
from accelerate import PartialState


def process_state() -> PartialState:
    """Which of how many processes this is, and waiting for the others; alone unless a launcher started it."""
    return PartialState(cpu=not torch.cuda.is_available())
