"""The stage contract: what a shard task gets, what it gives, and when it need not run again.

A stage is a pure function of (input shards, its settings). Its task gets one ``Order`` of plain JSON values
and returns one small manifest. The cache key is made of the stage's name and version, the settings that can
change its output, and the digests of its inputs: never of paths, run ids or source code.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NotRequired, TypedDict

import pyarrow as pa
from prefect import Task, task

from talking_points.allocator import keep_freed_memory
from talking_points.config import fingerprint
from talking_points.errors import RunError
from talking_points.redaction import protect_settings, redacted_errors
from tasks.running.storage import Storage

WORK = ".work"
"""Folder of intermediate shards inside the output; the published dataset never refers to it."""

STAGES = (
    "index",
    "candidates",
    "sample",
    "object_caption",
    "local_caption",
    "generate",
    "refine",
    "verify",
    "assemble",
)
"""In the order in which a build runs them."""

SPENT = ("requests", "tokens_in", "tokens_out")
"""What the texts of a shard took, in its manifest's details; answers from the request cache count as when paid."""

REJECTED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("image_path", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
"""A row that was left out: where, why, and the text that was refused, if any."""


class Manifest(TypedDict):
    """What a shard task returns: enough to check the shard and to go on, never its rows.

    ``files`` maps each written file to its sha256; ``path`` is the one with the rows, ``sha256`` its digest. ``seal``
    is a digest of all other fields: a damaged result record is told from a true one.
    """

    stage: str
    shard: int
    path: str
    rows: int
    rejected: dict[str, int]
    sha256: str
    fingerprint: str
    files: dict[str, str]
    seconds: float
    details: dict[str, Any]
    seal: NotRequired[str]


class Order(TypedDict):
    """Work for one task. ``settings`` can change the output; ``environment`` (paths, devices) cannot."""

    stage: str
    version: int
    shard: int
    inputs: list[Manifest]
    settings: dict[str, Any]
    environment: dict[str, Any]


class ShardFailed(RunError):
    """The shard as a whole has no trustworthy result."""


def order_key(order: Mapping[str, Any]) -> str:
    """The cache key of an order: stage, version, shard number, settings, digests of the inputs."""
    digests = [sorted(manifest["files"].values()) for manifest in order["inputs"]]
    identity = [order["stage"], order["version"], order["shard"], order["settings"], digests]
    return f"{order['stage']}-{order['shard']:05d}-{fingerprint(identity)}"


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with its seal; what a shard task returns."""
    manifest["seal"] = _seal(manifest)
    return manifest


def holds(storage: Storage, manifest: Any) -> bool:
    """Whether a kept result is an undamaged manifest and every file it names still has the recorded content."""
    if not isinstance(manifest, dict) or manifest.get("seal") != _seal(manifest):
        return False
    try:
        return all(storage.sha256(name) == digest for name, digest in manifest["files"].items())
    except OSError:
        return False


def _seal(manifest: Mapping[str, Any]) -> str:
    return fingerprint({key: value for key, value in manifest.items() if key != "seal"})


def shard_task(stage: str) -> Callable[[Callable[[Order], Manifest]], Task[[Order], Manifest]]:
    """Decorator: a Prefect task named ``stage`` whose sealed manifest is kept under the order's key."""
    as_task = task(
        name=stage,
        task_run_name=f"{stage}-" + "{order[shard]}",
        cache_key_fn=_key_of_run,
        persist_result=True,
        result_serializer="json",
        cache_result_in_memory=False,
        retries=0,
    )

    def decorate(run: Callable[[Order], Manifest]) -> Task[[Order], Manifest]:
        @wraps(run)
        @redacted_errors
        def run_and_seal(order: Order) -> Manifest:
            keep_freed_memory()
            protect_settings(order["environment"])
            return sealed(run(order))

        return as_task(run_and_seal)

    return decorate


def _key_of_run(_context: Any, parameters: dict[str, Any]) -> str:
    return order_key(parameters["order"])


@dataclass
class ShardWriter:
    """Collects the rows and the rejected rows of one shard and commits both, with a manifest."""

    order: Order
    storage: Storage
    folder: str = ""
    rejected: list[dict[str, str]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def reject(self, row: Mapping[str, Any], reason: str, detail: str = "", text: str = "") -> None:
        """Quarantine one row; it goes no further, and the reason is kept with it."""
        self.rejected.append(
            {
                "id": str(row.get("id", "")),
                "source": str(row.get("source", "")),
                "image_path": str(row.get("image_path", "")),
                "stage": self.order["stage"],
                "reason": reason,
                "detail": detail,
                "text": text,
            }
        )

    def commit(self, table: pa.Table, details: Mapping[str, Any] | None = None) -> Manifest:
        """Write the shard (and its rejected rows, if any) and return its manifest."""
        stem = f"{WORK}/{self.folder or self.order['stage']}/{self.order['shard']:05d}"
        names = {f"{stem}.parquet": table}
        if self.rejected:
            names[f"{stem}.rejected.parquet"] = pa.Table.from_pylist(self.rejected, schema=REJECTED_SCHEMA)
        for name, content in names.items():
            self.storage.write_table(name, content)
        files = {name: self.storage.sha256(name) for name in names}
        path = f"{stem}.parquet"
        return Manifest(
            stage=self.order["stage"],
            shard=self.order["shard"],
            path=path,
            rows=table.num_rows,
            rejected=dict(sorted(Counter(row["reason"] for row in self.rejected).items())),
            sha256=files[path],
            fingerprint=order_key(self.order),
            files=files,
            seconds=round(time.perf_counter() - self.started, 3),
            details=dict(details or {}),
        )


def write_part(storage: Storage, stage: str, number: int, name: str, table: pa.Table) -> Manifest:
    """Write one of several shards that a single task cuts, and return the manifest later stages get as input."""
    storage.write_table(name, table)
    sha256 = storage.sha256(name)
    return Manifest(
        stage=stage,
        shard=number,
        path=name,
        rows=table.num_rows,
        rejected={},
        sha256=sha256,
        fingerprint=sha256[:16],
        files={name: sha256},
        seconds=0.0,
        details={},
    )


def commit_parts(writer: ShardWriter, parts: list[Manifest], details: Mapping[str, Any] | None = None) -> Manifest:
    """The manifest of a task that cut ``parts``: it holds as long as every one of them does."""
    manifest = writer.commit(pa.table({"path": pa.array([part["path"] for part in parts], pa.string())}), details)
    manifest["rows"] = sum(part["rows"] for part in parts)
    manifest["details"]["shards"] = parts
    for part in parts:
        manifest["files"].update(part["files"])
    return manifest


def rejected_path(manifest: Manifest) -> str | None:
    """The file with the rejected rows of a shard, if it has any."""
    return next((name for name in manifest["files"] if name.endswith(".rejected.parquet")), None)
