"""What a dataset says about the models that wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from talking_points.build_config import BuildConfig
from talking_points.dataset_schema import triplet_schema
from tasks.assemble import StepIdentity, describe_steps
from tasks.running.claims import Attempt
from tasks.running.lease import Fence, LeaseLost
from tasks.running.shards import ShardFailed
from tasks.running.staging import STAGING, begin_staging, publish_staged
from tasks.running.storage import Storage


def steps(**sections: Any) -> dict[str, StepIdentity]:
    return describe_steps(BuildConfig.model_validate({"output": "out"} | sections))


def test_a_local_model_is_named_by_its_content_and_an_unknown_one_as_configured(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    unknown = {"backend": "vllm", "model": "nobody/has-this-model", "revision": "main"}
    found = steps(local_caption={"backend": "transformers", "model": str(tmp_path)}, generate=unknown)
    assert str(found["local_caption"]["revision"]).startswith("sha256:")
    assert found["local_caption"]["revision_resolved"]
    assert (found["generate"]["revision"], found["generate"]["revision_resolved"]) == ("main", False)
    assert "revision_resolved" not in found["refine"]


def test_a_servers_model_is_not_looked_up() -> None:
    server = {"backend": "openai", "model": "llama", "endpoint": "http://127.0.0.1:1/v1", "revision": "v1"}
    refine = steps(refine=server)["refine"]
    assert refine["revision"] == "v1"
    assert "revision_resolved" not in refine


def test_the_flag_stays_out_of_the_rows(tmp_path: Path) -> None:
    found = steps(generate={"backend": "vllm", "model": str(tmp_path)})
    field = triplet_schema().field("provenance")
    table = pa.Table.from_pylist([{"provenance": found | {"seed": 0}}], schema=pa.schema([field]))
    (row,) = table.to_pylist()
    assert row["provenance"]["generate"]["revision"] == found["generate"]["revision"]
    assert set(row["provenance"]["generate"]) == {"backend", "model", "revision", "prompt_sha256"}


def stage(storage: Storage) -> dict[str, str | None]:
    """A dataset that waits to take the place of the one before it; what was written, as ``publish_staged`` is told."""
    storage.write_bytes("data/train-old.parquet", b"old")
    storage.write_bytes("manifest.json", b"old")
    names = ("data/train.parquet", "figures/lengths.png", "README.md", "manifest.json")
    for name in names:
        storage.write_bytes(f"{STAGING}/{name}", name.encode())
    return {name: storage.sha256(f"{STAGING}/{name}") if name.startswith("data") else None for name in names}


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(tmp_path if request.param == "local" else f"memory://{tmp_path.name}")


def test_what_was_staged_takes_the_place_of_the_dataset_as_a_whole(storage: Storage) -> None:
    written = stage(storage)
    digests = publish_staged(storage, written)
    assert {name: storage.sha256(name) for name in written} == digests
    assert storage.names("data") == ["train.parquet"]
    assert not storage.exists(STAGING)


@pytest.mark.parametrize("name", ["data/train.parquet", "figures/lengths.png", "README.md", "manifest.json"])
def test_a_staged_file_that_is_gone_is_an_error_and_the_old_dataset_stays(storage: Storage, name: str) -> None:
    written = stage(storage)
    storage.remove(f"{STAGING}/{name}")
    with pytest.raises(ShardFailed, match=f"{name}.*another build"):
        publish_staged(storage, written)
    assert storage.read_bytes("data/train-old.parquet") == storage.read_bytes("manifest.json") == b"old"


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_writer_that_has_lost_the_output_goes_no_further(storage: Storage, steps: int) -> None:
    written, looks = stage(storage), iter(range(steps))

    def check() -> None:
        if next(looks, None) is None:
            raise LeaseLost("another build's")

    with pytest.raises(LeaseLost):
        publish_staged(storage, written, check=check)
    assert storage.exists("README.md") is False
    assert storage.names("data") == ["train-old.parquet" if steps < 2 else "train.parquet"]
    assert storage.exists("manifest.json") is (steps == 0)


def test_every_attempt_at_a_dataset_has_a_folder_of_its_own(storage: Storage) -> None:
    storage.write_bytes(".work/leases/00000002.json", b"")
    first, later = (Attempt(storage, Fence(number=2, takeovers=takeovers), "assemble/00000") for takeovers in (0, 1))
    old = begin_staging(first)
    storage.write_bytes(f"{old}/manifest.json", b"old")
    new = begin_staging(later)
    assert new != old
    assert storage.exists(old) is False
    storage.write_bytes(f"{old}/manifest.json", b"old")
    storage.write_bytes(f"{new}/manifest.json", b"new")
    publish_staged(storage, {"manifest.json": None}, new)
    assert storage.read_bytes("manifest.json") == b"new"
    storage.write_bytes(".work/leases/00000003.json", b"")
    with pytest.raises(LeaseLost):
        begin_staging(later)


def test_what_another_build_staged_is_not_taken_for_ones_own(storage: Storage) -> None:
    written = stage(storage)
    storage.write_bytes(f"{STAGING}/data/train.parquet", b"theirs")
    with pytest.raises(ShardFailed, match=r"data/train\.parquet is not the file that was written.*another build"):
        publish_staged(storage, written)
    assert storage.read_bytes("manifest.json") == b"old"


@pytest.mark.parametrize("lost", [True, False])
def test_files_are_looked_at_once_more_in_their_place(
    storage: Storage, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, move = stage(storage), storage.move

    def interfere(name: str, target: str) -> None:
        move(name, target)
        if target == "data":
            storage.remove("data/train.parquet")
            if not lost:
                storage.write_bytes("data/train.parquet", b"theirs")

    monkeypatch.setattr(storage, "move", interfere)
    with pytest.raises(ShardFailed, match=r"data/train\.parquet is not the file that was written"):
        publish_staged(storage, written)
