"""The last stage of every build: what is written beside the dataset that is there takes its place when complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from tasks.running.claims import Attempt
from tasks.running.manifests import Manifest, rejected_path
from tasks.running.shards import REJECTED_SCHEMA, ShardFailed
from tasks.running.stages import WORK
from tasks.running.storage import Storage

STAGING = f"{WORK}/assembled"


def begin_staging(attempt: Attempt) -> str:
    """The folder in which an attempt at a dataset writes it; those of attempts before it are removed.

    Every attempt has one of its own: a writer that was paused and wakes up puts nothing beside what its successor
    publishes.
    """
    attempt.check()
    parent, _, stem = STAGING.rpartition("/")
    for name in attempt.storage.names(parent):
        if name == stem or name.startswith(f"{stem}-"):
            attempt.storage.remove(f"{parent}/{name}")
    return f"{STAGING}{attempt.ending}"


def write_rejected(
    storage: Storage, staging: str, inputs: Sequence[Manifest], stage: str, own: list[dict[str, str]]
) -> dict[str, int]:
    """Stage one file of rejected rows per stage that rejected any; returns the counts by stage.

    ``own``: those of ``stage`` itself, which writes the dataset.
    """
    paths: dict[str, list[str]] = {}
    for manifest in inputs:
        path = rejected_path(manifest)
        if path:
            paths.setdefault(manifest["stage"], []).append(path)
    tables = {name: [storage.read_table(path) for path in names] for name, names in paths.items()}
    if own:
        tables[stage] = [pa.Table.from_pylist(own, schema=REJECTED_SCHEMA)]
    counts = {}
    for name, parts in tables.items():
        table = pa.concat_tables(parts).cast(REJECTED_SCHEMA)
        storage.write_table(
            f"{staging}/rejected/{name}.parquet", table.sort_by([("source", "ascending"), ("id", "ascending")])
        )
        counts[name] = table.num_rows
    return counts


def count_stages(inputs: Sequence[Manifest], order: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Shards, rows and rejected rows of every stage, in the order given."""
    stages: dict[str, dict[str, Any]] = {}
    for manifest in sorted(inputs, key=lambda manifest: order.index(manifest["stage"])):
        nothing: dict[str, Any] = {"shards": 0, "rows_out": 0, "rejected": Counter(), "rounds": Counter()}
        stage = stages.setdefault(manifest["stage"], nothing)
        stage["shards"] += 1
        stage["rows_out"] += manifest["rows"]
        stage["rejected"].update(manifest["rejected"])
        stage["rounds"].update(manifest["details"].get("rounds", {}))
    for stage in stages.values():
        stage["rejected"] = dict(sorted(stage["rejected"].items()))
        stage["rounds"] = dict(sorted(stage["rounds"].items()))
        stage["rows_in"] = stage["rows_out"] + sum(stage["rejected"].values())
    return stages


def publish_staged(
    storage: Storage,
    written: Mapping[str, str | None],
    staging: str = STAGING,
    check: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Put the staged files where the dataset is; returns their digests by name.

    ``written`` has the files that were staged, with their digests where these are known. Raises ``ShardFailed`` when
    others are there, or what takes its place is not what was staged: somebody else writes to the same output. ``check``
    is called before every step, and raises where the output is somebody else's by now.
    """
    prefix = storage.path(staging)
    names = {name[len(prefix) + 1 :] for name in storage.fs.find(prefix)}
    if names != set(written):
        raise ShardFailed(
            _explain_disturbance(storage, f"{min(names ^ set(written))} came or went while the dataset was written")
        )
    digests = {name: storage.sha256(f"{staging}/{name}") for name in sorted(names)}
    changed = [name for name, digest in written.items() if digest not in (None, digests[name])]
    if changed:
        raise ShardFailed(_explain_disturbance(storage, f"{changed[0]} is not the file that was written"))
    # The manifest goes first and comes last: a dataset without one is not complete.
    check()
    storage.remove("manifest.json")
    for name in ("data", "rejected", "figures", "README.md", "manifest.json"):
        check()
        if any(staged == name or staged.startswith(f"{name}/") for staged in names):
            storage.move(f"{staging}/{name}", name)
        else:
            storage.remove(name)
    storage.remove(staging)
    for name, digest in digests.items():
        if not storage.exists(name) or storage.sha256(name) != digest:
            raise ShardFailed(_explain_disturbance(storage, f"{name} is not the file that was written"))
    return digests


def _explain_disturbance(storage: Storage, what: str) -> str:
    return (
        f"{what}: another build, perhaps on another machine, seems to write to {storage.root}; let one of them finish, "
        "then run the build again"
    )
