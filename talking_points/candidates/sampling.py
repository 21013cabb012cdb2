"""Which candidates become the dataset, and on which side of the split: balance, near-duplicates, composition.

Every function gives the same result whatever the order of its input: rows are ordered by hashes of (seed, id), never
by position.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from talking_points.records import SOURCES, derive_seed
from talking_points.sources.labels import vocabulary

ASPECT_TOLERANCE = 0.03
"""Relative difference of width / height up to which two images can be copies of one another."""

MIN_HASH_BITS = 8
"""A hash with fewer bits set, or fewer left unset, is that of a nearly blank image and says nothing."""

_BLOCK = 256

_MANY_BITS = 14
"""Bits from which bands of a hash are so many and so narrow that they save nothing."""


@dataclass(frozen=True)
class Sample:
    """``shares``: points wanted of each source. ``ranked``: its ids, in the order in which they are taken.

    Those beyond the share are reserves for rows that are rejected later.
    """

    shares: Mapping[str, int]
    ranked: Mapping[str, Sequence[str]]

    @property
    def ids(self) -> list[str]:
        """All ids, reserves included, sorted by (source, id)."""
        return [id_ for source in sorted(self.ranked) for id_ in sorted(self.ranked[source])]

    @property
    def reserves(self) -> dict[str, list[str]]:
        """The ids of each source beyond its share, in the order in which they are taken."""
        return {source: list(ids[self.shares[source] :]) for source, ids in self.ranked.items()}

    def fill_up(self, accepted: Collection[str]) -> list[str]:
        """The ids of the dataset once rows have been rejected, sorted by (source, id).

        Each source gives its first accepted ids until its share is met or its reserves are used up.
        """
        usable = set(accepted)
        chosen = {
            source: [id_ for id_ in ids if id_ in usable][: self.shares[source]] for source, ids in self.ranked.items()
        }
        return [id_ for source in sorted(chosen) for id_ in sorted(chosen[source])]

    def count_missing(self, accepted: Collection[str]) -> dict[str, int]:
        """How many points each source is short of its share, sources without a gap left out."""
        usable = set(accepted)
        gaps = {source: share - len(usable.intersection(self.ranked[source])) for source, share in self.shares.items()}
        return {source: gap for source, gap in sorted(gaps.items()) if gap > 0}


def balance(
    table: pa.Table,
    points: Mapping[str, int | None],
    *,
    equal_shares: bool = True,
    limit: int | None = None,
    seed: int = 0,
    reserve: float = 0.0,
) -> Sample:
    """The candidates to use.

    ``table`` has the columns id, source, object, part, image_id; ``points`` names every source of the build and how
    many points are wanted of it at most: without a number all it has. With ``equal_shares`` no source gives more than
    the smallest one does. ``limit`` caps the sum, spread evenly. ``reserve``: further ids of each source, relative to
    its share, as far as it has them.

    Each (image, object, part) is used at most once. Inside a source the least-represented (object, part) is served
    first, so that rare pairs are used up before frequent ones repeat. Raises ``ValueError`` for a source without rows.
    """
    rows: dict[str, list[tuple[str, str, str, str]]] = {source: [] for source in points}
    columns = (table[name].to_pylist() for name in ("source", "id", "object", "part", "image_id"))
    for source, *row in zip(*columns, strict=True):
        if source not in rows:
            raise ValueError(f"found rows of source '{source}', expected only {', '.join(points)}")
        rows[source].append((row[0], row[1], row[2], row[3]))
    ranked = {source: _least_represented_first(rows[source], seed) for source in points}
    for source, ids in ranked.items():
        if not ids:
            raise ValueError(
                f"source '{source}' gave no candidate: check its root and its skipped counts, lower"
                " keypoints.min_part_area, or leave the source out"
            )
    shares = _shares({source: len(ids) for source, ids in ranked.items()}, points, equal_shares)
    if limit is not None:
        shares = _spread(shares, limit)
    taken = {source: share + math.ceil(share * reserve) for source, share in shares.items()}
    return Sample(shares, {source: ranked[source][: taken[source]] for source in ranked})


def _least_represented_first(rows: Sequence[tuple[str, str, str, str]], seed: int) -> list[str]:
    """All usable ids of one source, in the order in which points are taken from it."""
    lots = {row[0]: (derive_seed(seed, row[0], "balance"), row[0]) for row in rows}
    taken: set[tuple[str, str, str]] = set()
    represented: Counter[tuple[str, str]] = Counter()
    turns = []
    for id_, name, part, image_id in sorted(rows, key=lambda row: lots[row[0]]):
        if (name, part, image_id) in taken:
            continue
        taken.add((name, part, image_id))
        represented[name, part] += 1
        turns.append((represented[name, part], lots[id_]))
    return [id_ for _, (_, id_) in sorted(turns)]


def _shares(available: Mapping[str, int], points: Mapping[str, int | None], equal: bool) -> dict[str, int]:
    wanted = {source: min(available[source], points[source] or available[source]) for source in available}
    return dict.fromkeys(wanted, min(wanted.values())) if equal else wanted


def _spread(shares: Mapping[str, int], limit: int) -> dict[str, int]:
    """At most ``limit`` in all: the shares are cut down to a common level, what does not divide goes to the last."""
    left, result = limit, {}
    for index, source in enumerate(sorted(shares, key=lambda source: (shares[source], source))):
        open_sources = len(shares) - index
        result[source] = min(shares[source], left // open_sources)
        left -= result[source]
    return result


def near_duplicate_groups(
    hashes: NDArray[np.uint64], bits: int, *, aspects: NDArray[np.float64], contents: Sequence[str]
) -> NDArray[np.int64]:
    """Group number of each of N images (int64 (N,), numbered by first occurrence): near-duplicates share a group.

    Two images are near-duplicates if their 64-bit perceptual ``hashes`` differ in at most ``bits`` bits, their
    ``aspects`` (width / height) agree within ``ASPECT_TOLERANCE``, and neither hash is that of a nearly blank image
    (``MIN_HASH_BITS``), whose remaining bits are noise; or if their ``contents`` (sha256 of the file) are equal. Groups
    are the connected components of that relation. Only images that share a band of their hashes are
    compared (``_close_pairs``).
    """
    count = len(hashes)
    identical = _first_occurrences(contents)
    telling = np.bitwise_count(hashes)
    usable = np.flatnonzero((telling >= MIN_HASH_BITS) & (telling <= 64 - MIN_HASH_BITS))
    usable = usable[identical[usable] == usable]
    chosen, shapes = hashes[usable], np.log(aspects[usable])
    lefts, rights = [np.arange(count)], [identical]
    for first, second in _close_pairs(chosen, bits):
        similar = np.abs(shapes[first] - shapes[second]) <= np.log1p(ASPECT_TOLERANCE)
        lefts.append(usable[first[similar]])
        rights.append(usable[second[similar]])
    left, right = np.concatenate(lefts), np.concatenate(rights)
    return _first_occurrences(_join(count, left, right).tolist(), number=True)


def _join(count: int, left: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each of ``count`` nodes the least one that edges from ``left`` to ``right`` lead to, over any others.

    SciPy's way takes a third of a second and tens of megabytes to import, far more than it takes.
    """
    least = np.arange(count)
    while True:
        first, second = least[left], least[right]
        if np.array_equal(first, second):
            return least
        # Both trees are hung under the lesser of their roots, and then made flat.
        np.minimum.at(least, first, second)
        np.minimum.at(least, second, first)
        while not np.array_equal(least[least], least):
            least = least[least]


