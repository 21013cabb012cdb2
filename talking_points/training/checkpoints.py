"""The checkpoints in a stage's folder: which are complete, and which is the newest."""

from __future__ import annotations

from pathlib import Path

COMPLETE = "complete.json"
"""Written last into a checkpoint: without it the checkpoint is half a checkpoint, and never resumed from."""


def last_checkpoint(output: str | Path) -> Path | None:
    """The newest complete checkpoint in a stage's folder."""
    return next(reversed(complete_checkpoints(output)), None)


def complete_checkpoints(output: str | Path) -> list[Path]:
    """The complete checkpoints in a stage's folder, the oldest first."""
    complete = [path.parent for path in Path(output).glob(f"checkpoint-*/{COMPLETE}")]
    return sorted(complete, key=checkpoint_step)


def checkpoint_step(checkpoint: Path) -> int:
    """The number of steps that were done when it was written."""
    return int(checkpoint.name.rpartition("-")[2])
