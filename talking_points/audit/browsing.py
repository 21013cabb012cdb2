"""The rows of a dataset for looking at: light columns in memory, filters over them, one row read when it is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from talking_points.dataset_files import (
    DatasetError,
    column_names,
    dataset_file,
    dataset_names,
    open_parquet,
    read_group,
    read_groups,
    read_texts,
)
from talking_points.dataset_schema import COLUMNS, SCORE
from talking_points.records import LABELS

LIGHT = ("id", "source", "object", "part", "description", "draft", "flags")
"""Columns that are read of every row: what is listed, filtered and searched."""

FULL = tuple(name for name in COLUMNS if name != "image")

_REJECTED = ("id", "source", "stage", "reason", "detail", "text")
_SEARCHED = ("description", "draft", "object", "part", "id")

Place = tuple[Path, int, int]
"""Parquet file, row group, row in it."""


@dataclass(frozen=True)
class Filter:
    """What is shown; None and "" leave everything in. ``words``: every one of them is in the row's texts.

    ``judge``: one of the groups of scores that ``DatasetRows.choices("judge")`` counts.
    """

    split: str | None = None
    source: str | None = None
    object: str | None = None
    part: str | None = None
    flag: str | None = None
    judge: str | None = None
    words: str = ""
    kind: str | None = None


@dataclass(frozen=True)
class RejectedFilter:
    """As ``Filter``, of the rejected rows."""

    source: str | None = None
    stage: str | None = None
    reason: str | None = None
    words: str = ""


@dataclass(frozen=True)
class DatasetRows:
    """``table``: the light columns of all rows, "split" beside them, and "judge", the group of the score, where a judge
    gave scores. ``places``: where each row is.
    """

    table: pa.Table
    places: list[Place]
    rejected: pa.Table
    _choices: dict[tuple[str, ...], dict[str, int]] = field(default_factory=dict, compare=False)

    @classmethod
    def read(cls, root: Path) -> DatasetRows:
        """Read the light columns of the dataset in ``root``. Raises ``DatasetError``."""
        tables, places, splits = [], [], []
        files = [dataset_file(root, name) for name in dataset_names(root, "data/*.parquet")]
        judged = bool(files) and all(_has_scores(path) for path in files)
        for path in files:
            for group, table in enumerate(read_groups(path, (*LIGHT, SCORE) if judged else LIGHT)):
                tables.append(table)
                places += [(path, group, number) for number in range(table.num_rows)]
                splits += [path.name.partition("-")[0]] * table.num_rows
        if not places:
            raise DatasetError(f"no rows in {root}: expected data/*.parquet, as a build writes them")
        table = pa.concat_tables(tables)
        if judged:
            table = table.drop_columns([SCORE]).append_column("judge", _group_scores(table[SCORE]))
        names = pa.array(LABELS).take(table["source"].combine_chunks())
        table = table.set_column(table.schema.get_field_index("source"), "source", names)
        return cls(table.append_column("split", pa.array(splits)), places, list_rejected(root))

    def __len__(self) -> int:
        return len(self.places)

    def find(self, wanted: Filter) -> NDArray[np.int64]:
        """Numbers of the rows that pass, in the order of the dataset."""
        kept = np.ones(len(self), dtype=np.bool_)
        for name in ("split", "source", "object", "part", "kind", "judge"):
            value = getattr(wanted, name)
            if value is not None:
                here = name in self.table.column_names
                kept &= pc.equal(self.table[name], value).to_numpy(zero_copy_only=False) if here else False
        if wanted.flag is not None:
            kept &= self._find_flag(wanted.flag)
        for word in wanted.words.split():
            kept &= _find_word(self.table, _SEARCHED, word)
        return np.flatnonzero(kept)

    def find_rejected(self, wanted: RejectedFilter) -> NDArray[np.int64]:
        """Numbers of the rejected rows that pass."""
        kept = np.ones(self.rejected.num_rows, dtype=np.bool_)
        for name in ("source", "stage", "reason"):
            value = getattr(wanted, name)
            if value is not None:
                kept &= pc.equal(self.rejected[name], value).to_numpy(zero_copy_only=False)
        for word in wanted.words.split():
            kept &= _find_word(self.rejected, _REJECTED, word)
        return np.flatnonzero(kept)

    def choices(self, column: str, *, rejected: bool = False) -> dict[str, int]:
        """How many rows have each value of a column, the most frequent first."""
        key = (column, str(rejected))
        if key not in self._choices:
            table = self.rejected if rejected else self.table
            values = pc.list_flatten(table[column]) if column == "flags" else table[column]
            self._choices[key] = dict(Counter(values.to_pylist()).most_common())
        return self._choices[key]

    def lines(self, numbers: Iterable[int], *, rejected: bool = False) -> list[dict[str, Any]]:
        """The light columns of some rows, as the list shows them."""
        table = self.rejected if rejected else self.table
        return table.take(pa.array(list(numbers), pa.int64())).to_pylist()

    def row(self, number: int) -> dict[str, Any]:
        """All columns of one row but its image, the source by name."""
        path, group, place = self.places[number]
        with open_parquet(path, FULL) as file:
            row: dict[str, Any] = read_group(file, group, FULL, path).slice(place, 1).to_pylist()[0]
        judge = {"judge": self.table["judge"][number].as_py()} if "judge" in self.table.column_names else {}
        return row | {"source": LABELS[row["source"]], "split": path.name.partition("-")[0]} | judge

    def _find_flag(self, flag: str) -> NDArray[np.bool_]:
        kept = np.zeros(len(self), dtype=np.bool_)
        rows, flags = self._flags
        kept[rows[flags == flag]] = True
        return kept

    @cached_property
    def _flags(self) -> tuple[NDArray[np.int64], NDArray[Any]]:
        lists = self.table["flags"].combine_chunks()
        return pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), np.array(
            pc.list_flatten(lists).to_pylist(), dtype=object
        )


def list_rejected(root: Path) -> pa.Table:
    """All rejected rows of the dataset in ``root``. Raises ``DatasetError``."""
    rejected = [_read_rejected(root / name) for name in dataset_names(root, "rejected/*.parquet")]
    empty = pa.table({name: pa.array([], pa.string()) for name in _REJECTED})
    return pa.concat_tables([empty, *rejected])


def list_writers(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The row's provenance as lines: step, then who wrote it."""
    lines = []
    for step, used in (row["provenance"] or {}).items():
        if isinstance(used, Mapping):
            said = [used.get("backend"), used.get("model"), used.get("revision")]
            prompt = (used.get("prompt_sha256") or "")[:12]
            lines.append(
                (step.replace("_", " "), " ".join([*filter(None, said), *([f"prompt {prompt}"] if prompt else [])]))
            )
        else:
            lines.append((step, str(used)))
    return lines


