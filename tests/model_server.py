"""OpenAI-compatible servers of real engines, run as programs on this machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx


@contextlib.contextmanager
def model_server(command: Sequence[str], log_file: Path, patience: float = 300.0) -> Iterator[str]:
    """Run ``command`` with ``--host`` and ``--port`` added; yields its base URL once it lists its models.

    Raises ``RuntimeError`` with the end of its log when it stops, or is not ready after ``patience`` seconds.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, deadline = f"http://127.0.0.1:{port}/v1", time.monotonic() + patience
    with (
        log_file.open("wb") as log,
        subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log) as process,
    ):
        try:
            while not _is_ready(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start: {log_file.read_text()[-2000:]}")
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/models", timeout=2).status_code == 200
    return False
