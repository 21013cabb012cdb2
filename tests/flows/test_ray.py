"""Builds on a real Ray of this machine, and on one that exists: the bytes of threads, also when a worker dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from commands.orchestrator import free_port
from talking_points.config import ConfigError
from tests.fault_server import MODEL, FaultServer, serving
from tests.flows.building import build, published
from tests.flows.serving import REPOSITORY, wait_for

pytest.importorskip("prefect_ray", reason="the extra 'ray' is not installed: make test-ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("orchestrator")]

SHARDS = ("limit=12", "shard_size=4")
LOOPBACK = "127.0.0.2"
"""This machine alone: for 127.0.0.1 Ray takes an address that others reach."""


def test_ray_makes_the_bytes_of_threads_and_refuses_what_it_has_not(drawn: dict[str, Path], tmp_path: Path) -> None:
    build(tmp_path / "threads", drawn, *SHARDS)
    with pytest.raises(ConfigError, match=r"resources\.local_caption: the cluster has GPU: 0, 1 are wanted"):
        build(tmp_path / "ray", drawn, *SHARDS, "runner={kind: ray, workers: 2, resources: {local_caption: {GPU: 1}}}")
    made = build(tmp_path / "ray", drawn, *SHARDS, "runner={kind: ray, workers: 2, shards_per_task: 2}")
    assert made["executed_shards"] > 10
    assert published(tmp_path / "ray") == published(tmp_path / "threads")
    assert build(tmp_path / "ray", drawn, *SHARDS, "runner=threads")["executed_shards"] == 0


def test_a_ray_that_exists_makes_up_for_a_worker_that_is_killed(drawn: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "ray"
    with serving(FaultServer(delay=0.5)) as model, ray_cluster() as address:
        step = f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}', concurrency: 1}}"
        runner = f"runner={{kind: ray, address: '{address}', resources: {{local_caption: {{desk: 1}}}}}}"
        claims = output / ".work" / "claims" / "local_caption"

        def kill() -> None:
            wait_for(lambda: len(model.seen) > 2, 240, "requests")
            attempt = max(claims.iterdir(), key=lambda path: path.stat().st_mtime)
            os.kill(int(attempt.read_text().split()[1]), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        made = build(output, drawn, *SHARDS, step, runner)
        killer.join()
        assert made["executed_shards"] > 10
        assert any(path.suffix == ".2" for path in claims.iterdir()), "a shard was begun again"
        seen = [one.seed for one in model.seen]
        assert len(set(seen)) == made["rows"] + made["rejected"]
        assert len(seen) - len(set(seen)) <= 1, "only what was on the way is asked again"
        build(tmp_path / "threads", drawn, *SHARDS, step)
    assert published(output) == published(tmp_path / "threads")


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection((LOOPBACK, port), 1):
        return True
    return False


@contextmanager
def ray_cluster() -> Iterator[str]:
    """A head of Ray with two places to work and one 'desk', on this machine alone; gives its address for drivers."""
    port, place = free_port(), free_port()
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats",
        f"--node-ip-address={LOOPBACK}", f"--port={place}", f"--ray-client-server-port={port}", "--num-cpus=2",
        '--resources={"desk": 1}', "--include-dashboard=false", "--object-store-memory=100000000",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    head = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert head.stdout is not None
        said = []
        for line in head.stdout:
            said.append(line)
            if "--block" in line:
                break
        else:
            raise AssertionError("".join(said))
        wait_for(lambda: _answers(port), 60, "a server for drivers")  # which begins after the head has said so
        yield f"ray://{LOOPBACK}:{port}"
    finally:
        head.terminate()
        with suppress(subprocess.TimeoutExpired):
            head.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