def _read_rejected(path: Path) -> pa.Table:
    """Rejected rows as text; columns that an older build does not have are empty."""
    found = column_names(path)
    names = [name for name in _REJECTED if name in found]
    table = read_texts(path, names)
    filled = [table[name] if name in names else pa.array([""] * table.num_rows) for name in _REJECTED]
    return pa.table(filled, names=list(_REJECTED))


def _has_scores(path: Path) -> bool:
    return SCORE in column_names(path)


def _group_scores(scores: pa.ChunkedArray) -> pa.Array:
    """Scores as text: those of a model as they are, whole numbers; those of a localizer by tenths; and "none"."""
    found = scores.to_pylist()
    whole = any(score is not None and not 0 <= score <= 1 for score in found)
    return pa.array([_group_score(score, whole) for score in found], pa.string())


def _group_score(score: float | None, whole: bool) -> str:
    if score is None:
        return "none"
    if whole:
        return str(int(score))
    tenth = min(int(score * 10), 9)
    return f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}"


def _find_word(table: pa.Table, columns: Iterable[str], word: str) -> NDArray[np.bool_]:
    kept = np.zeros(table.num_rows, dtype=np.bool_)
    for name in columns:
        kept |= pc.match_substring(table[name], word, ignore_case=True).to_numpy(zero_copy_only=False)
    return kept
