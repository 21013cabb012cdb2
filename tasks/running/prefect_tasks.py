"""Where Prefect keeps the results of shards, and the tasks whose results go there, behind a judge.

Whatever starts the build, the raw record is judged (``kept_records``), and what Prefect gets is written anew from what
was judged. Records lie where Prefect's settings say: ``PREFECT_RESULTS_LOCAL_STORAGE_PATH``, or the block of
``PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK``.
"""

from __future__ import annotations

import json
import time
from copy import copy
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.filesystems import LocalFileSystem, RemoteFileSystem, WritableFileSystem
from prefect.results import get_default_result_storage
from prefect.serializers import JSONSerializer
from prefect.settings import get_current_settings

from talking_points.whole_files import writing_whole
from tasks.running import kept_records
from tasks.running.kept_records import check_key, judge_record, read_file, read_record
from tasks.running.manifests import Manifest

SERIALIZER: JSONSerializer[Any] = JSONSerializer(object_decoder=None)
"""Reads plain JSON: no object is made of what it says."""


_KEPT = 30.0
"""Seconds for which the place of the records is known: Prefect asks its server for it, every time."""
_storages: dict[tuple[str, str, str], tuple[float, Any]] = {}


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
        return judge_record(_read(_default_storage(), path), path)

    def write_path(self, path: str, content: bytes, **_: Any) -> None:  # type: ignore[override]
        """Keep a record under its key, whole."""
        storage = _default_storage()
        if isinstance(storage, LocalFileSystem):
            with writing_whole(_folder(storage) / check_key(path)) as temporary:
                temporary.write_bytes(content)
        else:
            storage.write_path(path, content=content, _sync=True)


class PrefectTask(Task[..., Any]):
    """A task whose results are read and written by ``ResultRecords``.

    Prefect wants blocks that are saved on a server; this one holds nothing that could be saved.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"result_storage": None, "result_serializer": SERIALIZER})
        self.result_storage = ResultRecords()

    def anew(self) -> PrefectTask:
        """The task, which makes a shard whose result is there already."""
        again = copy(self)
        again.refresh_cache = True
        return again


def find_manifest(key: str) -> Manifest | None:
    """What is kept under a key, or None: where nothing is, where it was refused, where it cannot be read."""
    try:
        return read_record(_read(_default_storage(), key), key)
    except Exception:
        return None


def keep_manifest(key: str, manifest: Manifest) -> None:
    """Keep a sealed manifest under its order's key, as Prefect keeps the result of a task."""
    metadata = {"serializer": kept_records.SERIALIZER, "expiration": None}
    ResultRecords().write_path(key, json.dumps({"metadata": metadata, "result": json.dumps(manifest)}).encode())


def records_folder() -> Path | None:
    """The folder of the records; None where a block keeps them elsewhere."""
    storage = _default_storage()
    return _folder(storage) if isinstance(storage, LocalFileSystem) else None


def _default_storage() -> Any:
    settings = get_current_settings()
    key = (
        str(settings.results.default_storage_block),
        str(settings.results.local_storage_path),
        str(settings.api.url),
    )
    when, storage = _storages.get(key, (0.0, None))
    if storage is None or time.monotonic() - when > _KEPT:
        storage = get_default_result_storage(_sync=True)  # type: ignore[call-arg]  # not as a coroutine
        _storages[key] = (time.monotonic(), storage)
    return storage


def _read(storage: Any, key: str) -> bytes:
    """At most one byte more than ``LIMIT`` of a record."""
    if isinstance(storage, LocalFileSystem):
        return read_file(_folder(storage), key)
    if isinstance(storage, RemoteFileSystem):
        address = f"{storage.basepath.rstrip('/')}/{check_key(key)}"
        return bytes(storage.filesystem.cat_file(address, start=0, end=kept_records.LIMIT + 1))
    return bytes(storage.read_path(check_key(key), _sync=True))


def _folder(storage: LocalFileSystem) -> Path:
    return Path(storage.basepath or ".").expanduser()
