"""A dataset folder as a build leaves it, small and made of drawn noise: what publishing and the human check work on."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from talking_points.dataset_schema import PARQUET_OPTIONS, triplet_schema
from talking_points.descriptions.backends.protocol import STEPS
from talking_points.publishing.card import render_card
from talking_points.publishing.image_cells import ImageMode, image_cell
from talking_points.records import LABELS, SOURCES

WIDTH, HEIGHT = 120, 80
ROWS = {"train": 12, "test": 6}
FOLDERS = dict(zip(SOURCES, ("PascalPart116", "ADE20KPart234", "PartImageNet"), strict=True))
_STEP = {"backend": "rules", "model": None, "revision": None, "prompt_sha256": "0" * 64}

Encode = Callable[[int], bytes]


def noise_jpeg(number: int) -> bytes:
    """A JPEG of (HEIGHT, WIDTH) noise, another one for every number."""
    pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG")
    return file.getvalue()


def row(number: int, image_bytes: bytes, mode: ImageMode) -> dict[str, Any]:
    """One row of the schema, its point where ``point_of`` says."""
    source = number % len(SOURCES)
    x, y = point_of(number)
    path = image_path(number)
    return {
        "id": f"{number:016x}",
        "image": image_cell(mode, image_bytes, path),
        "image_id": f"image_{number:04d}",
        "image_path": path,
        "image_sha256": hashlib.sha256(image_bytes).hexdigest(),
        "image_width": WIDTH,
        "image_height": HEIGHT,
        "source": source,
        "object": ("dog", "chair", "fish")[source],
        "part": ("ear", "leg", "fin")[source],
        "object_bbox": [10.0, 10.0, 90.0, 60.0],
        "part_bbox": [x - 5, y - 5, 10.0, 10.0],
        "instance_index": 0,
        "instance_count": 1,
        "keypoint": [x, y],
        "keypoint_normalized": [x / WIDTH, y / HEIGHT],
        "sift_response": 0.05,
        "sift_size": 4.0,
        "sift_angle": 90.0,
        "object_location": "spans most of the image",
        "part_location": "near the top edge",
        "point_location": "in the centre",
        "object_caption": "a dog on grass",
        "local_caption": "a dark blob",
        "draft": f"draft of row {number}",
        "description": f"Row {number}: the point is a dark blob on the ear of the dog.",
        "flags": [],
        "provenance": dict.fromkeys(STEPS, _STEP) | {"seed": 0},
    }


def point_of(number: int) -> tuple[float, float]:
    """Keypoint of a row, pixels."""
    return 12.0 + 7 * (number % 13), 10.0 + 5 * (number % 11)


def image_path(number: int) -> str:
    """Path of a row's image from the root of its source."""
    return f"images/train/image_{number:04d}.jpg"


def write_sources(root: Path, numbers: range = range(sum(ROWS.values()))) -> dict[str, Path]:
    """The source folders that the rows refer to; returns source -> its root."""
    roots = {source: root / folder for source, folder in FOLDERS.items()}
    for number in numbers:
        path = roots[SOURCES[number % len(SOURCES)]] / image_path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise_jpeg(number))
    return roots


def write_dataset(
    output: Path,
    *,
    images: ImageMode = "embed",
    rows: dict[str, int] | None = None,
    encode: Encode = noise_jpeg,
    rows_per_file: int = 8,
    label: str | None = None,
    **manifest: Any,
) -> Path:
    """Write data, manifest, card and one figure into ``output``; ``manifest`` entries replace those made here.

    ``label``: the published name of the source of all rows, by default the paper's three.
    """
    rows = rows or ROWS
    labels, changed = (SOURCES, {}) if label is None else (LABELS, {"source": LABELS.index(label)})
    (output / "data").mkdir(parents=True)
    files, first = [], 0
    for split, count in rows.items():
        shards = -(-count // rows_per_file)
        for shard in range(shards):
            path = output / "data" / f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            numbers = range(first + shard * rows_per_file, first + min((shard + 1) * rows_per_file, count))
            made = [row(n, encode(n), images) | changed for n in numbers]
            table = pa.Table.from_pylist(made, schema=triplet_schema(labels))
            with pq.ParquetWriter(path, table.schema, **PARQUET_OPTIONS) as writer:
                writer.write_table(table)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            size = path.stat().st_size
            files.append({"path": f"data/{path.name}", "rows": len(numbers), "sha256": digest, "bytes": size})
        first += count
    (output / "figures").mkdir()
    for figure in ("composition", "examples"):
        Image.new("RGB", (4, 4)).save(output / "figures" / f"{figure}.png")
    content = small_manifest(rows, images) | {"files": files} | manifest
    (output / "manifest.json").write_text(json.dumps(content))
    (output / "README.md").write_text(render_card(content))
    return output


def small_manifest(rows: dict[str, int], images: ImageMode) -> dict[str, Any]:
    """A complete manifest, as the assemble stage writes it."""
    counts = {split: count // len(SOURCES) for split, count in rows.items()}
    points = sum(counts.values())
    return {
        "format_version": 1,
        "name": "LlamaPointInPart",
        "created_with": {"talking-points": "0.1.0"},
        "config": {"seed": 0, "images": images, "refine": {"backend": "rules"}},
        "fingerprint": "0123456789abcdef",
        "seed": 0,
        "rows": rows,
        "sources": {
            source: {**counts, "points": points, "images": points, "objects": 1, "pairs": 1, "skipped": {"crowd": 2}}
            for source in SOURCES
        },
        "composition": {"pascal_part116": {"dog": {"ear": points}}, "ade20k_part234": {"chair": {"leg": points}}},
        "availability": {"objects_available": 64, "objects_sampled": 3, "pairs_available": 363, "pairs_sampled": 3},
        "stages": {
            "verify": {"shards": 1, "rows_in": 20, "rows_out": 18, "rejected": {"left_right": 2}, "seconds": 1.0}
        },
        "steps": dict.fromkeys(STEPS, _STEP),
        "lengths": {"min": 12, "median": 12, "max": 13, "mean": 12.4},
        "images": images,
        "partial": False,
        "figures": ["figures/composition.png", "figures/examples.png"],
    }
