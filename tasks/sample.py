"""Stage 2: choose the points of the dataset from all candidates, and put them into one order for good.

The order is that of the rows' content hashes: it mixes sources and categories, and depends neither on shards nor
on the order of files. Every later stage works on consecutive slices of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from talking_points.candidates.columns import ranks_of
from talking_points.candidates.sampling import choose
from talking_points.config import Section
from talking_points.records import CANDIDATE_SCHEMA
from talking_points.redaction import redact
from talking_points.sources.protocol import SourceError, reasons_in_words
from talking_points.stop_requests import stop_if_requested
from tasks.running.manifests import Details, Manifest
from tasks.running.pieces import InPieces, piece_of
from tasks.running.shards import (
    AnyOrder,
    Inputs,
    Order,
    ShardFailed,
    ShardWriter,
    commit_parts,
    describe_part,
    shard_task,
    write_part,
)
from tasks.running.stages import WORK
from tasks.running.storage import Storage

VERSION = 1

AT_ONCE = 50_000
"""Candidates that one task chooses from by itself; rows of the sample that one puts in order where there are more."""
PIECES = "sample/pieces"
"""Folder of what such tasks have made, until the sample is complete."""
_GROUP = 1 << 20
"""Places in a row group of their file."""

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


SampleOrder = Order[Settings, CandidateInputs]


@dataclass(frozen=True)
class ChoiceInputs(Inputs):
    """All candidates, to be chosen from."""

    candidates: tuple[Manifest, ...]


@dataclass(frozen=True)
class SpreadInputs(Inputs):
    """Some of the candidates, and the place of each of all in the sample."""

    places: Manifest
    candidates: tuple[Manifest, ...]


class SpreadSettings(Section):
    """``start``: the number of the first of the candidates among all. ``bucket``: rows of a part of the sample."""

    start: int
    bucket: int


@dataclass(frozen=True)
class GatherInputs(Inputs):
    """What holds rows of one part of the sample."""

    spread: tuple[Manifest, ...]


class GatherSettings(Section):
    """``number``: of the part. ``first``: of its shards."""

    number: int
    first: int
    shard_size: int


def cut_sample(order: SampleOrder) -> Sequence[AnyOrder]:
    """The order in pieces where there are many candidates: a choice by a few columns, then the rows, in two steps.

    Rows lie in the order of the sources and are wanted in that of their ids. So the chosen ones are first spread over
    parts of the sample, by as many tasks as it has parts, and then each part is put in order by a task of its own.
    """
    if sum(manifest["rows"] for manifest in order.inputs.candidates) <= AT_ONCE:
        return [order]
    return InPieces(
        order, (partial(_choice_order, order), partial(_spread_orders, order), partial(_gather_orders, order))
    )


def count_tasks(candidates: int) -> int:
    """Into how many tasks so many candidates are cut where all are chosen, about."""
    return 1 if candidates <= AT_ONCE else 2 + 2 * -(-candidates // AT_ONCE)


def _choice_order(order: SampleOrder, _: Mapping[int, Manifest]) -> list[AnyOrder]:
    inputs = ChoiceInputs(candidates=order.inputs.candidates)
    return [piece_of(order, 1, "sample: choose", inputs, order.settings)]


def _spread_orders(order: SampleOrder, made: Mapping[int, Manifest]) -> list[AnyOrder]:
    bucket = order.settings.shard_size * max(1, AT_ONCE // order.settings.shard_size)
    places, groups = made[1]["details"]["shards"][0], list[tuple[int, list[Manifest]]]()
    start = 0
    for manifest in order.inputs.candidates:
        if not groups or sum(one["rows"] for one in groups[-1][1]) >= AT_ONCE:
            groups.append((start, []))
        groups[-1][1].append(manifest)
        start += manifest["rows"]
    return [
        piece_of(
            order,
            number,
            f"sample: spread {number - 1}/{len(groups)}",
            SpreadInputs(places=places, candidates=tuple(own)),
            SpreadSettings(start=first, bucket=bucket),
        )
        for number, (first, own) in enumerate(groups, 2)
    ]


def _gather_orders(order: SampleOrder, made: Mapping[int, Manifest]) -> list[AnyOrder]:
    size = order.settings.shard_size
    spread = [made[number] for number in sorted(made) if number > 1]
    parts = sorted({part for manifest in spread for part in manifest["details"]["buckets"]})
    shards = max(1, AT_ONCE // size)
    return [
        piece_of(
            order,
            len(made) + 1 + part,
            f"sample {part + 1}/{len(parts)}",
            GatherInputs(spread=tuple(one for one in spread if part in one["details"]["buckets"])),
            GatherSettings(number=part, first=part * shards, shard_size=size),
        )
        for part in parts
    ]


def run_sample(order: Order[Any, Any]) -> Manifest:
    """Choose from all candidate shards. ``details["shards"]`` holds one manifest per shard of chosen rows.

    With reserves, ``details`` also say how many points each source is to give, and which ids stand in for others.

    Raises ``SourceError`` when there is nothing to choose from, ``ShardFailed`` when there is less than asked for.
    """
    if isinstance(order.inputs, ChoiceInputs):
        return _run_choice(order)
    if isinstance(order.inputs, SpreadInputs):
        return _run_spread(order)
    return _run_gather(order) if isinstance(order.inputs, GatherInputs) else _run_whole(order)


@dataclass(frozen=True)
class _Chosen:
    """``places`` of all candidates in the sample, -1 for one that is not chosen (int64)."""

    places: NDArray[np.int64]
    shares: dict[str, int]
    reserves: dict[str, pa.ChunkedArray]


def _choose(storage: Storage, candidates: Sequence[Manifest], settings: Settings) -> _Chosen:
    light = pa.concat_tables([storage.read_table(manifest["path"], columns=_LIGHT) for manifest in candidates])
    if not light.num_rows:
        counts, sources = Counter[str](), list(settings.points)
        for manifest in candidates:
            counts.update(manifest["rejected"])
        whole = "; points in whole objects take sources.images.options={parts: surface}" if "images" in sources else ""
        raise SourceError(
            f"found no keypoint inside an annotated part in {', '.join(sources)} ({reasons_in_words(counts)}): "
            f"'talking-points status {redact(storage.output)} --rejected' shows them; correct images or their "
            f"annotations{whole}; keypoints.min_part_area and keypoints.low_contrast_threshold decide what is usable"
        )
    try:
        chosen = choose(
            light,
            settings.points,
            equal_shares=settings.equal_shares,
            limit=settings.limit,
            seed=settings.seed,
            reserve=settings.reserve,
        )
    except ValueError as error:
        raise ShardFailed(str(error)) from error
    wanted = light["id"].take(np.concatenate(list(chosen.rows.values()))).combine_chunks()
    rows = np.flatnonzero(pc.is_in(light["id"], value_set=wanted).to_numpy())
    places = np.full(light.num_rows, -1, np.int64)
    places[rows[np.argsort(ranks_of(light["id"].take(rows)), kind="stable")]] = np.arange(len(rows))
    reserves = {name: light["id"].take(own[chosen.shares[name] :]) for name, own in chosen.rows.items()}
    return _Chosen(places, dict(chosen.shares), reserves)


def _run_choice(order: Order[Settings, ChoiceInputs]) -> Manifest:
    writer, settings = ShardWriter(order, PIECES), order.settings
    chosen = _choose(writer.storage, order.inputs.candidates, settings)
    name, table = writer.name("places.parquet"), pa.table({"place": chosen.places})
    with writer.writing(name) as path:
        pq.write_table(table, path, compression="zstd", row_group_size=_GROUP)
    details: Details = {"shards": [describe_part(writer, 1, name, table.num_rows)]}
    if settings.reserve:
        details["shares"] = chosen.shares
    reserves = pa.chunked_array([chunk for ids in chosen.reserves.values() for chunk in ids.chunks], pa.string())
    made = writer.commit(pa.table({"id": reserves}), details)
    made["files"][name] = details["shards"][0]["files"][name]
    made["rows"] = 0
    return made


def _run_spread(order: Order[SpreadSettings, SpreadInputs]) -> Manifest:
    writer, inputs, settings = ShardWriter(order, PIECES), order.inputs, order.settings
    storage, stop = writer.storage, settings.start + sum(manifest["rows"] for manifest in inputs.candidates)
    groups = range(settings.start // _GROUP, -(-stop // _GROUP))
    places = storage.read_table(inputs.places["path"], groups=groups)["place"].to_numpy()
    rows = _take(storage, inputs.candidates, places[settings.start - groups.start * _GROUP :])
    ends = np.searchsorted(rows["place"].to_numpy(), np.arange(0, _last(rows) + 1 + settings.bucket, settings.bucket))
    name, buckets = writer.name("rows.parquet"), list[int]()
    with (
        writer.writing(name) as path,
        pq.ParquetWriter(path, rows.schema, compression="zstd") as file,
    ):
        for part, (first, end) in enumerate(pairwise(ends.tolist())):
            if end > first:
                file.write_table(rows.slice(first, end - first), row_group_size=end - first)
                buckets.append(part)
    made = describe_part(writer, order.shard, name, 0)
    made["seconds"], made["details"] = round(time.perf_counter() - writer.started, 3), {"buckets": buckets}
    return made


def _last(rows: pa.Table) -> int:
    return int(rows["place"][-1].as_py()) if rows.num_rows else -1


def _take(storage: Storage, candidates: Sequence[Manifest], places: NDArray[np.int64]) -> pa.Table:
    """The chosen rows of some candidates, in the order of their places, which are a further column."""
    kept, start = [], 0
    for manifest in candidates:
        stop_if_requested()
        own = places[start : start + manifest["rows"]]
        start += manifest["rows"]
        table = storage.read_table(manifest["path"]).cast(CANDIDATE_SCHEMA)
        kept.append(table.append_column("place", pa.array(own)).filter(pa.array(own >= 0)))
    return pa.concat_tables(kept).sort_by("place")


def _run_gather(order: Order[GatherSettings, GatherInputs]) -> Manifest:
    writer, settings = ShardWriter(order, PIECES), order.settings
    found = [
        writer.storage.read_table(one["path"], groups=[one["details"]["buckets"].index(settings.number)])
        for one in order.inputs.spread
    ]
    return commit_parts(
        writer, _write_shards(writer, pa.concat_tables(found).sort_by("place"), settings.first, settings.shard_size)
    )


def _write_shards(writer: ShardWriter, rows: pa.Table, first: int, size: int) -> list[Manifest]:
    rows = rows.select(CANDIDATE_SCHEMA.names).cast(CANDIDATE_SCHEMA)
    return [
        write_part(writer, "sample", number, "rows.parquet", rows.slice(start, size))
        for number, start in enumerate(range(0, rows.num_rows, size), first)
    ]


def _run_whole(order: SampleOrder) -> Manifest:
    settings, writer = order.settings, ShardWriter(order)
    details: Details = {}
    if order.pieces:
        chosen, *others = order.pieces
        shards = [part for piece in others for part in piece["details"].get("shards", [])]
        if settings.reserve:
            details = {"shares": chosen["details"]["shares"], "reserved": writer.name("reserved.parquet")}
            writer.write_part(details["reserved"], writer.storage.read_table(chosen["path"]))
    else:
        found = _choose(writer.storage, order.inputs.candidates, settings)
        rows = _take(writer.storage, order.inputs.candidates, found.places)
        shards = _write_shards(writer, rows, 0, settings.shard_size)
        if settings.reserve:
            reserves = {name: ids.to_pylist() for name, ids in found.reserves.items()}
            details = {"shares": found.shares, "reserves": reserves}
    made = commit_parts(writer, shards, details)
    if "reserved" in details:
        made["files"][details["reserved"]] = writer.storage.sha256(details["reserved"])
    if order.pieces:
        writer.storage.remove(f"{WORK}/{PIECES}")
    return made


sample = shard_task("sample")(run_sample)
