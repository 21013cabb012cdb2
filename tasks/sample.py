"""Stage 2: choose the points of the dataset from all candidates, and put them into one order for good.

The order is that of the rows' content hashes: it mixes sources and categories, and depends neither on shards nor
on the order of files. Every later stage works on consecutive slices of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from talking_points.candidates.sampling import balance
from talking_points.config import Section
from talking_points.records import CANDIDATE_SCHEMA
from talking_points.sources.protocol import SourceError, reasons_in_words
from tasks.running.manifests import Details, Manifest
from tasks.running.shards import Inputs, Order, ShardFailed, ShardWriter, commit_parts, shard_task, write_part

VERSION = 1

_LIGHT = ["id", "source", "object", "part", "image_id"]


class Settings(Section):
    """What can change the choice. ``points`` are wanted of each source, None for as many as there are."""

    seed: int
    limit: int | None
    shard_size: int
    points: dict[str, int | None]
    equal_shares: bool
    reserve: float = Field(default=0.0, exclude_if=lambda share: share == 0)


@dataclass(frozen=True)
class CandidateInputs(Inputs):
    """All candidates of all sources."""

    candidates: tuple[Manifest, ...]


def run_sample(order: Order[Settings, CandidateInputs]) -> Manifest:
    """Choose from all candidate shards. ``details["shards"]`` holds one manifest per shard of chosen rows.

    With reserves, ``details`` also say how many points each source is to give, and which ids stand in for others.

    Raises ``SourceError`` when there is nothing to choose from, ``ShardFailed`` when there is less than asked for.
    """
    settings, writer = order.settings, ShardWriter(order)
    storage = writer.storage
    paths = [manifest["path"] for manifest in order.inputs.candidates]
    light = pa.concat_tables([storage.read_table(path, columns=_LIGHT) for path in paths])
    if not light.num_rows:
        counts: Counter[str] = Counter()
        for manifest in order.inputs.candidates:
            counts.update(manifest["rejected"])
        raise SourceError(
            f"no image of {', '.join(settings.points)} gave a keypoint inside an annotated part "
            f"({reasons_in_words(counts)}): 'talking-points status OUTPUT --rejected' shows them; correct images or "
            "their annotations; keypoints.min_part_area and keypoints.low_contrast_threshold decide how much is usable"
        )
    try:
        chosen = balance(
            light,
            settings.points,
            equal_shares=settings.equal_shares,
            limit=settings.limit,
            seed=settings.seed,
            reserve=settings.reserve,
        )
    except ValueError as error:
        raise ShardFailed(str(error)) from error
    wanted = pa.array(chosen.ids, pa.string())
    kept = []
    for path in paths:
        table = storage.read_table(path)
        kept.append(table.filter(pc.is_in(table["id"], value_set=wanted)))
    rows = pa.concat_tables(kept).sort_by("id").cast(CANDIDATE_SCHEMA)
    size = settings.shard_size
    shards = [
        write_part(writer, "sample", number, "rows.parquet", rows.slice(start, size))
        for number, start in enumerate(range(0, rows.num_rows, size))
    ]
    details: Details = {}
    if settings.reserve:
        details = {"shares": dict(chosen.shares), "reserves": chosen.reserves}
    return commit_parts(writer, shards, details)


sample = shard_task("sample")(run_sample)
