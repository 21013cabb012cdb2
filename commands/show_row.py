"""Print where a dataset lies and one of its rows: ``python -m commands.show_row OUTPUT``."""

from __future__ import annotations

import sys
from pathlib import Path

import datasets

from talking_points.terminal import show


def main(output: str) -> None:
    """Load the dataset as its users do and print its first test row, or its first row."""
    datasets.disable_progress_bars()
    dataset = datasets.load_dataset(output)
    split = "test" if "test" in dataset else next(iter(dataset))
    show(
        f"\ndataset: {Path(output).resolve()}  "
        + ", ".join(f"{name} {part.num_rows} rows" for name, part in dataset.items())
    )
    row = dataset[split][0]
    for name, value in row.items():
        show(f"  {name}: {value}")


if __name__ == "__main__":
    main(sys.argv[1])
