"""Columns of many rows as numbers: what a choice is made by, without an object for every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from talking_points.records import derive_seed


def as_column(values: pa.ChunkedArray | Sequence[str]) -> pa.ChunkedArray:
    """Texts as a column."""
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values, pa.string())])


def codes_of(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[Any]]:
    """A number for every row (int64 (N,)), equal for equal values, and the values by number, in order of appearance."""
    different = column.unique()  # of many chunks, dictionaries that are unified take the square of that
    codes: NDArray[np.int32] = pc.index_in(column, value_set=different).to_numpy()
    return codes.astype(np.int64), different.to_pylist()


def ranks_of(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The place of every row among the different values in rising order (int64 (N,)), equal for equal values."""
    ranks: NDArray[np.uint64] = pc.rank(column, tiebreaker="dense").to_numpy()
    return ranks.astype(np.int64)


def seeds_of(seed: int, column: pa.ChunkedArray, purpose: str) -> NDArray[np.uint32]:
    """``derive_seed(seed, value, purpose)`` of every row."""
    seeds = np.empty(len(column), np.uint32)
    for start in range(0, len(column), _AT_ONCE):
        values = column.slice(start, _AT_ONCE).to_pylist()
        seeds[start : start + len(values)] = [derive_seed(seed, value, purpose) for value in values]
    return seeds


_AT_ONCE = 1 << 16
"""Rows that are objects of Python at a time."""
