from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from talking_points.config import Section
from tasks.running.manifests import Manifest, add_seal, holds, rejected_path
from tasks.running.shards import (
    AnyOrder,
    Environment,
    Inputs,
    Order,
    Place,
    ShardWriter,
    commit_parts,
    order_key,
    write_part,
)
from tasks.running.storage import Storage


class Settings(Section):
    seed: int = 0


@dataclass(frozen=True)
class Rows(Inputs):
    sample: Manifest
    texts: tuple[Manifest, ...] = ()


def environment(output: str | Path = "/somewhere", **sources: str) -> Environment:
    places = {name: Place(root=root, options={}) for name, root in sources.items()}
    return Environment(output=str(output), sources=places, cache="", max_rejected_share=1)


def order(**changes: Any) -> AnyOrder:
    plain = Order("refine", 1, 3, "refine 4/4", Inputs(), Settings(), environment())
    return replace(plain, **changes)


def manifest(digest: str) -> Manifest:
    return Manifest(
        stage="sample", shard=0, path="p", rows=1, rejected={}, files={"p": digest},
        seconds=0.0, details={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"environment": environment("/elsewhere", partimagenet="/data"), "title": "refine 4/5"}, True),
        ({"settings": Settings(seed=1)}, False),
        ({"version": 2}, False),
        ({"shard": 4}, False),
        ({"stage": "verify"}, False),
        ({"inputs": Rows(manifest("x"))}, False),
    ],
)
def test_the_key_follows_what_can_change_the_output(changes: dict[str, Any], same: bool) -> None:
    assert (order_key(order(**changes)) == order_key(order())) is same


def test_the_key_follows_the_content_of_the_inputs_not_their_place() -> None:
    here, there = manifest("x"), manifest("x") | {"path": "q", "files": {"q": "x"}, "seconds": 9.0}
    assert order_key(order(inputs=Rows(here))) == order_key(order(inputs=Rows(there)))
    assert order_key(order(inputs=Rows(here))) != order_key(order(inputs=Rows(manifest("y"))))
    assert order_key(order(inputs=Rows(here))) != order_key(order(inputs=Rows(here, (here,))))


def test_a_manifest_holds_until_a_byte_changes(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    writer = ShardWriter(order(environment=environment(tmp_path)))
    writer.reject({"id": "b", "source": "s", "image_path": "i.jpg"}, "truncated", "after 5 tokens", "The poi")
    result = add_seal(writer.commit(pa.table({"id": ["a"]}), {"tokens_in": 4}))
    assert (result["rows"], result["rejected"], result["details"]) == (1, {"truncated": 1}, {"tokens_in": 4})
    assert holds(storage, result)
    rejected = rejected_path(result)
    assert rejected is not None
    assert storage.read_table(rejected).to_pylist()[0]["text"] == "The poi"
    for name in result["files"]:
        content = storage.read_bytes(name)
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        storage.write_bytes(name, bytes(changed))
        assert not holds(storage, result)
        storage.write_bytes(name, content)
        assert holds(storage, result)
    damaged: Any
    for damaged in (result | {"rows": 2}, result | {"files": {}}, {}, None, OSError("unreadable")):
        assert not holds(storage, damaged)
    storage.remove(result["path"])
    assert not holds(storage, result)


def test_a_task_that_cuts_several_shards_holds_as_long_as_all_do(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    writer = ShardWriter(order(stage="sample", environment=environment(tmp_path)))
    parts = [write_part(writer, "sample", n, "rows.parquet", pa.table({"id": [n]})) for n in range(3)]
    result = add_seal(commit_parts(writer, parts))
    assert result["rows"] == 3
    assert holds(storage, result)
    storage.remove(parts[1]["path"])
    assert not holds(storage, result)