def _close_pairs(hashes: NDArray[np.uint64], bits: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of indices whose hashes differ in at most ``bits`` bits, some of them more than once.

    The 64 bits are cut into ``bits + 1`` bands: of hashes that close, at least one band is equal. So only those that
    share a band are compared; with many narrow bands that would be more work than to compare all.
    """
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for low, high in itertools.pairwise(edges.tolist() if bits < _MANY_BITS else [0, 0]):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.r_[True, band[order][1:] != band[order][:-1]]) if len(order) else order
        sizes = np.diff(np.r_[starts, len(order)])
        for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
            members = order[start : start + size]
            alike = hashes[members]
            for offset in range(0, size, _BLOCK):
                block = slice(offset, offset + _BLOCK)
                close = np.bitwise_count(alike[block, None] ^ alike[None, offset:]) <= bits
                first, second = np.nonzero(close)
                yield members[first + offset], members[second + offset]


def _first_occurrences(values: Sequence[Any], number: bool = False) -> NDArray[np.int64]:
    """For each value the index of its first occurrence, or that occurrence's number among the different values."""
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(value, len(seen) if number else i) for i, value in enumerate(values)], np.int64)


def split(
    ids: Sequence[str],
    sources: Sequence[str],
    groups: Sequence[int] | NDArray[np.int64],
    *,
    train_parts: int = 17,
    test_parts: int = 4,
    seed: int = 0,
) -> list[str]:
    """The side of each row, "train" or "test", by image group: no group has rows on both sides.

    Each source gives the test side ``test_parts`` of ``train_parts + test_parts`` of its rows (rounded), short of it by
    less than one group at most. Groups are tried in an order drawn from the seed and the ids of their rows; one goes to
    the test side if no source it holds rows of would exceed its share there.
    """
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(int(group), []).append(row)
    room = {
        source: round(count * test_parts / (train_parts + test_parts)) for source, count in Counter(sources).items()
    }
    sides = ["train"] * len(ids)
    keys = {group: min(ids[row] for row in rows) for group, rows in members.items()}
    for group in sorted(members, key=lambda group: (derive_seed(seed, keys[group], "split"), keys[group])):
        needed = Counter(sources[row] for row in members[group])
        if all(count <= room[source] for source, count in needed.items()):
            for row in members[group]:
                sides[row] = "test"
            for source, count in needed.items():
                room[source] -= count
    return sides


