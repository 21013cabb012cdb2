"""Last stage of ``build-instructions``: split the images, ask about their regions, write Parquet files and the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, PlainSerializer

from talking_points.config import Section, fingerprint
from talking_points.instructions.config import InstructionBuildConfig
from talking_points.instructions.phrasings import describe_phrasings
from talking_points.instructions.regions import MeasuredRegion
from talking_points.instructions.rows import ImageFacts, count_rows, write_rows
from talking_points.instructions.schema import INSTRUCTION_SCHEMA, PARQUET_OPTIONS, published_source
from talking_points.instructions.sides import ImageIdentity, Side, assign_sides, is_divided
from talking_points.publishing.image_cells import ImageCell, image_cell
from talking_points.redaction import redact
from talking_points.sources.protocol import SkippedImage
from talking_points.stage_names import INSTRUCTION_STAGES
from talking_points.stop_requests import stop_if_requested
from tasks.running.manifests import Manifest
from tasks.running.shards import Inputs, Order, ShardFailed, ShardWriter, shard_task
from tasks.running.source_images import read_source_image
from tasks.running.staging import begin_staging, count_stages, publish_staged, write_rejected
from tasks.running.storage import Storage

VERSION = 1

_LIGHT = [
    "region",
    "source",
    "source_split",
    "image_id",
    "image_path",
    "image_sha256",
    "image_phash",
    "width",
    "height",
]
_LIGHT += ["object", "part", "expressions", "flags", "points", "round_trip_iou", "holes"]


class Settings(Section):
    """What can change the dataset's files."""

    config: Annotated[InstructionBuildConfig, PlainSerializer(InstructionBuildConfig.dataset_settings)]
    phrasings: str
    packages: dict[str, str]
    drawn: list[str]
    unseen_sets: list[str] = Field(default_factory=list, exclude_if=lambda names: not names)


@dataclass(frozen=True)
class SourceRegions(Inputs):
    """What listing and measuring one source has given."""

    source: str
    listing: Manifest
    regions: tuple[Manifest, ...]


@dataclass(frozen=True)
class RegionInputs(Inputs):
    """All regions of all sources."""

    sources: tuple[SourceRegions, ...]


AssembleOrder = Order[Settings, RegionInputs]


@dataclass
class _Counts:
    """What is counted of the regions that become rows, by source where that matters."""

    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    images: dict[str, set[str]] = field(default_factory=dict)
    splits: Counter[tuple[str, str]] = field(default_factory=Counter)
    categories: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    left_out: dict[str, set[str]] = field(default_factory=dict)
    points: list[int] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    flags: Counter[str] = field(default_factory=Counter)


def run_assemble(order: AssembleOrder) -> Manifest:
    """Write the dataset from the measured regions of all sources."""
    from talking_points.publishing.instruction_card import render_instruction_card

    writer = ShardWriter(order)
    storage = writer.storage
    staging = begin_staging(writer.attempt)
    sides = assign_sides(_list_images(order, storage), order.settings.config.split, order.settings.config.seed)
    counts = _count(order, writer, sides)
    kinds: Counter[tuple[str, str]] = Counter()
    files = [
        file for side in ("train", "test") for file in _write_side(order, storage, staging, sides, side, counts, kinds)
    ]
    rejected = write_rejected(storage, staging, order.inputs.manifests(), "assemble_instructions", writer.rejected)
    manifest = _describe(order, counts, kinds, files)
    storage.write_json(f"{staging}/manifest.json", manifest)
    storage.write_bytes(f"{staging}/README.md", render_instruction_card(manifest).encode())
    written = {file["path"]: file["sha256"] for file in files}
    others = [*(f"rejected/{stage}.parquet" for stage in rejected), "README.md", "manifest.json"]
    digests = publish_staged(storage, written | dict.fromkeys(others), staging, writer.attempt.check)
    result = writer.commit(pa.table({"file": sorted(digests)}), {"rejected": rejected})
    result["rows"] = sum(file["rows"] for file in files)
    result["files"].update(digests)
    return result


