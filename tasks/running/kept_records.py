"""What a kept result record of a shard is: our JSON form and nothing else. Knows no Prefect.

Prefect lets a result record say itself how it is to be read, by pickle or by any function that can be imported: a
record that somebody else wrote would run their code. So the raw record is judged before anybody reads it. A record that
is refused counts as none, and its shard is made again.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from tasks.running.manifests import Manifest, read_manifest

LIMIT = 64 * 2**20
"""Bytes of the largest record that is read; that of a hundred thousand shards is smaller."""

SERIALIZER: dict[str, Any] = {
    "type": "json",
    "jsonlib": "json",
    "object_encoder": "prefect.serializers.prefect_json_object_encoder",
    "object_decoder": None,
    "dumps_kwargs": {},
    "loads_kwargs": {},
}
"""What a record of ours says of its serializer: plain JSON, of which no object is made."""

_AS_IT_IS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))

_DECODERS = ("prefect.serializers.prefect_json_object_decoder", None)
"""The decoders that records of ours name; the first one, of earlier versions, is not used any more."""


class RefusedRecord(ValueError):
    """Not a result record that a shard of ours left."""


def find_kept(folder: Path, key: str) -> Manifest | None:
    """What is kept under a key in a folder, or None: where nothing is, where it was refused, where it cannot be read.

    Not yet judged: whether the files that it names are still what they were.
    """
    try:
        return read_record(read_file(folder, key), key)
    except (OSError, ValueError):
        return None


def read_record(content: bytes, key: str) -> Manifest:
    """The sealed manifest in a record of ours under its own key. Raises ``RefusedRecord`` for all else.

    A record that was moved to the key of another shard would give that one's rows twice.
    """
    if len(content) > LIMIT:
        raise RefusedRecord(f"a record of more than {LIMIT} bytes")
    try:
        record = json.loads(content)
        metadata, result = record["metadata"], record["result"]
        if not any(metadata["serializer"] == SERIALIZER | {"object_decoder": decoder} for decoder in _DECODERS):
            raise ValueError("its serializer is not that of plain JSON")
        if metadata["expiration"] is not None or not isinstance(result, str):
            raise ValueError("it is a record of another kind")
        manifest = read_manifest(result)
        if not key.startswith(f"{manifest['stage']}-{manifest['shard']:05d}-"):
            raise ValueError("it is the record of another shard")
        return manifest
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RefusedRecord(f"not the record of a shard: {error}") from error


def judge_record(content: bytes, key: str) -> bytes:
    """The record with what was found in it, written anew. Raises ``RefusedRecord`` for all but a sealed manifest."""
    metadata = {"serializer": SERIALIZER}
    return json.dumps({"metadata": metadata, "result": json.dumps(read_record(content, key))}).encode()


def read_file(folder: Path, key: str) -> bytes:
    """At most one byte more than ``LIMIT`` of the record in a folder. Raises ``OSError`` or ``RefusedRecord``.

    Neither a link nor a pipe that lies in the place of a record is followed or waited for.
    """
    with os.fdopen(os.open(folder / check_key(key), os.O_RDONLY | _AS_IT_IS), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise RefusedRecord(f"{key} is not a file")
        return stream.read(LIMIT + 1)


def check_key(key: str) -> str:
    """A key, which is made of a stage, a number and a digest. Raises ``RefusedRecord`` for a path."""
    if not key.replace("_", "").replace("-", "").isalnum():
        raise RefusedRecord(f"not the key of a record: {key!r}")
    return key
