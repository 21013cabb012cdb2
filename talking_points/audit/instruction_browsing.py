"""The rows of an instruction dataset for looking at: questions, answers, and the outlines drawn on their images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from talking_points.audit.browsing import DatasetRows, list_rejected
from talking_points.dataset_files import DatasetError, dataset_file, dataset_names, open_parquet, read_group
from talking_points.dataset_manifest import read_manifest
from talking_points.grounding.contours import Tracing, trace
from talking_points.grounding.grammar import read_lenient
from talking_points.grounding.outlines import Outlines
from talking_points.grounding.rasters import decode_mask
from talking_points.instructions.files import NULLABLE
from talking_points.instructions.schema import COLUMNS
from talking_points.sources.coco_parts import BadAnnotationError, check_rle

LIGHT = ("id", "source", "split", "object", "part", "kind", "question", "answer", "flags")
FULL = tuple(name for name in COLUMNS if name != "image")


@dataclass(frozen=True)
class InstructionRows(DatasetRows):
    """As ``DatasetRows``; the question stands where the description is listed, the answer where the draft is."""

    @classmethod
    def read(cls, root: Path) -> InstructionRows:
        """Read the light columns of the dataset in ``root``. Raises ``DatasetError``."""
        tables, places = [], []
        for name in dataset_names(root, "data/*.parquet"):
            path = dataset_file(root, name)
            with open_parquet(path, LIGHT, COLUMNS) as file:
                for group in range(file.num_row_groups):
                    table = read_group(file, group, LIGHT, path, COLUMNS, NULLABLE)
                    tables.append(table)
                    places += [(path, group, number) for number in range(table.num_rows)]
        if not places:
            raise DatasetError(f"no rows in {root}: expected data/*.parquet, as a build writes them")
        table = pa.concat_tables(tables).rename_columns({"question": "description", "answer": "draft"})
        return cls(table, places, list_rejected(root))

    def row(self, number: int) -> dict[str, Any]:
        """All columns of one row but its image."""
        path, group, place = self.places[number]
        with open_parquet(path, FULL, COLUMNS) as file:
            rows = read_group(file, group, FULL, path, COLUMNS, NULLABLE)
        row: dict[str, Any] = rows.slice(place, 1).to_pylist()[0]
        return row


def is_instructions(root: Path) -> bool:
    """Whether the dataset in ``root`` is one of instructions; damaged manifests are told of elsewhere."""
    try:
        return read_manifest(root).get("kind") == "instructions"
    except DatasetError:
        return False


def outlines_of(row: dict[str, Any]) -> tuple[Outlines, str]:
    """What to draw for a row and where it is from: the outlines in its text, else those of its mask."""
    if "mask" in row["kind"]:
        asked = row["kind"].startswith("mask")
        found = read_lenient(row["question" if asked else "answer"]).outlines
        if found.polygons:
            return found, "question" if asked else "answer"
    try:
        return trace(decode_mask(check_rle(row["mask"], row["width"], row["height"])), Tracing(tolerance=0.005)), "mask"
    except (BadAnnotationError, ValueError, TypeError, OverflowError):  # run lengths that somebody else wrote
        return Outlines(), "mask"


def draw_region(row: dict[str, Any], size: tuple[int, int]) -> str:
    """SVG of the outlines, the box and the point of a row, for its image as shown, ``size`` in pixels."""
    width, height = size
    across, down = width / row["width"], height / row["height"]
    line = max(size) / 300
    shapes = []
    for ring in outlines_of(row)[0].rings:
        points = " ".join(f"{x * width:.1f},{y * height:.1f}" for x, y in ring)
        shape = f'<polygon points="{points}" fill="#d55e00" fill-opacity="0.25"'
        shapes.append(f'{shape} stroke="white" stroke-width="{2 * line:.2f}"/>')
        shapes.append(f'<polygon points="{points}" fill="none" stroke="#d55e00" stroke-width="{line:.2f}"/>')
        shapes += [
            f'<circle cx="{x * width:.1f}" cy="{y * height:.1f}" r="{1.5 * line:.2f}" fill="#d55e00"/>' for x, y in ring
        ]
    x, y, w, h = row["box"]
    shapes.append(
        f'<rect x="{x * across:.1f}" y="{y * down:.1f}" width="{w * across:.1f}" height="{h * down:.1f}" fill="none" '
        f'stroke="#0072b2" stroke-width="{line:.2f}" stroke-dasharray="{4 * line:.1f}"/>'
    )
    x, y = row["point"]
    shapes.append(
        f'<circle cx="{(x + 0.5) * across:.1f}" cy="{(y + 0.5) * down:.1f}" r="{3 * line:.2f}" fill="#0072b2" '
        f'stroke="white" stroke-width="{line:.2f}"/>'
    )
    return "".join(shapes)
