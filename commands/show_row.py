"""Print where a dataset lies and one of its rows: ``python -m commands.show_row OUTPUT``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from talking_points.terminal import show
from talking_points.units import counted


def main(output: str) -> None:
    """Load the dataset as its users do and print its first test row, or its first row."""
    datasets.disable_progress_bars()
    dataset = datasets.load_dataset(output)
    split = "test" if "test" in dataset else next(iter(dataset))
    show(
        f"\ndataset: {Path(output).resolve()}  "
        + ", ".join(f"{name} {counted(part.num_rows, 'row')}" for name, part in dataset.items())
    )
    features = dataset[split].features
    for name, value in dataset[split][0].items():
        label = features[name]
        show(f"  {name}: {label.int2str(value) if isinstance(label, datasets.ClassLabel) else _in_words(value)}")


def _in_words(value: Any) -> str:
    """As a person reads it: six digits, a struct by lines, of an image its kind and size."""
    if isinstance(value, Image.Image):
        return f"{value.format} of {value.width} x {value.height} pixels"
    if isinstance(value, dict):
        return "".join(f"\n    {name}: {part}" for name, part in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_in_words, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main(sys.argv[1])