def _light_rows(order: AssembleOrder, storage: Storage) -> Iterator[dict[str, Any]]:
    """The regions in the order of the sources, without what is large, a shard in memory at a time."""
    for source in order.inputs.sources:
        for shard in source.regions:
            stop_if_requested()
            yield from storage.read_table(shard["path"], columns=_LIGHT).to_pylist()


def _list_images(order: AssembleOrder, storage: Storage) -> list[ImageIdentity]:
    images: dict[str, ImageIdentity] = {}
    for row in _light_rows(order, storage):
        image = ImageIdentity(
            row["source"],
            row["image_id"],
            row["source_split"],
            row["image_sha256"],
            row["image_phash"],
            row["width"] / row["height"],
        )
        images[image.key] = image
    if not images:
        raise ShardFailed(
            f"every region was rejected: 'talking-points status {redact(storage.output)} --rejected' tells why"
        )
    return list(images.values())


def _count(order: AssembleOrder, writer: ShardWriter, sides: Mapping[str, Side]) -> _Counts:
    """Count the rows to come; regions that give none are rejected here."""
    settings, counts = order.settings.config.instructions, _Counts()
    for row in _light_rows(order, writer.storage):
        source = row["source"]
        side = sides[f"{source}\x1f{row['image_id']}"]
        named = {"id": row["region"], "source": source, "image_path": row["image_path"]}
        if side == "left_out":
            counts.left_out.setdefault(published_source(source), set()).add(row["image_id"])
            writer.reject(named, "evaluation_image", "it is, or looks like, an image of an evaluation split")
            continue
        made = count_rows(row["expressions"], row["flags"], settings, side)
        if not made:
            writer.reject(named, "no_usable_kind", f"none of the kinds of the side {side} can be asked")
            continue
        label = published_source(source)
        counts.rows[label, side] += made
        counts.splits[label, row["source_split"]] += made
        counts.images.setdefault(label, set()).add(row["image_id"])
        counts.categories[label, row["object"], row["part"]] += made
        counts.points.append(row["points"])
        counts.kept.append(row["round_trip_iou"])
        counts.flags.update(row["flags"])
    if not counts.rows:
        raise ShardFailed("no region can be asked about with these kinds: see instructions.kinds and evaluation_kinds")
    return counts


