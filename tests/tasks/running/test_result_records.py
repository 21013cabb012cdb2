"""A result record runs no code: what does not have the form of ours is not read, and what has it is plain JSON.

Promise kept: who can write to the results of a build (a folder from somebody else, a shared bucket) can at most make
it begin anew.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.filesystems import RemoteFileSystem
from prefect.results import ResultRecord  # type: ignore[attr-defined]  # exported without saying so
from prefect.settings import PREFECT_RESULTS_LOCAL_STORAGE_PATH, temporary_settings

from tasks.running import kept_records, prefect_tasks
from tasks.running.kept_records import RefusedRecord, judge_record
from tasks.running.manifests import Manifest, add_seal
from tasks.running.prefect_tasks import ResultRecords, find_manifest

KEY = "object_caption-00000-0123456789abcdef"


class Planted:
    """Unpickled, it leaves a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


def manifest(**changes: Any) -> dict[str, Any]:
    """A sealed manifest with changes."""
    plain = {
        "stage": "object_caption", "shard": 0, "path": ".work/a", "rows": 1, "rejected": {}, "files": {".work/a": "0"},
        "seconds": 1.5, "details": {"rounds": {"1": 1}},
    }  # fmt: skip
    return add_seal(Manifest(**(plain | changes)))  # type: ignore[typeddict-item, return-value]


def record(result: Any = None, **metadata: Any) -> dict[str, Any]:
    """A record as Prefect writes it, with changes to its metadata."""
    plain = {
        "storage_key": KEY,
        "expiration": None,
        "serializer": prefect_tasks.SERIALIZER.model_dump(mode="json"),
        "prefect_version": "3.9.1",
        "storage_block_id": None,
    }
    return {"metadata": plain | metadata, "result": json.dumps(manifest()) if result is None else result}


def serializer(**changes: Any) -> dict[str, Any]:
    return prefect_tasks.SERIALIZER.model_dump(mode="json") | changes


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[ResultRecords]:
    with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: tmp_path / "results"}):
        yield ResultRecords()


def test_a_record_of_ours_is_read_as_plain_json() -> None:
    for decoder in (None, "prefect.serializers.prefect_json_object_decoder"):
        read = judge_record(json.dumps(record(serializer=serializer(object_decoder=decoder))).encode(), KEY)
        assert ResultRecord.deserialize(read).result == manifest()
        assert json.loads(read)["metadata"]["serializer"]["object_decoder"] is None


def test_what_is_no_record_of_ours_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    pickled = base64.encodebytes(pickle.dumps(Planted(marker))).decode()
    deep = "[" * 100_000 + "]" * 100_000
    hostile: dict[str, Any] = {
        "pickle": record(pickled, serializer={"type": "pickle", "picklelib": "pickle"}),
        "a module to import": record(pickled, serializer={"type": "pickle", "picklelib": "antigravity"}),
        "compressed pickle": record(pickled, serializer={"type": "compressed/pickle"}),
        "a decoder": record(serializer=serializer(object_decoder="os.system")),
        "a library": record(serializer=serializer(jsonlib="pickle")),
        "options": record(serializer=serializer(loads_kwargs={"parse_float": "os.system"})),
        "pickle as the result": record(pickled),
        "no serializer": record(serializer=None),
        "expired": record(expiration="2001-01-01T00:00:00Z"),
        "the older form": {"serializer": {"type": "pickle"}, "data": pickled},
        "an object as the result": record(manifest()),
        "a class": record(json.dumps({"__class__": "pathlib.Path", "data": "/"})),
        "an exception": record(json.dumps({"__exc_type__": "SystemExit", "message": ""})),
        "another value": record("null"),
        "no seal": record(json.dumps({k: v for k, v in manifest().items() if k != "seal"})),
        "another seal": record(json.dumps(manifest() | {"rows": 2})),
        "a path outside": record(json.dumps(manifest(path="../a"))),
        "a file outside": record(json.dumps(manifest(files={"/etc/passwd": "0"}))),
        "a part outside": record(json.dumps(manifest(details={"shards": [manifest(path="/a")]}))),
        "text for a number": record(json.dumps(manifest(rows="1"))),
        "deep": deep,
        "deep inside": record(deep),
        "deep details": record(json.dumps(manifest()).replace('{"1": 1}', deep)),
        "a long number": record(json.dumps(manifest()).replace("1.5", "9" * 10_000)),
        "not a number": record(json.dumps(manifest()).replace("1.5", "NaN")),
        "of another stage": record(json.dumps(manifest(stage="refine"))),
        "of another shard": record(json.dumps(manifest(shard=1))),
        "nothing": "",
        "a list": [record()],
    }
    for name, value in hostile.items():
        content = value if isinstance(value, str) else json.dumps(value)
        with pytest.raises(RefusedRecord):
            pytest.fail(f"accepted: {name}: {judge_record(content.encode(), KEY)!r}")
    with pytest.raises(RefusedRecord):
        judge_record(pickle.dumps(Planted(marker)), KEY)
    assert not marker.exists()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["metadata", "result", "serializer", "type", "__class__", "data", "details"]), inner
            )
        ),
    ),
    st.binary(),
)
def test_any_json_and_any_bytes_are_refused(value: Any, content: bytes) -> None:
    for given_content in (json.dumps(value).encode(), json.dumps(record(json.dumps(value))).encode(), content):
        with pytest.raises(RefusedRecord):
            judge_record(given_content, KEY)


