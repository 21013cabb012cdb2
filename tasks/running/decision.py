"""What assembling decides about all rows at once: which are published, on which side, and what is counted of them.

It needs a few columns of every row, as arrays, and gives one byte for each: all else is done file by file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from talking_points.build_config import NearDuplicatesConfig, SamplingConfig
from talking_points.candidates.columns import codes_of
from talking_points.candidates.sampling import fill_up
from talking_points.candidates.splitting import near_duplicate_groups, tested
from talking_points.config import Section
from talking_points.records import source_label
from talking_points.redaction import redact
from tasks.running.manifests import Details, Manifest
from tasks.running.repeated_texts import without_repeats
from tasks.running.shards import ShardFailed, ShardWriter
from tasks.running.storage import Storage

LEFT_OUT, TRAIN, TEST = 0, 1, 2
SIDES = {"train": TRAIN, "test": TEST}
"""The bytes of a row's side."""

_LIGHT = ["id", "source", "object", "part", "image_id", "image_sha256", "image_phash", "image_width", "image_height"]
_GROUP = 1 << 20
"""Sides in a row group of their file."""


class Rules(Section):
    """What can change the decision."""

    seed: int
    sampling: SamplingConfig
    near_duplicates: NearDuplicatesConfig | None


@dataclass(frozen=True)
class Counts:
    """Of the published rows, their sources called as in the dataset: ``rows`` of each side, points by (source, object,
    part) and by (source, side), different images by source. ``unused``: reserves that were not needed; ``repeated``:
    what was found of texts that say almost the same.
    """

    rows: dict[str, int]
    made_of: Counter[tuple[str, str, str]]
    by_side: Counter[tuple[str, str]]
    images: dict[str, int]
    unused: int
    repeated: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values. Orders of appearance are kept."""
        return {
            "rows": list(self.rows.items()),
            "made_of": [[*key, count] for key, count in self.made_of.items()],
            "by_side": [[*key, count] for key, count in self.by_side.items()],
            "images": list(self.images.items()),
            "unused": self.unused,
            "repeated": self.repeated,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Counts:
        return cls(
            rows=dict(values["rows"]),
            made_of=Counter({(source, name, part): count for source, name, part, count in values["made_of"]}),
            by_side=Counter({(source, side): count for source, side, count in values["by_side"]}),
            images=dict(values["images"]),
            unused=values["unused"],
            repeated=values["repeated"],
        )


@dataclass(frozen=True)
class Decision:
    """``sides``: of every row of all finished shards, one after another (uint8). ``sizes``: rows of each shard."""

    sizes: list[int]
    sides: NDArray[np.uint8]
    counts: Counts

    def by_shard(self) -> Iterator[NDArray[np.uint8]]:
        """The sides of the rows of one shard after another."""
        return by_shard(self.sides, self.sizes)

    def of_side(self, side: str) -> Iterator[NDArray[np.bool_]]:
        """Which rows of one shard after another are on a side."""
        return (own == SIDES[side] for own in self.by_shard())

    def count(self, side: str) -> list[int]:
        """Rows of a side in every shard."""
        return [int(np.count_nonzero(own)) for own in self.of_side(side)]


def by_shard(sides: NDArray[np.uint8], sizes: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """The sides of the rows of one shard after another, which have so many."""
    start = 0
    for size in sizes:
        yield sides[start : start + size]
        start += size


def decide(writer: ShardWriter, finished: Sequence[Manifest], sampled: Details, rules: Rules) -> Decision:
    """Decide over the rows of all finished shards. Texts that repeat others are rejected through ``writer``.

    Raises ``ShardFailed`` where there is no row.
    """
    storage, alike = writer.storage, rules.near_duplicates
    columns = [*_LIGHT, "image_path", "description"] if alike else _LIGHT
    light = pa.concat_tables([storage.read_table(manifest["path"], columns=columns) for manifest in finished])
    if not light.num_rows:
        raise ShardFailed(
            f"every row was rejected: 'talking-points status {redact(storage.output)} --rejected' tells why"
        )
    rows, repeated = np.arange(light.num_rows), None
    if alike is not None:
        stays, repeated = without_repeats(writer, light, alike)
        rows = rows[stays]
        light = light.select(_LIGHT).take(rows)
    kept = _fit_shares(storage, light, sampled)
    unused = light.num_rows - int(np.count_nonzero(kept))
    if unused:
        rows, light = rows[kept], light.filter(pa.array(kept))
    tests = _split(light, rules)
    sides = np.full(sum(manifest["rows"] for manifest in finished), LEFT_OUT, np.uint8)
    sides[rows] = np.where(tests, TEST, TRAIN)
    return Decision([manifest["rows"] for manifest in finished], sides, _count(light, tests, unused, repeated))


def _fit_shares(storage: Storage, light: pa.Table, sampled: Details) -> NDArray[np.bool_]:
    """Which rows are in the dataset, where reserves have taken the place of rejected ones."""
    if "shares" not in sampled:
        return np.ones(light.num_rows, np.bool_)
    return fill_up(light, sampled["shares"], _list_reserves(storage, sampled))


def _list_reserves(storage: Storage, sampled: Details) -> pa.Array:
    """The ids that stand in for others, in the order in which each source gives them."""
    if "reserved" in sampled:
        return storage.read_table(sampled["reserved"])["id"].combine_chunks()
    return pa.array([id_ for ids in sampled["reserves"].values() for id_ in ids], pa.string())


def _split(light: pa.Table, rules: Rules) -> NDArray[np.bool_]:
    """Whether each row is on the test side: proportional per source, near-duplicate images on one side."""
    sampling = rules.sampling
    groups = near_duplicate_groups(
        light["image_phash"].to_numpy(),
        sampling.near_duplicate_bits,
        aspects=light["image_width"].to_numpy() / light["image_height"].to_numpy(),
        contents=light["image_sha256"],
    )
    return tested(
        light["id"],
        light["source"],
        groups,
        train_parts=sampling.train_parts,
        test_parts=sampling.test_parts,
        seed=rules.seed,
    )


def _count(light: pa.Table, tests: NDArray[np.bool_], unused: int, repeated: dict[str, Any] | None) -> Counts:
    codes, names = codes_of(light["source"])
    labels, called = codes_of(pa.chunked_array([pa.array([source_label(name) for name in names], pa.string())]))
    sources = labels[codes]
    objects, object_names = codes_of(light["object"])
    parts, part_names = codes_of(light["part"])
    pairs, numbers = np.unique((sources * len(object_names) + objects) * len(part_names) + parts, return_counts=True)
    made_of = Counter[tuple[str, str, str]]()
    for pair, number in zip(pairs.tolist(), numbers.tolist(), strict=True):
        rest, part = divmod(pair, len(part_names))
        source, name = divmod(rest, len(object_names))
        made_of[called[source], object_names[name], part_names[part]] = number
    in_tests, counts = np.unique(sources * 2 + tests, return_counts=True)
    images, _ = codes_of(light["image_id"])
    different = np.unique(sources * (images.max(initial=0) + 1) + images) // (images.max(initial=0) + 1)
    order = ("test", "train") if tests[0] else ("train", "test")
    by_side = {"train": int(np.count_nonzero(~tests)), "test": int(np.count_nonzero(tests))}
    return Counts(
        rows={side: by_side[side] for side in order if by_side[side]},
        made_of=made_of,
        by_side=Counter(
            {
                (called[place // 2], ("train", "test")[place % 2]): count
                for place, count in zip(in_tests.tolist(), counts.tolist(), strict=True)
            }
        ),
        images={called[place]: int(count) for place, count in enumerate(np.bincount(different).tolist())},
        unused=unused,
        repeated=repeated,
    )


def write_decision(writer: ShardWriter, decision: Decision) -> tuple[str, str]:
    """Keep a decision beside the shard that made it; returns the names of the files of sides and of counts."""
    sides, counts = writer.name("sides.parquet"), writer.name("counts.json")
    with writer.writing(sides) as path:
        pq.write_table(pa.table({"side": decision.sides}), path, compression="zstd", row_group_size=_GROUP)
    writer.storage.write_json(counts, decision.counts.to_json())
    return sides, counts


def read_decision(storage: Storage, sides: str, counts: str, sizes: list[int]) -> Decision:
    """A decision that was kept."""
    found = storage.read_table(sides)["side"].to_numpy()
    return Decision(sizes, found, Counts.from_json(storage.read_json(counts)))


def read_sides(storage: Storage, name: str, start: int, stop: int) -> NDArray[np.uint8]:
    """The sides of rows ``start`` to ``stop``, of which no more is read than the groups that hold them."""
    first = start // _GROUP
    groups = range(first, max(first + 1, -(-stop // _GROUP)))
    found: NDArray[np.uint8] = storage.read_table(name, groups=groups)["side"].to_numpy()
    return found[start - first * _GROUP : stop - first * _GROUP]
