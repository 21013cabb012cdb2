"""A small instruction dataset of drawn scenes, without the build around it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from talking_points.instructions.config import InstructionSettings
from talking_points.instructions.rows import InstructionRow
from talking_points.instructions.schema import INSTRUCTION_SCHEMA, PARQUET_OPTIONS
from talking_points.sources import open_source
from talking_points.sources.drawn import draw_sample
from tests.instructions.rows_of_images import instruction_table, make_rows

SOURCES = ("pascal_part116", "ade20k_part234", "partimagenet")
SETTINGS = InstructionSettings.model_validate(
    {
        "outlines": {"points": 12},
        "regions": "objects",
        "rows": 2,
        "kinds": {"text_to_mask": 4.0, "point_to_mask": 2.0, "box_to_mask": 1.0, "text_to_box": 2.0},
    }
)


def write_instructions(folder: Path, images: int, sides: tuple[str, ...] = ("train", "test")) -> Path:
    """Draw ``images`` scenes of each source for each side; returns the folder of the dataset."""
    (folder / "instructions" / "data").mkdir(parents=True)
    for seed, side in enumerate(sides):
        roots = draw_sample(folder / f"scenes-{side}", images, seed, variant="plain", sources=SOURCES)
        rows: list[InstructionRow] = []
        for name, root in roots.items():
            for record in open_source(name, root):
                content = record.image_path.read_bytes()
                rows += [
                    InstructionRow(**{**vars(row), "image": content})
                    for row in make_rows(record, SETTINGS, side=side)[0]
                ]
        path = folder / "instructions" / "data" / f"{side}-00000-of-00001.parquet"
        pq.write_table(instruction_table(rows, INSTRUCTION_SCHEMA), path, **PARQUET_OPTIONS)
    return folder / "instructions"
