"""Builds on a real Ray of this machine, and on one that exists: the bytes of threads, also when a worker dies."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from commands.orchestrator import free_port
from commands.status import read_status
from talking_points.config import ConfigError
from talking_points.errors import InputError
from tasks.running.status_tables import worker_notes
from tasks.running.storage import Storage
from tests.fault_server import MODEL, FaultServer, serving
from tests.flows.building import build, published
from tests.flows.serving import REPOSITORY
from tests.patience import wait_for

# Before Ray is imported, which reads them once: its clusters want a token, and write none into the user's home.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

pytest.importorskip("prefect_ray", reason="the extra 'ray' is not installed: make test-ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("orchestrator")]

SHARDS = ("limit=12", "shard_size=4")
LOOPBACK, SECOND = "127.0.0.2", "127.0.0.3"
"""This machine alone: for 127.0.0.1 Ray takes an address that others reach."""
MEMORY = "--object-store-memory=100000000"


def test_ray_makes_the_bytes_of_threads_and_refuses_what_it_has_not(drawn: dict[str, Path], tmp_path: Path) -> None:
    build(tmp_path / "threads", drawn, *SHARDS)
    with pytest.raises(ConfigError, match=r"resources\.local_caption: no node of the cluster has GPU: 1 .found "):
        build(tmp_path / "ray", drawn, *SHARDS, "runner={kind: ray, workers: 2, resources: {local_caption: {GPU: 1}}}")
    made = build(tmp_path / "ray", drawn, *SHARDS, "runner={kind: ray, workers: 2, shards_per_task: 2}")
    assert made["executed_shards"] > 10
    assert published(tmp_path / "ray") == published(tmp_path / "threads")
    assert build(tmp_path / "ray", drawn, *SHARDS, "runner=threads")["executed_shards"] == 0


def test_a_ray_that_exists_makes_up_for_a_worker_that_is_killed(drawn: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "ray"
    with serving(FaultServer(delay=0.5)) as model, ray_cluster() as cluster:
        step = f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}', concurrency: 1}}"
        runner = f"runner={{kind: ray, address: '{cluster.address}', resources: {{local_caption: {{desk: 1}}}}}}"
        claims = output / ".work" / "claims" / "local_caption"

        differs = rf"the node .*\({SECOND}\) cannot do .* its code in {tmp_path}.* is not that of the build"
        with cluster.other_node(tmp_path), pytest.raises(InputError, match=differs):
            build(output, drawn, *SHARDS, step, runner)
        assert not list(output.rglob("*.parquet"))
        assert not model.seen, "nothing was asked"

        def kill() -> None:
            wait_for(lambda: len(model.seen) > 2, 120, "requests")
            wait_for(lambda: "process" in "".join(worker_notes(read_status(Storage(output)))), 60, "who does what")
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

        stranger = subprocess.run(
            [sys.executable, "-c", STRANGER, cluster.address],
            env=os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "1"},
            cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "cannot be used: ray client connection timeout; where its head" in stranger.stdout, stranger.stderr


STRANGER = """
import sys
from talking_points.config import ConfigError
from talking_points.runner_config import RunnerConfig
from tasks.running.clusters import open_workers

try:
    with open_workers(RunnerConfig(kind="ray", address=sys.argv[1]), 1):
        pass
except ConfigError as error:
    print(error)
"""
"""A driver without the token of the cluster."""


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection((LOOPBACK, port), 1):
        return True
    return False


@dataclass(frozen=True)
class RayCluster:
    """A head with two places to work and one 'desk', on this machine alone."""

    place: int
    drivers: int

    @property
    def address(self) -> str:
        return f"ray://{LOOPBACK}:{self.drivers}"

    @contextmanager
    def other_node(self, folder: Path) -> Iterator[None]:
        """A second node, whose code is a copy of ours with a changed file."""
        code = folder / "code"
        for part in ("talking_points", "tasks", "prompts", "configs", "data_cards"):
            shutil.copytree(REPOSITORY / part, code / part, ignore=shutil.ignore_patterns("__pycache__"))
        with (code / "tasks" / "verify.py").open("a") as file:
            file.write("# changed\n")
        with _ray(code, f"--address={LOOPBACK}:{self.place}", f"--node-ip-address={SECOND}", "--num-cpus=1"):
            yield


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    cluster = RayCluster(free_port(), free_port())
    arguments = [
        "--head", f"--node-ip-address={LOOPBACK}", f"--port={cluster.place}", "--num-cpus=2",
        f"--ray-client-server-port={cluster.drivers}", '--resources={"desk": 1}', "--include-dashboard=false",
    ]  # fmt: skip
    with _ray(REPOSITORY, *arguments):
        wait_for(lambda: _answers(cluster.drivers), 180, "a server for drivers")  # begins after the head has said so
        yield cluster


@contextmanager
def _ray(code: Path, *arguments: str) -> Iterator[None]:
    """A node whose workers find this code first; started as docs/clusters.md says."""
    command = [str(Path(sys.executable).with_name("ray")), "start", "--block", MEMORY, *arguments]
    environment = {
        "PYTHONPATH": str(code),
        "OMP_NUM_THREADS": "1",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "RAY_task_oom_retries": "3",
    }
    node = subprocess.Popen(
        [*command, "--disable-usage-stats"] if "--head" in arguments else command,
        env=os.environ | environment,
        cwd=code,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert node.stdout is not None
        said = []
        for line in node.stdout:
            said.append(line)
            if "--block" in line:
                break
        else:
            raise AssertionError("".join(said))
        yield
    finally:
        node.terminate()
        with suppress(subprocess.TimeoutExpired):
            node.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
