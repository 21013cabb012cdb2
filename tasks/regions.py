"""Stage 1 of ``build-instructions``: the regions of every image as text, point, box and mask, measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
from pydantic import Field, JsonValue, PlainSerializer

from talking_points.candidates.build import perceptual_hash
from talking_points.config import Section
from talking_points.instructions.config import InstructionSettings
from talking_points.instructions.described_points import read_described_points
from talking_points.instructions.regions import Dropped, measure_regions
from talking_points.instructions.rows import ImageFacts
from talking_points.instructions.schema import COLUMNS
from talking_points.sources import open_source
from talking_points.sources.protocol import SkippedImage
from talking_points.stop_requests import stop_if_requested
from tasks.index import read_entries
from tasks.running.manifests import Manifest
from tasks.running.shards import Inputs, Order, ShardWriter, shard_task

VERSION = 1

REGION_SCHEMA = pa.schema(
    [
        *(pa.field(name, COLUMNS[name][0]) for name in ("image_id", "image_path", "image_sha256", "width", "height")),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_split", pa.string(), nullable=False),
        pa.field("image_phash", pa.uint64(), nullable=False),
        pa.field("expressions", pa.list_(pa.string()), nullable=False),
        pa.field("outlines", pa.string(), nullable=False),
        *(pa.field(name, COLUMNS[name][0]) for name in ("region", "object", "part", "mask", "box", "point", "epsilon")),
        *(pa.field(name, COLUMNS[name][0]) for name in ("points", "round_trip_iou", "components", "holes", "flags")),
    ]
)
"""A measured region with its image: what the rows of every kind of question are written from."""


class Settings(Section):
    """What can change the regions. Options that name a file are left out: its content is in the listing.

    ``points`` is the digest of the dataset in ``points_folder``.
    """

    source: str
    split: str | None
    options: dict[str, JsonValue]
    instructions: Annotated[InstructionSettings, PlainSerializer(InstructionSettings.measuring)]
    seed: int
    points: str = Field(default="", exclude_if=lambda digest: not digest)
    points_folder: str = Field(default="", exclude=True)


@dataclass(frozen=True)
class EntryInput(Inputs):
    """One shard of a source's entries."""

    entries: Manifest


def run_regions(order: Order[Settings, EntryInput]) -> Manifest:
    """Measure the regions of one shard of entries; regions and images that give none go to the quarantine."""
    settings = order.settings
    place = order.environment.sources[settings.source]
    source = open_source(settings.source, place.root, split=settings.split, **place.options)
    writer = ShardWriter(order, folder=f"regions/{settings.source}")
    described = read_described_points(settings.points_folder) if settings.points else None
    rows = []
    for entry, (sha256, *_) in read_entries(writer.storage.read_table(order.inputs.entries["path"])):
        stop_if_requested()
        named = {"source": settings.source, "image_path": entry.image_path}
        try:
            record = source.read(entry)
        except SkippedImage as reason:
            writer.reject({"id": entry.image_id, **named}, reason.reason, reason.detail)
            continue
        phash = perceptual_hash(record.pixels)
        for region in measure_regions(record, settings.instructions, settings.seed, described):
            if isinstance(region, Dropped):
                writer.reject({"id": region.region, **named}, region.reason, f"{region.name}: {region.detail}")
                continue
            facts = {"source_split": entry.split, "image_phash": phash}
            rows.append({**vars(ImageFacts.of(record, sha256)), **facts, **vars(region)})
    table = pa.Table.from_pylist(rows, schema=REGION_SCHEMA)
    return writer.commit(table, {"skipped": dict(Counter(source.skipped))})


regions = shard_task("regions")(run_regions)
