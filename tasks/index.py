"""Stage 0: list a source, once, into shards of entries.

The listing is cached as long as no file below the source's root changed its name, size or time. Its shards
carry the sha256 of every file an entry depends on, so the stages after it depend on content alone.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field, JsonValue

from talking_points.config import Section
from talking_points.image_files import FILE_BYTES
from talking_points.records import stable_id
from talking_points.sources import open_source
from talking_points.sources.protocol import Source, SourceEntry
from talking_points.stop_requests import stop_if_requested
from talking_points.whole_files import file_sha256
from tasks.running.manifests import Details, Manifest
from tasks.running.shards import Inputs, Order, ShardWriter, commit_parts, shard_task, write_part

VERSION = 1

ENTRY_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_path", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("files", pa.list_(pa.string()), nullable=False),
        pa.field("annotation", pa.string(), nullable=False),
        pa.field("sha256", pa.list_(pa.string()), nullable=False),
    ]
)
"""One listed image; ``sha256`` has one digest per name in ``files``, the image first."""


def tree_digest(*folders: str | Path) -> str:
    """Digest of the names, sizes and modification times of all files below the folders (or of the files named).

    Links are followed, as the readers follow them: a linked file counts with the size and time of its target.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in _files(Path(folder)):
            try:
                status = path.stat()
            except OSError:  # a link that leads nowhere
                status = path.lstat()
            digest.update(
                f"{path.relative_to(folder).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(
                    errors="surrogateescape"
                )
            )
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, or the file itself, in a fixed order.

    A link to a folder that was walked before is yielded in place of the files below it: links may go in circles.
    """
    if folder.is_file():
        yield folder
    walked = set()
    for parent, directories, names in os.walk(folder, followlinks=True):
        walked.add(os.path.realpath(parent))
        directories.sort()
        again = [name for name in directories if os.path.realpath(Path(parent, name)) in walked]
        directories[:] = [name for name in directories if name not in again]
        yield from (Path(parent, name) for name in sorted([*names, *again]))


class Settings(Section):
    """What can change the listing. ``images`` are listed in a preview; ``tree`` is the digest of the source's files.

    ``options`` are the reader's, without those that name files.
    """

    source: str
    split: str | None
    seed: int
    shard_size: int
    images: int | None
    tree: str
    options: dict[str, JsonValue] = Field(
        default_factory=dict,
        exclude_if=lambda options: not options,  # keys of before it counted stay
    )


def run_index(order: Order[Settings, Inputs]) -> Manifest:
    """List one source. ``details["shards"]`` holds one manifest per shard of entries."""
    settings = order.settings
    place = order.environment.sources[settings.source]
    source = open_source(settings.source, place.root, split=settings.split, **place.options)
    writer = ShardWriter(order, folder=f"index/{source.name}")
    entries = source.entries() if settings.images is None else _preview(source, settings.images, settings.seed)
    # A whole source streams through: only one shard of entries is in memory at a time.
    shards = [
        _write(writer, source, batch, number) for number, batch in enumerate(_batches(entries, settings.shard_size))
    ]
    return commit_parts(writer, shards, Details(skipped=dict(source.skipped), examples=source.skipped_details))


def _preview(source: Source, images: int, seed: int) -> list[SourceEntry]:
    """The ``images`` entries with the smallest seeded hash: a sample that does not depend on any order."""
    chosen = heapq.nsmallest(images, source.entries(), key=lambda entry: stable_id(seed, source.name, entry.image_id))
    return sorted(chosen, key=lambda entry: entry.image_id)


def _batches(entries: Iterable[SourceEntry], size: int) -> Iterator[list[SourceEntry]]:
    iterator = iter(entries)
    while batch := list(itertools.islice(iterator, size)):
        stop_if_requested()
        yield batch


def _write(writer: ShardWriter, source: Source, entries: list[SourceEntry], number: int) -> Manifest:
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(lambda entry: [_sha256(source.root / name) for name in entry.files], entries))
    rows = [
        {
            "image_id": entry.image_id,
            "image_path": entry.image_path,
            "split": entry.split,
            "files": list(entry.files),
            "annotation": json.dumps(entry.annotation, sort_keys=True),
            "sha256": sha256,
        }
        for entry, sha256 in zip(entries, digests, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=ENTRY_SCHEMA)
    return write_part(writer, f"index/{source.name}", number, "entries.parquet", table)


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path, FILE_BYTES)
    except OSError:
        return ""


def read_entries(table: pa.Table) -> list[tuple[SourceEntry, list[str]]]:
    """The entries of a shard, each with the sha256 of its files, the image first."""
    return [(_entry(row), row["sha256"]) for row in table.to_pylist()]


def _entry(row: dict[str, Any]) -> SourceEntry:
    return SourceEntry(
        image_id=row["image_id"],
        image_path=row["image_path"],
        split=row["split"],
        files=tuple(row["files"]),
        annotation=json.loads(row["annotation"]),
    )


index = shard_task("index")(run_index)
