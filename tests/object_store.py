"""A bucket of an S3-compatible store on this machine, which the environment leads to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def bucket(folder: str) -> Iterator[str]:
    """The URL of an empty folder in a bucket of a local S3 server, which keeps what earlier tests put there."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    servers = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    server = servers.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        decide_one_after_another(environment)
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="points")
        try:
            yield f"s3://points/{folder}"
        finally:
            server.stop()
            # File systems are kept by their arguments, and the address, which the environment gives, is none of them.
            s3fs.S3FileSystem.clear_instance_cache()


def decide_one_after_another(environment: pytest.MonkeyPatch) -> None:
    """Let the server look at a condition and put the object in one step, as stores do: its threads do not."""
    from moto.s3.responses import S3Response

    puts, lock = S3Response._key_response_put, threading.Lock()

    def put(self: S3Response, *arguments: Any) -> Any:
        with lock:
            return puts(self, *arguments)

    environment.setattr(S3Response, "_key_response_put", put)
