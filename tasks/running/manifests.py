"""What a shard task returns: a small manifest, sealed, and how a true one is told from anything else.

A manifest may come from a folder that somebody else made, or from a bucket that others write to. Nothing in it is
believed before it was judged: that it is plain JSON of the expected form, that its seal fits, that it names files
inside the output and that these still have the recorded content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from talking_points.config import fingerprint
from tasks.running.storage import Storage


@with_config(ConfigDict(strict=True, extra="allow"))
class Details(TypedDict, total=False):
    """What only some stages have to say. ``shards`` are the parts that a single task cut for the stages after it.

    Of pieces: rows of each side by shard, words of descriptions, the name that a file is published under, row groups by
    the part of the sample that they hold, and the file that lists reserves where there are too many for a manifest.
    """

    shards: list[Manifest]
    skipped: dict[str, int]
    examples: dict[str, list[str]]
    rounds: dict[str, int]
    rejected: dict[str, int]
    requests: int
    tokens_in: int
    tokens_out: int
    shares: dict[str, int]
    reserves: dict[str, list[str]]
    composed: list[str]
    reserved: str
    train: list[int]
    test: list[int]
    lengths: dict[str, int]
    published: str
    buckets: list[int]


@with_config(ConfigDict(strict=True, extra="allow"))
class Manifest(TypedDict):
    """What a shard task returns: enough to check the shard and to go on, never its rows.

    ``files`` maps each written file to its sha256; ``path`` is the one with the rows. ``seal`` is a digest of all
    other fields: a damaged record is told from a true one.
    """

    stage: str
    shard: int
    path: str
    rows: int
    rejected: dict[str, int]
    files: dict[str, str]
    seconds: float
    details: Details
    seal: NotRequired[str]


_MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def add_seal(manifest: Manifest) -> Manifest:
    """The manifest with its seal; what a shard task returns."""
    manifest["seal"] = _compute_seal(manifest)
    return manifest


def read_manifest(text: str | bytes) -> Manifest:
    """The sealed manifest in a JSON text. Raises ``ValueError`` for everything else, and makes no object but these.

    Values of further keys (records of earlier versions have some) are plain JSON like the rest.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        manifest = _MANIFEST.validate_python(value)
        names = [manifest["path"], *manifest["files"]]
        for part in manifest["details"].get("shards", []):
            names += [part["path"], *part["files"]]
        if not all(is_inside(name) for name in names):
            raise ValueError("a manifest that names a file outside the output")
        if manifest.get("seal") != _compute_seal(manifest):
            raise ValueError("a manifest whose seal does not fit")
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply for a manifest") from error
    return manifest


def holds(storage: Storage, manifest: Any) -> bool:
    """Whether a kept result is an undamaged manifest and every file it names still has the recorded content."""
    if not isinstance(manifest, dict) or "seal" not in manifest or manifest["seal"] != _compute_seal(manifest):
        return False
    try:
        return all(storage.sha256(name) == digest for name, digest in manifest["files"].items())
    except OSError:
        return False


def is_inside(name: str) -> bool:
    """Whether ``name`` is a relative path that stays below the folder it is relative to."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def rejected_path(manifest: Manifest) -> str | None:
    """The file with the rejected rows of a shard, if it has any."""
    return next((name for name in manifest["files"] if name.endswith(".rejected.parquet")), None)


def _compute_seal(manifest: Mapping[str, Any]) -> str:
    return fingerprint({key: value for key, value in manifest.items() if key != "seal"})


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
