"""Output and result records on an S3-compatible store: builds, fails, goes on, and gives the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.report import BuildFailed
from tasks.storage import Storage
from tests.flows.building import build, data_digests

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("orchestrator")]

SETTINGS = ("limit=12", "shard_size=6")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on a local S3 server."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    servers = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    server = servers.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="points")
    try:
        yield "s3://points"
    finally:
        server.stop()


def test_a_build_on_an_object_store_goes_on_where_it_failed(
    bucket: str, drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.filesystems import RemoteFileSystem
    from prefect.settings import PREFECT_DEFAULT_RESULT_STORAGE_BLOCK, temporary_settings

    import tasks.merge as merge
    from tasks.text_shards import read_texts

    RemoteFileSystem(basepath=f"{bucket}/records").save("records", overwrite=True)
    real = read_texts

    def broken(storage: Storage, manifest: dict) -> dict:
        if manifest["shard"] == 1 and manifest["stage"] == "generate":
            raise OSError("the store is gone")
        return real(storage, manifest)  # type: ignore[arg-type]

    monkeypatch.setattr(merge, "read_texts", broken)
    with temporary_settings({PREFECT_DEFAULT_RESULT_STORAGE_BLOCK: "remote-file-system/records"}):
        with pytest.raises(BuildFailed, match=r"refine-1.*the store is gone"):
            build(f"{bucket}/out", drawn, *SETTINGS)
        monkeypatch.setattr(merge, "read_texts", real)
        again = build(f"{bucket}/out", drawn, *SETTINGS)
        assert again["executed_shards"] == 3, "refine-1, verify-1 and assemble"
        assert build(f"{bucket}/out", drawn, *SETTINGS)["executed_shards"] == 0
    assert Storage(f"{bucket}/records").names()

    build(tmp_path / "local", drawn, *SETTINGS)
    storage = Storage(f"{bucket}/out")
    remote = {name: hashlib.sha256(storage.read_bytes(f"data/{name}")).hexdigest() for name in storage.names("data")}
    assert remote == data_digests(tmp_path / "local")
