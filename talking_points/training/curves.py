"""What a training draws of itself: the curves of what was logged, and sampled descriptions in their image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from talking_points.examples.points import Floats, PointExample
from talking_points.plotting import plain_style
from talking_points.whole_files import advising

_SHARE = 0.02
"""Of a training's time, at most, goes into curves before it ends."""


class CurveCallback(TrainerCallback):
    """Draws what was logged so far, one panel per value: with a checkpoint, unless the last is new, and at the end."""

    def __init__(self, output: Path) -> None:
        self.path = output / "curves.png"
        self._next = 0.0

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if time.monotonic() >= self._next:
            self.on_train_end(args, state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        began = time.monotonic()
        with advising(str(self.path), "make room and run again to go on from the last checkpoint"):
            draw_curves(state.log_history, self.path)
        self._next = time.monotonic() + (time.monotonic() - began) / _SHARE


_NOT_CURVES = {"step", "epoch", "total_flos", "train_loss"}


@plain_style()
def draw_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """A PNG with one panel per logged value over the steps."""
    from matplotlib.figure import Figure  # a training starts without it

    series: dict[str, list[tuple[float, float]]] = {}
    for entry in history:
        for name, value in entry.items():
            if name not in _NOT_CURVES and not name.startswith("train_") and isinstance(value, int | float):
                series.setdefault(name, []).append((entry["step"], value))
    if not series:
        return
    columns = min(3, len(series))
    rows = -(-len(series) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(series) :]:
        axis.remove()
    for axis, (name, values) in zip(axes.flat, series.items(), strict=False):
        axis.plot(*zip(*values, strict=True), marker="." if len(values) < 30 else "")
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


@plain_style()
def draw_group(image: Any, example: PointExample, texts: Sequence[str], predicted: Floats, path: Path) -> None:
    """A PNG of one group: the true point, where the localizer finds each sample, and the samples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7), layout="constrained")
    axis = figure.subplots()
    axis.imshow(image)
    axis.plot(*example.keypoint, "*", color="lime", markersize=16, markeredgecolor="black", label="true point")
    for place, text in enumerate(texts):
        shown = "".join(character for character in text if character.isprintable())
        shown = shown if len(shown) < 110 else shown[:107] + "..."
        axis.plot(*predicted[place], "o", markersize=9, markeredgecolor="white", label=shown or "(empty)")
    axis.axis("off")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