@dataclass(frozen=True)
class Composition:
    """What a dataset is made of: points by source, object and part, and how much of the label lists they reach.

    Objects and (object, part) pairs are counted over all sources under one normalization: lower case, exact string, no
    merging of synonyms ("aeroplane" and "airplane" are two).
    """

    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    objects_available: int
    objects_sampled: int
    pairs_available: int
    pairs_sampled: int

    @property
    def points(self) -> int:
        return sum(sum(parts.values()) for objects in self.counts.values() for parts in objects.values())


def composition(
    sources: Sequence[str], objects: Sequence[str], parts: Sequence[str], *, configured: Collection[str] = ()
) -> Composition:
    """Count rows given by three equally long columns. ``configured``: sources of the build, for what was available."""
    counted = Counter(zip(sources, objects, parts, strict=True))
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (source, name, part), count in sorted(counted.items()):
        counts.setdefault(source, {}).setdefault(name, {})[part] = count
    objects_available, pairs_available = label_availability(configured or counts)
    own = {(name.lower(), part.lower()) for source, name, part in counted if source not in SOURCES}
    objects_available, pairs_available = objects_available | {name for name, _ in own}, pairs_available | own
    pairs = {(name.lower(), part.lower()) for _, name, part in counted}
    return Composition(
        counts=counts,
        objects_available=len(objects_available),
        objects_sampled=len({name for name, _ in pairs}),
        pairs_available=len(pairs_available),
        pairs_sampled=len(pairs),
    )


def label_availability(sources: Collection[str]) -> tuple[set[str], set[tuple[str, str]]]:
    """The objects and the (object, part) pairs that the label lists of ``sources`` offer, normalized.

    All three sources together give 64 objects, as the paper counts them, and 363 pairs. An object without parts
    ("dining table") counts as available, though no point can lie in a part of it. Other sources have no lists.
    """
    objects: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for source in SOURCES:
        if source not in sources:
            continue
        listed = vocabulary(source)
        objects |= {label.name.lower() for label in listed.objects}
        pairs |= {(label.object.lower(), label.part.lower()) for label in listed.parts}
    return objects, pairs
