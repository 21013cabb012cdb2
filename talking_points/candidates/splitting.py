"""On which side of the split an image is, with all its near-duplicates.

Every function gives the same result whatever the order of its input: rows are ordered by hashes of (seed, id), never
by position. Rows are numbers into arrays, so that a million of them take tens of megabytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from talking_points.candidates.columns import as_column, codes_of, ranks_of, seeds_of

ASPECT_TOLERANCE = 0.03
"""Relative difference of width / height up to which two images can be copies of one another."""

MIN_HASH_BITS = 8
"""A hash with fewer bits set, or fewer left unset, is that of a nearly blank image and says nothing."""

_BLOCK = 256

_MANY_BITS = 14
"""Bits from which bands of a hash are so many and so narrow that they save nothing."""


def near_duplicate_groups(
    hashes: NDArray[np.uint64], bits: int, *, aspects: NDArray[np.float64], contents: pa.ChunkedArray | Sequence[str]
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
    # The least of a group is its first.
    least = _join(count, left, right)
    return (np.cumsum(least == np.arange(count)) - 1)[least]


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


def _first_occurrences(values: pa.ChunkedArray | Sequence[str]) -> NDArray[np.int64]:
    """For each value the index of its first occurrence."""
    codes, different = codes_of(as_column(values))
    first = np.full(len(different), len(codes), np.int64)
    np.minimum.at(first, codes, np.arange(len(codes)))
    return first[codes]


def split(
    ids: Sequence[str],
    sources: Sequence[str],
    groups: Sequence[int] | NDArray[np.int64],
    *,
    train_parts: int = 17,
    test_parts: int = 4,
    seed: int = 0,
) -> list[str]:
    """The side of each row, "train" or "test", by image group, as ``tested`` tells it."""
    chosen = tested(
        as_column(ids),
        as_column(sources),
        np.asarray(groups, np.int64),
        train_parts=train_parts,
        test_parts=test_parts,
        seed=seed,
    )
    return ["test" if one else "train" for one in chosen.tolist()]


def tested(
    ids: pa.ChunkedArray,
    sources: pa.ChunkedArray,
    groups: NDArray[np.int64],
    *,
    train_parts: int,
    test_parts: int,
    seed: int,
) -> NDArray[np.bool_]:
    """Whether each row is on the test side (bool (N,)), by image group: no group has rows on both sides.

    Each source gives the test side ``test_parts`` of ``train_parts + test_parts`` of its rows (rounded), short of it by
    less than one group at most. Groups are tried in an order drawn from the seed and the ids of their rows; one goes to
    the test side if no source it holds rows of would exceed its share there.
    """
    if not len(ids):
        return np.empty(0, np.bool_)
    codes, names = codes_of(sources)
    room = [round(count * test_parts / (train_parts + test_parts)) for count in np.bincount(codes).tolist()]
    _, members = np.unique(groups, return_inverse=True)
    # A group is called by the least of its ids.
    ranks = ranks_of(ids)
    by_rank = np.argsort(ranks, kind="stable")
    _, first = np.unique(members[by_rank], return_index=True)
    keys = by_rank[first]
    order = np.lexsort((ranks[keys], seeds_of(seed, ids.take(keys), "split")))
    held, counts = np.unique(members * len(names) + codes, return_counts=True)
    starts = np.searchsorted(held, np.arange(len(keys) + 1) * len(names))
    of_source, many = (held % len(names)).tolist(), counts.tolist()
    chosen = np.zeros(len(keys), np.bool_)
    for group, start, end in zip(order.tolist(), starts[order].tolist(), starts[order + 1].tolist(), strict=True):
        if all(many[place] <= room[of_source[place]] for place in range(start, end)):
            chosen[group] = True
            for place in range(start, end):
                room[of_source[place]] -= many[place]
    return chosen[members]
