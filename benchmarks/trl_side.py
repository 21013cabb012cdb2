"""What both comparisons with TRL's trainer share: its settings without a GPU, a prompt of a length, what is counted."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback

PLAIN: dict[str, Any] = {
    "learning_rate": 1e-6, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no",
    "report_to": [], "disable_tqdm": True,
}  # fmt: skip
"""Settings of a ``GRPOConfig`` that trains in float32 on the CPU and writes nothing."""


def prompt_of(tokenizer: Any, tokens: int) -> str:
    """A text of at least so many tokens."""
    prompt = "x"
    while len(tokenizer(prompt).input_ids) < tokens:
        prompt += " x"
    return prompt


class Meter(TrainerCallback):
    """Counts the tokens of every rollout, which are its reward too, and the processor time at the end of every step."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._ends: list[float] = []

    def reward(self, completion_ids: list[list[int]], **_: Any) -> list[float]:
        """The length of each answer in tokens."""
        self._tokens.append(sum(map(len, completion_ids)))
        return [float(len(ids)) for ids in completion_ids]

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._ends.append(time.process_time())

    def rate(self, skipped: int, updates: int = 1) -> float:
        """Tokens per CPU-second after the first rollouts, each of so many updates."""
        return sum(self._tokens[skipped:]) / (self._ends[-1] - self._ends[skipped * updates - 1])
