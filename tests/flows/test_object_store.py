"""Output and result records on an S3-compatible store: builds, fails, goes on, and gives the same bytes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.running.runner import BuildFailed
from tasks.running.storage import Storage
from tests.flows.building import build, data_digests, overrides
from tests.flows.serving import executions, project, served
from tests.object_store import bucket

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("orchestrator")]

SETTINGS = ("limit=12", "shard_size=6")
RECORDS = "remote-file-system/records"
"""The Prefect block that says where the result records go."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    with bucket(tmp_path.name) as url:
        yield url


@pytest.fixture(scope="module")
def local(orchestrator: None, drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the data, built on a local disk."""
    output = tmp_path_factory.mktemp("local") / "out"
    build(output, drawn, *SETTINGS)
    return data_digests(output)


def stored_digests(output: str) -> dict[str, str]:
    """Digests of the data in the store."""
    storage = Storage(output)
    return {name: hashlib.sha256(storage.read_bytes(f"data/{name}")).hexdigest() for name in storage.names("data")}


def test_a_build_on_an_object_store_goes_on_where_it_failed(
    folder: str, drawn: dict[str, Path], local: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.filesystems import RemoteFileSystem
    from prefect.settings import PREFECT_DEFAULT_RESULT_STORAGE_BLOCK, temporary_settings

    from tasks.running import merging
    from tasks.running.text_shards import read_texts

    RemoteFileSystem(basepath=f"{folder}/records").save("records", overwrite=True)
    real = read_texts

    def broken(storage: Storage, manifest: dict) -> dict:
        if manifest["shard"] == 1 and manifest["stage"] == "generate":
            raise OSError("the store is gone")
        return real(storage, manifest)  # type: ignore[arg-type]

    monkeypatch.setattr(merging, "read_texts", broken)
    with temporary_settings({PREFECT_DEFAULT_RESULT_STORAGE_BLOCK: RECORDS}):
        with pytest.raises(BuildFailed, match=r"refine-1.*the store is gone"):
            build(f"{folder}/out", drawn, *SETTINGS)
        monkeypatch.setattr(merging, "read_texts", real)
        again = build(f"{folder}/out", drawn, *SETTINGS)
        assert again["executed_shards"] == 3, "refine-1, verify-1 and assemble"
        assert build(f"{folder}/out", drawn, *SETTINGS)["executed_shards"] == 0
    assert Storage(f"{folder}/records").names()
    assert stored_digests(f"{folder}/out") == local


def test_a_run_of_a_deployment_on_an_object_store_is_retried(
    folder: str, drawn: dict[str, Path], local: dict[str, str], tmp_path: Path
) -> None:
    from prefect.filesystems import RemoteFileSystem
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    state, log, broken = tmp_path / "state", tmp_path / "executions", tmp_path / "broken"
    broken.write_text("generate-1")
    environment = {
        "EXECUTIONS": str(log),
        "BROKEN": str(broken),
        "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": RECORDS,
    }
    with served(project(tmp_path / "home"), state, **environment) as prefect:
        with temporary_settings({PREFECT_API_URL: f"{prefect.url}/api", PREFECT_API_AUTH_STRING: prefect.password}):
            RemoteFileSystem(basepath=f"{folder}/records").save("records")
        run = prefect.trigger(*overrides(f"{folder}/out", drawn, *SETTINGS))
        failed = prefect.wait(run, "FAILED", "CRASHED", "COMPLETED")
        assert failed["type"] == "FAILED", failed
        assert "1 shard(s) failed: generate-1" in failed["message"]

        first = executions(log)
        broken.unlink()
        prefect.retry(run)
        done = prefect.wait(run, "COMPLETED", "CRASHED")
        assert done["type"] == "COMPLETED", done
    assert Counter(executions(log)[len(first) :]) == Counter(["generate-1", "refine-1", "verify-1", "assemble-0"])
    assert Storage(f"{folder}/records").names()
    assert not list((state / "results").rglob("*")), "nothing is kept on this machine"
    assert stored_digests(f"{folder}/out") == local
