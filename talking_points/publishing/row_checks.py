"""What the types of a dataset's columns do not say of its rows: each is there once, its point is in its image."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from talking_points.dataset_files import DatasetError, dataset_file
from talking_points.dataset_schema import SCORE
from talking_points.publishing.forms import DatasetForm, form_of


def check_rows(root: Path, manifest: Mapping[str, Any]) -> dict[str, int]:
    """Refuse rows of the dataset in ``root`` that no build writes; how many rows each file holds, by its path.

    Reads a few columns, one row group in memory at a time. Raises ``DatasetError`` with the file and the row.
    """
    form, judge = form_of(manifest), manifest.get("judge")
    seen: set[bytes] = set()
    counts = {}
    for file in manifest["files"]:
        path = dataset_file(root, file["path"])
        first = 0
        further = _check_further(path, form, judge)
        for table in form.read_groups(path, (*form.checked, *further)):
            form.check(table, path)
            if judge:
                _refuse_off_scale(table, judge, path, first)
            _refuse_repeated(table, path, first, seen)
            _refuse_outside(table, form, path, first)
            first += table.num_rows
        counts[file["path"]] = first
    return counts


def check_counts(root: Path, manifest: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """Refuse a manifest that gives other numbers of rows than ``counts``, those of its files. Raises as above."""
    splits = Counter(dict.fromkeys(manifest["rows"], 0))
    for file in manifest["files"]:
        found = counts[file["path"]]
        if file["rows"] not in (0, found):  # 0 where an earlier version did not count
            raise DatasetError(
                f"{root / file['path']} holds {found:,} rows, its manifest says {file['rows']:,}; {_ADVICE}"
            )
        splits[Path(file["path"]).name.partition("-")[0]] += found
    for split, found in splits.items():
        expected = manifest["rows"].get(split)
        if found != expected:
            said = "does not name the split" if expected is None else f"says {expected:,}"
            raise DatasetError(
                f"{root}: the files data/{split[:80]}-*.parquet hold {found:,} rows, the manifest {said}; {_ADVICE}"
            )


_ADVICE = "the dataset is damaged: build it again, or download it again"


def _check_further(path: Path, form: DatasetForm, judge: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The columns of a file that not every dataset has, which are those that its manifest tells of."""
    found = tuple(name for name in form.columns_in(path) if name not in form.columns)
    expected = (SCORE,) if judge else ()
    if found != expected:
        said = "of one" if judge else "of none"
        raise DatasetError(f"{path} has {'no ' * (not found)}scores of a judge, its manifest tells {said}; {_ADVICE}")
    return found


def _refuse_off_scale(table: pa.Table, judge: Mapping[str, Any], path: Path, first: int) -> None:
    least, most = judge["scale"] if judge["by"] == "model" else (0, 1)
    scores = table[SCORE].to_numpy()  # NaN where there is none: others are refused before
    rows = np.flatnonzero((scores < least) | (scores > most))
    if len(rows):
        raise DatasetError(
            f"{path}: the {SCORE} of row {first + rows[0]} is {scores[rows[0]]:g}, its manifest says {least} to "
            f"{most}; {_ADVICE}"
        )


def _refuse_repeated(table: pa.Table, path: Path, first: int, seen: set[bytes]) -> None:
    for number, name in enumerate(table["id"].to_pylist(), first):
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        if digest in seen:
            raise DatasetError(f"{path}: several rows have the id {name[:80]!a} (row {number} again); {_ADVICE}")
        seen.add(digest)


def _refuse_outside(table: pa.Table, form: DatasetForm, path: Path, first: int) -> None:
    sides = np.stack([table[name].to_numpy() for name in form.size], axis=1)
    for column in form.points:
        points = _pairs(table[column])
        if column == form.shares:
            points = points * sides
        # Pixel centres are integers, so an image begins half a pixel before them; float32 rounds shares.
        rows = np.flatnonzero(((points < -0.5) | (points > sides + 0.001)).any(axis=1))
        if len(rows):
            name = table["id"][int(rows[0])].as_py()[:80]
            raise DatasetError(
                f"{path}: the {column} of the row {name!a} (row {first + rows[0]}) lies outside its image; {_ADVICE}"
            )


def _pairs(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Points (N, 2) of a column of lists of two."""
    return np.asarray(pc.list_flatten(column).to_numpy(), np.float64).reshape(-1, 2)
