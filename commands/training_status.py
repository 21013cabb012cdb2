"""``talking-points status`` of a training's output: which stages are made, how far the others are, from their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from talking_points.errors import InputError
from talking_points.locks import is_held
from talking_points.step_progress import PROGRESS
from talking_points.training.checkpoints import checkpoint_step, last_checkpoint
from talking_points.training.made_once import FINISHED, STARTED, read_finished
from talking_points.units import format_duration
from talking_points.whole_files import read_json

_TOLD = ("step", "loss", "reward", "eval_metric")
"""What of a finished stage's last values belongs in one line."""


_PRETRAINING = ("checkpoint.pt", "backbone-checkpoint.pt")
"""What a pretraining of a vision path leaves; how many steps were made is said inside, which only torch reads."""


def find_trainings(output: Path) -> list[Path]:
    """The folders of trained stages in a training's output, or the output itself where it is one; else none."""
    if (output / STARTED).is_file():
        return [output]
    return sorted(path.parent for path in output.glob(f"*/{STARTED}")) if output.is_dir() else []


def read_training(folder: Path) -> dict[str, Any]:
    """One stage: its ``state`` (done, training, stopped), ``step`` and ``line``, in words, and what the files say.

    A stage that is not finished and that nobody writes to was stopped or killed: run again, it goes on from ``step``,
    that of its last complete checkpoint; None: the checkpoint knows. Raises ``InputError`` where a file is damaged.
    """
    status: dict[str, Any] = {"stage": folder.name, "path": str(folder)}
    if (folder / FINISHED).is_file():
        made = read_finished(folder, "run the training again: it says what to do")
        told = [f"{name} {made['metrics'][name]:.4g}" for name in _TOLD if name in made["metrics"]]
        line = ", ".join([f"in {format_duration(made['seconds'])}", *told])
        return {**status, "state": "done", "seconds": made["seconds"], "metrics": made["metrics"], "line": line}
    checkpoint = last_checkpoint(folder)
    status["step"] = None if checkpoint is None else checkpoint_step(checkpoint)
    if checkpoint is None and not any((folder / name).is_file() for name in _PRETRAINING):
        status["step"] = 0
    progress = _read_progress(folder)
    if is_held(folder):
        line = progress.get("line", "has begun") if progress else "has begun"
        return {**status, "state": "training", "progress": progress, "line": line}
    last = f"; it was last at {progress['line']}" if progress and "line" in progress else ""
    where = "its last checkpoint" if status["step"] is None else f"step {status['step']}"
    line = f"the same command goes on from {where}{last}"
    return {**status, "state": "stopped", "progress": progress, "line": line}


def show_trainings(output: str, statuses: list[dict[str, Any]]) -> Group:
    """One line per stage."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for status in statuses:
        table.add_row(*(Text(status[name]) for name in ("stage", "state", "line")))
    return Group(Text(output), Text(""), table)


def _read_progress(folder: Path) -> dict[str, Any] | None:
    """What the loop under way wrote last; None where it has not written yet, or wrote what cannot be read."""
    try:
        found = read_json(folder / PROGRESS, "")
    except (OSError, InputError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("line"), str) else None
