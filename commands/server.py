"""``talking-points server``: everything that triggering and retrying builds from a browser needs, on this machine.

It starts a Prefect server, creates the work pool, the deployments of ``prefect.yaml`` and the automation that marks
runs without a heartbeat as Crashed, and starts a process worker. Ctrl-C or SIGTERM stops the worker, then the server.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path

from talking_points.config import ConfigError
from talking_points.stop_requests import sigterm_as_interrupt

POOL = "talking-points"
ZOMBIES = "Crash runs without a heartbeat"
HEARTBEAT = 30
"""Seconds between two heartbeats of a run of a deployment; ``prefect.yaml`` sets the same number."""

_SERVER_START, _WORKER_STOP, _SERVER_STOP = 180.0, 15.0, 3.0
"""Seconds that the server gets to answer, and that worker and server get to end before they are killed."""


def serve(home: Path, port: int = 4200, results: Path | None = None) -> None:
    """Run server and worker until a signal comes.

    Args:
        home: the folder with ``prefect.yaml``; deployments run there, so relative paths of configurations hold.
        port: of the server, which listens on 127.0.0.1 only.
        results: folder of the result records that a retry needs; by default ``build/results`` below ``home``.

    Raises ``ConfigError`` when the port is taken, ``prefect.yaml`` is missing, or the server or the worker fails.
    """
    home = home.absolute()
    if not (home / "prefect.yaml").is_file():
        raise ConfigError(f"expected prefect.yaml in {home}: run this command in the project's folder")
    results = (results or home / "build" / "results").absolute()
    with suppress(KeyboardInterrupt), sigterm_as_interrupt(), running_server(port) as url:
        os.environ["PREFECT_API_URL"] = url
        deploy(home, results)
        worker = start([*_PREFECT, "worker", "start", "--pool", POOL, "--type", "process"], os.environ, home)
        print(f"Prefect is at {url.removesuffix('/api')}; deployments run in {home}. Ctrl-C stops.", flush=True)
        try:
            code = worker.wait()
        finally:
            stop(worker, _WORKER_STOP)
        raise ConfigError(f"the worker ended by itself with exit code {code}: see its messages above")


def deploy(home: Path, results: Path) -> None:
    """Create or update, on the server that ``PREFECT_API_URL`` names, the work pool, deployments and automation.

    ``home`` and ``results`` are as the workers see them. Raises ``ConfigError`` with the orchestrator's message.
    """
    environment = os.environ | {"TALKING_POINTS_HOME": str(home), "TALKING_POINTS_RESULTS": str(results)}
    _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite", environment=environment, folder=home)
    _prefect("work-pool", "set-concurrency-limit", POOL, "1", environment=environment, folder=home)
    _prefect("--no-prompt", "deploy", "--all", environment=environment, folder=home)
    crash_zombies()


def claim_port() -> int | None:
    """Before Prefect is imported: the port of a server of this command's own, or None when one is configured.

    All parts of Prefect, and worker processes, must find the address in the environment; ``orchestrator`` starts the
    server there. Prefect would start a temporary one by itself, but a Ctrl-C in the terminal ends that one too, so
    that the run cannot report that it was stopped; and it outlives a command that is killed.
    """
    folder = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH", folder / "profiles.toml"))
    profiles = tomllib.loads(path.read_text()) if path.is_file() else {}
    active = os.environ.get("PREFECT_PROFILE", profiles.get("active"))
    if os.environ.get("PREFECT_API_URL") or profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL"):
        return None
    port = free_port()
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    return port


@contextmanager
def orchestrator(port: int | None) -> Iterator[None]:
    """Around a flow run: the server that was claimed, for as long as the block lasts, or the configured one."""
    with nullcontext() if port is None else running_server(port):
        yield


@contextmanager
def running_server(port: int | None = None) -> Iterator[str]:
    """A Prefect server of this process on 127.0.0.1; gives the URL of its API. It does not outlive the process."""
    port = port or free_port()
    if not _is_free(port):
        raise ConfigError(f"port {port} of 127.0.0.1 is taken: stop what listens there, or choose another with --port")
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": os.environ.get("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
        "PREFECT_SERVER_LOGGING_LEVEL": os.environ.get("PREFECT_SERVER_LOGGING_LEVEL", "ERROR"),
        "DO_NOT_TRACK": os.environ.get("DO_NOT_TRACK", "1"),
    }
    command = [*_PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = start(command, environment, stdout=subprocess.DEVNULL)
    try:
        _wait_until_healthy(server, url)
        yield url
    finally:
        stop(server, _SERVER_STOP)


def crash_zombies() -> None:
    """Create the automation that marks a run as Crashed, and so retryable, when three heartbeats are missing."""
    from prefect import get_client
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    beat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    automation = AutomationCore(
        name=ZOMBIES,
        description="A run whose process and worker are gone stays Running for ever otherwise.",
        trigger=EventTrigger(
            after={beat},
            expect={beat, *ends},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=3 * HEARTBEAT),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat: the process is gone")],
    )
    with get_client(sync_client=True) as client:
        if not client.read_automations_by_name(ZOMBIES):
            client.create_automation(automation)


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path | None = None,
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that a Ctrl-C in the terminal does not reach, and that is stopped when this one is killed."""
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdout=stdout, process_group=0, preexec_fn=_end_with_parent
    )


def stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """End a process: politely first, after so many seconds by force."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_PREFECT = [sys.executable, "-m", "prefect"]
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """Linux: let the kernel send SIGTERM when the parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prefect(*arguments: str, environment: Mapping[str, str], folder: Path) -> None:
    done = subprocess.run(
        [*_PREFECT, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(f"'prefect {' '.join(arguments)}' failed:\n{done.stdout}{done.stderr}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _SERVER_START
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        time.sleep(0.2)
    raise ConfigError(
        f"the Prefect server did not answer at {url} (exit code {server.poll()}): see its messages above, which a "
        "build shows with --verbose only"
    )