def _write_side(
    order: AssembleOrder,
    storage: Storage,
    staging: str,
    sides: Mapping[str, Side],
    side: Side,
    counts: _Counts,
    kinds: Counter[tuple[str, str]],
) -> list[dict[str, Any]]:
    """Write one side, one file in memory at a time; returns path, rows, digest and size of its files."""
    total = sum(number for (_, found), number in counts.rows.items() if found == side)
    per_file = order.settings.config.rows_per_file
    count = -(-total // per_file)
    rows = _read_rows(order, storage, sides, side)
    files = []
    for number in range(count):
        name = f"data/{side}-{number:05d}-of-{count:05d}.parquet"
        wanted = min(per_file, total - number * per_file)
        with (
            storage.writing(f"{staging}/{name}") as path,
            pq.ParquetWriter(path, INSTRUCTION_SCHEMA, **PARQUET_OPTIONS) as writer,
        ):
            stop_if_requested()
            group = [next(rows) for _ in range(wanted)]
            kinds.update((side, row["kind"]) for row in group)
            writer.write_table(pa.Table.from_pylist(group, schema=INSTRUCTION_SCHEMA), row_group_size=wanted)
        staged = f"{staging}/{name}"
        files.append({"path": name, "rows": wanted, "sha256": storage.sha256(staged), "bytes": storage.size(staged)})
    return files


_MEASURED = tuple(item.name for item in fields(MeasuredRegion))


def _read_rows(
    order: AssembleOrder, storage: Storage, sides: Mapping[str, Side], side: Side
) -> Iterator[dict[str, Any]]:
    """The rows of one side, those of an image one after another."""
    config = order.settings.config
    for source in order.inputs.sources:
        cells = _Cells(config.images or "embed", source.source, order.environment.roots)
        for shard in source.regions:
            for row in storage.read_table(shard["path"]).to_pylist():
                if sides[f"{row['source']}\x1f{row['image_id']}"] != side:
                    continue
                image = ImageFacts(**{item.name: row[item.name] for item in fields(ImageFacts)})
                region = MeasuredRegion(**{name: row[name] for name in _MEASURED})
                own = row["source_split"] if is_divided(row["source"]) else side
                made = write_rows(region, image, config.instructions, config.seed, side=side, split=own)
                cell = cells.read(image) if made else None
                for instruction in made:
                    yield instruction.to_row() | {"image": cell, "source": published_source(image.source)}


class _Cells:
    """The values of the column ``image``; the last one is kept, since an image has many rows."""

    def __init__(self, mode: Any, source: str, roots: Mapping[str, str]) -> None:
        self.mode = mode
        self.source = source
        self.roots = roots
        self._last: tuple[str, ImageCell | None] = ("", None)

    def read(self, image: ImageFacts) -> ImageCell | None:
        if self.mode == "reference":
            return None
        if self._last[0] != image.image_path:
            try:
                content = read_source_image(self.roots[self.source], image.image_path, image.image_sha256)
                self._last = (image.image_path, image_cell(self.mode, content, image.image_path))
            except SkippedImage as changed:
                raise ShardFailed(f"the images changed while the build ran: {changed}") from changed
        return self._last[1]


def _describe(
    order: AssembleOrder, counts: _Counts, kinds: Counter[tuple[str, str]], files: list[dict[str, Any]]
) -> dict[str, Any]:
    """What ``manifest.json`` says and the card is rendered from: no times and no paths of this machine."""
    settings = order.settings
    config = settings.config.dataset_settings()
    rows: Counter[str] = Counter()
    for (_, side), number in counts.rows.items():
        rows[side] += number
    sources: dict[str, Any] = {}
    for inputs in order.inputs.sources:
        label = published_source(inputs.source)
        skipped: Counter[str] = Counter(sources.get(label, {}).get("skipped", {}))
        for manifest in inputs.manifests():
            skipped.update(manifest["details"].get("skipped", {}))
            skipped.update(manifest["rejected"])
        own = [(name, part) for source, name, part in counts.categories if source == label]
        sources[label] = {
            "train": counts.rows[label, "train"],
            "test": counts.rows[label, "test"],
            "images": len(counts.images.get(label, ())),
            "objects": len({name for name, _ in own}),
            "pairs": len([part for _, part in own if part]),
            "splits": {split: number for (source, split), number in sorted(counts.splits.items()) if source == label},
            "skipped": dict(sorted(skipped.items())),
            "left_out_images": len(counts.left_out.get(label, ())),
            "drawn": inputs.source in settings.drawn,
        }
    kept = np.array(counts.kept)
    return {
        "format_version": 1,
        "kind": "instructions",
        "name": "Talking Points instructions",
        "created_with": settings.packages,
        "config": config,
        "fingerprint": fingerprint(config),
        "seed": settings.config.seed,
        "rows": dict(sorted(rows.items(), reverse=True)),
        "sources": sources,
        "kinds": {
            side: {kind: number for (found, kind), number in sorted(kinds.items()) if found == side}
            for side in sorted(rows, reverse=True)
        },
        "regions": {
            "count": len(kept),
            "points": {"mean": round(float(np.mean(counts.points)), 2), "max": int(np.max(counts.points))},
            "round_trip_iou": {
                "mean": round(float(kept.mean()), 4),
                "p10": round(float(np.quantile(kept, 0.1)), 4),
                "min": round(float(kept.min()), 4),
            },
            "flags": dict(sorted(counts.flags.items())),
        },
        "phrasings": describe_phrasings(settings.config.instructions.phrasings),
        **({"unseen_evaluation_sets": settings.unseen_sets} if settings.unseen_sets else {}),
        "excludes_evaluation_images": settings.config.split.exclude_evaluation_images,
        "stages": count_stages(order.inputs.manifests(), INSTRUCTION_STAGES),
        "images": settings.config.images or "embed",
        "partial": settings.config.limit is not None,
        "files": files,
        "figures": [],
    }


assemble_instructions = shard_task("assemble_instructions")(run_assemble)
