"""Where Prefect keeps the results of shards, and what it is given of them: our JSON form and nothing else.

Prefect lets a result record say itself how it is to be read, by pickle or by any function that can be imported: a
record that somebody else wrote would run their code. So shards are tasks whose results go through ``ResultRecords``,
whatever starts the build: the raw record is judged, and what Prefect gets is written anew from what was judged.
A record that is refused counts as none, and its shard is made again.

Records lie where Prefect's settings say: ``PREFECT_RESULTS_LOCAL_STORAGE_PATH``, or the block of
``PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK``.
"""

from __future__ import annotations

import json
import os
import stat
from copy import copy
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.filesystems import LocalFileSystem, RemoteFileSystem, WritableFileSystem
from prefect.results import get_default_result_storage
from prefect.serializers import JSONSerializer

from talking_points.whole_files import writing_whole
from tasks.running.manifests import Manifest, read_manifest

LIMIT = 64 * 2**20
"""Bytes of the largest record that is read; that of a hundred thousand shards is smaller."""

SERIALIZER: JSONSerializer[Any] = JSONSerializer(object_decoder=None)
"""Reads plain JSON: no object is made of what it says."""

_AS_IT_IS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))

_WRITTEN = ("prefect.serializers.prefect_json_object_decoder", None)
"""The decoders that records of ours name; the first one, of earlier versions, is not used any more."""


class RefusedRecord(ValueError):
    """Not a result record that a shard of ours left."""


class ResultRecords(WritableFileSystem):
    """The default result storage of the run, behind a judge.

    It has no place of its own, and is looked up where it is used: in the process that makes the shard.
    """

    _block_type_name = "Result records of shards"
    _block_type_slug = "talking-points-result-records"

    def _resolve_path(self, path: str) -> None:
        """Nothing: a record is known by its key, wherever the records lie."""

    def read_path(self, path: str, **_: Any) -> bytes:  # type: ignore[override]  # Prefect calls it with _sync=True
        """The record under a key. Raises ``RefusedRecord``, or what the storage raises."""
        return judge_record(_read(_default_storage(), path))

    def write_path(self, path: str, content: bytes, **_: Any) -> None:  # type: ignore[override]
        """Keep a record under its key, whole."""
        storage = _default_storage()
        if isinstance(storage, LocalFileSystem):
            with writing_whole(_place(storage, path)) as temporary:
                temporary.write_bytes(content)
        else:
            storage.write_path(path, content=content, _sync=True)


class ShardTask(Task[..., Any]):
    """A task whose results are read and written by ``ResultRecords``.

    Prefect wants blocks that are saved on a server; this one holds nothing that could be saved.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"result_storage": None, "result_serializer": SERIALIZER})
        self.result_storage = ResultRecords()

    def anew(self) -> ShardTask:
        """The task, which makes a shard whose result is there already."""
        again = copy(self)
        again.refresh_cache = True
        return again


def find_manifest(key: str) -> Manifest | None:
    """What is kept under a key, or None: where nothing is, where it was refused, where it cannot be read."""
    try:
        return read_record(_read(_default_storage(), key))
    except Exception:
        return None


def read_record(content: bytes) -> Manifest:
    """The sealed manifest in a record of ours. Raises ``RefusedRecord`` for all else."""
    if len(content) > LIMIT:
        raise RefusedRecord(f"a record of more than {LIMIT} bytes")
    try:
        record = json.loads(content)
        metadata, result = record["metadata"], record["result"]
        wanted = SERIALIZER.model_dump(mode="json")
        if not any(metadata["serializer"] == wanted | {"object_decoder": decoder} for decoder in _WRITTEN):
            raise ValueError("its serializer is not that of plain JSON")
        if metadata["expiration"] is not None or not isinstance(result, str):
            raise ValueError("it is a record of another kind")
        return read_manifest(result)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RefusedRecord(f"not the record of a shard: {error}") from error


def judge_record(content: bytes) -> bytes:
    """The record with what was found in it, written anew. Raises ``RefusedRecord`` for all but a sealed manifest."""
    metadata = {"serializer": SERIALIZER.model_dump(mode="json")}
    return json.dumps({"metadata": metadata, "result": json.dumps(read_record(content))}).encode()


def _default_storage() -> Any:
    return get_default_result_storage(_sync=True)  # type: ignore[call-arg]  # not as a coroutine


def _read(storage: Any, key: str) -> bytes:
    """At most one byte more than ``LIMIT`` of a record."""
    if isinstance(storage, LocalFileSystem):
        # Neither a link nor a pipe that lies in the place of a record is followed or waited for.
        with os.fdopen(os.open(_place(storage, key), os.O_RDONLY | _AS_IT_IS), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise RefusedRecord(f"{key} is not a file")
            return stream.read(LIMIT + 1)
    if isinstance(storage, RemoteFileSystem):
        address = f"{storage.basepath.rstrip('/')}/{_check_key(key)}"
        return bytes(storage.filesystem.cat_file(address, start=0, end=LIMIT + 1))
    return bytes(storage.read_path(_check_key(key), _sync=True))


def _place(storage: LocalFileSystem, key: str) -> Path:
    return Path(storage.basepath or ".").expanduser() / _check_key(key)


def _check_key(key: str) -> str:
    """A key, which is made of a stage, a number and a digest. Raises ``RefusedRecord`` for a path."""
    if not key.replace("_", "").replace("-", "").isalnum():
        raise RefusedRecord(f"not the key of a record: {key!r}")
    return key
