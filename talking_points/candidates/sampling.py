"""Which candidates become the dataset: as many of every source, and of every kind of part as far as there are.

Every function gives the same result whatever the order of its input: rows are ordered by hashes of (seed, id), never
by position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from talking_points.candidates.columns import codes_of, ranks_of, seeds_of


@dataclass(frozen=True)
class Choice:
    """``shares``: points wanted of each source. ``rows``: its row numbers (int64) in the order in which they are taken,
    those beyond the share as reserves.
    """

    shares: Mapping[str, int]
    rows: Mapping[str, NDArray[np.int64]]


def choose(
    table: pa.Table,
    points: Mapping[str, int | None],
    *,
    equal_shares: bool = True,
    limit: int | None = None,
    seed: int = 0,
    reserve: float = 0.0,
) -> Choice:
    """The candidates to use.

    ``table`` has the columns id, source, object, part, image_id; ``points`` names every source of the build and how
    many points are wanted of it at most: without a number all it has. With ``equal_shares`` no source gives more than
    the smallest one does. ``limit`` caps the sum, spread evenly. ``reserve``: further rows of each source, relative to
    its share, as far as it has them.

    Each (image, object, part) is used at most once. Inside a source the least-represented (object, part) is served
    first, so that rare pairs are used up before frequent ones repeat. Raises ``ValueError`` for a source without rows.
    """
    codes, names = codes_of(table["source"])
    for name in names:
        if name not in points:
            raise ValueError(f"found rows of source '{name}', expected only {', '.join(points)}")
    ranked: dict[str, NDArray[np.int64]] = {}
    for source in points:
        own = np.flatnonzero(codes == names.index(source)) if source in names else np.empty(0, np.int64)
        ranked[source] = own[_least_represented_first(table.take(own), seed)]
    for source, rows in ranked.items():
        if not len(rows):
            raise ValueError(
                f"source '{source}' gave no candidate: check its root and its skipped counts, lower"
                " keypoints.min_part_area, or leave the source out"
            )
    shares = _shares({source: len(rows) for source, rows in ranked.items()}, points, equal_shares)
    if limit is not None:
        shares = _spread(shares, limit)
    taken = {source: share + math.ceil(share * reserve) for source, share in shares.items()}
    return Choice(shares, {source: rows[: taken[source]] for source, rows in ranked.items()})


def fill_up(table: pa.Table, shares: Mapping[str, int], reserves: pa.Array) -> NDArray[np.bool_]:
    """Which of the accepted rows are in the dataset, once others have been rejected: each source gives those that are
    no reserve, then its reserves in turn, until its share is met or they are used up.

    ``table``: the accepted rows, with the columns id and source. ``reserves``: the ids that stand in for others, those
    of each source in the order in which they are taken.
    """
    turns = pc.index_in(table["id"], value_set=reserves).fill_null(-1).to_numpy()
    codes, names = codes_of(table["source"])
    chosen = []
    for code, source in enumerate(names):
        own = np.flatnonzero(codes == code)
        wanted, spare = own[turns[own] < 0], own[turns[own] >= 0]
        _, first = np.unique(turns[spare], return_index=True)
        chosen.append(np.concatenate([wanted, spare[first]])[: shares[source]])
    ids = table["id"].take(np.concatenate(chosen))
    kept: NDArray[np.bool_] = pc.is_in(table["id"], value_set=ids.combine_chunks()).to_numpy()
    return kept


def _least_represented_first(table: pa.Table, seed: int) -> NDArray[np.int64]:
    """The usable rows of one source, in the order in which points are taken from it."""
    if not table.num_rows:
        return np.empty(0, np.int64)
    objects, _ = codes_of(table["object"])
    parts, names = codes_of(table["part"])
    images, different = codes_of(table["image_id"])
    pairs = objects * len(names) + parts
    drawn = np.lexsort((ranks_of(table["id"]), seeds_of(seed, table["id"], "balance")))
    # Of rows of the same pair in the same image, the first that is drawn.
    _, first = np.unique((pairs * len(different) + images)[drawn], return_index=True)
    drawn = drawn[np.sort(first)]
    # How often its pair was drawn before each of them.
    by_pair = np.argsort(pairs[drawn], kind="stable")
    _, starts, sizes = np.unique(pairs[drawn][by_pair], return_index=True, return_counts=True)
    represented = np.empty(len(drawn), np.int64)
    represented[by_pair] = np.arange(len(drawn)) - np.repeat(starts, sizes)
    return drawn[np.argsort(represented, kind="stable")]


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