def test_a_class_named_inside_a_manifest_stays_text(tmp_path: Path) -> None:
    named = manifest(details={"__class__": "pathlib.Path", "data": "/"})
    read = judge_record(json.dumps(record(json.dumps(named))).encode(), KEY)
    assert ResultRecord.deserialize(read).result == named


def test_links_pipes_and_giants_in_the_place_of_a_record_are_not_read(
    storage: ResultRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.dumps(record()).encode()
    storage.write_path(KEY, content)
    place = tmp_path / "results" / KEY
    assert ResultRecord.deserialize(storage.read_path(KEY)).result == manifest()
    place.unlink()
    outside = tmp_path / "outside"
    outside.write_bytes(content)
    place.symlink_to(outside)
    with pytest.raises(OSError, match="symbolic link"):
        storage.read_path(KEY)
    storage.write_path(KEY, b"new")
    assert (outside.read_bytes(), place.read_bytes()) == (content, b"new"), "a link is replaced, not followed"
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(RefusedRecord, match="not a file"):
        storage.read_path(KEY)
    place.unlink()
    place.mkdir()
    with pytest.raises((RefusedRecord, OSError)):
        storage.read_path(KEY)
    place.rmdir()
    monkeypatch.setattr(kept_records, "LIMIT", 10_000)
    with place.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(RefusedRecord, match="more than"):
        storage.read_path(KEY)
    for path in ("../outside", "/etc/passwd", "a/b", ""):
        with pytest.raises(RefusedRecord, match="not the key"):
            storage.read_path(path)
        with pytest.raises(RefusedRecord, match="not the key"):
            storage.write_path(path, b"")


def test_records_in_a_bucket_are_judged_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = RemoteFileSystem(basepath="memory://records/of-a-build")
    monkeypatch.setattr(prefect_tasks, "_default_storage", lambda: bucket)
    monkeypatch.setattr(kept_records, "LIMIT", 10_000)
    storage = ResultRecords()
    storage.write_path(KEY, json.dumps(record()).encode())
    assert ResultRecord.deserialize(storage.read_path(KEY)).result == manifest() == find_manifest(KEY)
    for hostile in (b"", b"x" * 20_000, json.dumps(record(serializer={"type": "pickle"})).encode()):
        storage.write_path(KEY, hostile)
        with pytest.raises(RefusedRecord):
            storage.read_path(KEY)
        assert find_manifest(KEY) is None
    assert find_manifest(KEY.replace("0", "1")) is None
    with pytest.raises(RefusedRecord, match="not the key"):
        storage.read_path("../other-build/" + KEY)
