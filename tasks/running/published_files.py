"""The Parquet files of a dataset: which rows each one holds, and how it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from talking_points.config import Section
from talking_points.dataset_schema import PARQUET_OPTIONS, declare_labels, triplet_schema
from talking_points.publishing.image_cells import ImageMode, image_cell
from talking_points.records import LABELS, Candidate, source_label
from talking_points.sources.protocol import SkippedImage
from talking_points.stop_requests import stop_if_requested
from tasks.running.manifests import Manifest
from tasks.running.shards import Environment, ShardFailed
from tasks.running.source_images import check_listed_image, image_bytes
from tasks.running.storage import Storage


class Form(Section):
    """What a row has beside its own values. ``sources``: all of the dataset; ``judged``: whether rows have a score."""

    images: ImageMode
    provenance: dict[str, dict[str, str | bool | None]]
    seed: int
    sources: list[str]
    judged: bool

    @property
    def schema(self) -> pa.Schema:
        return triplet_schema(declare_labels(self.sources), ("judge_score",) if self.judged else ())


class FilePlan(Section):
    """One file: ``rows`` of a side, from shards ``first`` to ``last``, after the first ``skip`` that these hold.

    ``start``: the number of the first row of shard ``first`` among the rows of all shards.
    """

    side: str
    number: int
    of: int
    rows: int
    first: int
    last: int
    skip: int
    start: int

    @property
    def path(self) -> str:
        return f"data/{self.side}-{self.number:05d}-of-{self.of:05d}.parquet"


def plan_sides(train: Sequence[int], test: Sequence[int], sizes: Sequence[int], per_file: int) -> list[FilePlan]:
    """All files, each of at most ``per_file`` rows, of shards of ``sizes`` rows, so many of them on each side."""
    return [*_plan_side("train", train, sizes, per_file), *_plan_side("test", test, sizes, per_file)]


def _plan_side(side: str, counts: Sequence[int], sizes: Sequence[int], per_file: int) -> list[FilePlan]:
    ends, starts = np.cumsum(counts, dtype=np.int64), np.cumsum([0, *sizes], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    files = []
    for number, start in enumerate(range(0, total, per_file)):
        stop = min(start + per_file, total)
        first, last = (int(np.searchsorted(ends, row, "right")) for row in (start, stop - 1))
        files.append(
            FilePlan(
                side=side,
                number=number,
                of=-(-total // per_file),
                rows=stop - start,
                first=first,
                last=last,
                skip=start - int(ends[first] - counts[first]),
                start=int(starts[first]),
            )
        )
    return files


def write_rows(path: Path, rows: Iterator[dict[str, Any]], wanted: int, schema: pa.Schema) -> Counter[int]:
    """Write the next rows as one file; returns how many descriptions have so many words.

    A file has one row group: a stream reads ahead by whole groups, and must not read more than its first row needs.
    """
    with pq.ParquetWriter(path, schema, **PARQUET_OPTIONS) as writer:
        stop_if_requested()
        group = list(islice(rows, wanted))
        if len(group) < wanted:
            raise ShardFailed(f"expected {wanted} rows, found {len(group)}: run the build again")
        writer.write_table(pa.Table.from_pylist(group, schema=schema), row_group_size=wanted)
    return Counter(len(row["description"].split()) for row in group)


def read_rows(
    storage: Storage,
    finished: Sequence[Manifest],
    chosen: Iterator[NDArray[np.bool_]],
    form: Form,
    environment: Environment,
) -> Iterator[dict[str, Any]]:
    """Published rows in the order of the sample, a shard in memory at a time; ``chosen``: which of each shard's."""
    provenance = {**form.provenance, "seed": form.seed}
    for manifest, mask in zip(finished, chosen, strict=True):
        if not mask.any():
            continue
        for row in storage.read_table(manifest["path"]).filter(pa.array(mask)).to_pylist():
            width, height = row["image_width"], row["image_height"]
            yield row | {
                "source": LABELS.index(source_label(row["source"])),
                "image": _fill_cell(form.images, Candidate.from_row(row), environment),
                "keypoint_normalized": [row["keypoint"][0] / width, row["keypoint"][1] / height],
                "provenance": provenance,
            }


def _fill_cell(mode: ImageMode, row: Candidate, environment: Environment) -> Any:
    if mode == "reference":
        return None
    check_listed_image(row, environment)
    try:
        return image_cell(mode, image_bytes(row, environment.roots), row.image_path)
    except SkippedImage as changed:
        raise ShardFailed(f"the images changed while the build ran: {changed}") from changed
