"""Whether a published dataset is the one that was built: read back through ``datasets`` and compared row by row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from talking_points.publishing.forms import TRIPLETS, DatasetForm

_BATCH = 100


def rows_digest(tables: Iterable[pa.Table]) -> str:
    """sha256 over all values of all rows in their order, the same for every way of cutting them into tables."""
    digest = hashlib.sha256()
    for table in tables:
        for row in table.to_pylist():
            digest.update(json.dumps(row, sort_keys=True, default=_bytes_digest).encode())
            digest.update(b"\n")
    return digest.hexdigest()


def file_digests(files: Iterable[Path]) -> dict[str, str]:
    """Digest of the rows of every split, from its Parquet files ("train-00000-of-00001.parquet") in their order."""
    splits: dict[str, list[Path]] = {}
    for path in sorted(files):
        splits.setdefault(path.name.partition("-")[0], []).append(path)
    return {split: rows_digest(_row_groups(paths)) for split, paths in splits.items()}


def differences(
    repo: str, revision: str, expected: Mapping[str, str], token: str | None = None, form: DatasetForm = TRIPLETS
) -> list[str]:
    """What a reader of the Hub would find different from ``expected`` (split -> digest of its rows): nothing, at best.

    Reads all rows of ``repo``, a dataset of this ``form``, at ``revision`` with ``datasets.load_dataset``, once into a
    temporary folder and once streaming.
    """
    from datasets.exceptions import DatasetsError

    found = []
    for streaming in (False, True):
        way = "streaming" if streaming else "downloaded"
        try:
            found += [
                f"{way}: {difference}" for difference in _read_back(repo, revision, expected, token, streaming, form)
            ]
        except (DatasetsError, pa.ArrowException) as error:
            found.append(f"{way}: cannot be read ({type(error).__name__}: {error})")
    return found


def _read_back(
    repo: str, revision: str, expected: Mapping[str, str], token: str | None, streaming: bool, form: DatasetForm
) -> Iterator[str]:
    from datasets import DownloadConfig, Features, load_dataset

    with TemporaryDirectory(prefix="talking-points-") as cache:
        download = DownloadConfig(cache_dir=Path(cache) / "downloads", token=token)
        options: dict[str, Any] = {} if streaming else {"cache_dir": cache, "download_config": download}
        dataset = load_dataset(repo, revision=revision, streaming=streaming, token=token, **options)
        if set(dataset) != set(expected):
            yield f"expected the splits {sorted(expected)}, found {sorted(dataset)}"
        for split in sorted(set(dataset) & set(expected)):
            if dataset[split].features not in map(Features.from_arrow_schema, form.schemas):
                yield f"the features of split '{split}' are not those of the schema"
            rows = dataset[split].with_format("arrow").iter(batch_size=_BATCH)
            if rows_digest(rows) != expected[split]:
                yield f"the rows of split '{split}' differ from those that were built"


def _row_groups(paths: Iterable[Path]) -> Iterator[pa.Table]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)


def _bytes_digest(value: object) -> str:
    if not isinstance(value, bytes):
        raise TypeError(f"no column of the dataset holds {type(value).__name__}")
    return hashlib.sha256(value).hexdigest()
