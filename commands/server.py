"""``talking-points server``: everything that triggering and retrying builds from a browser needs, on this machine.

It starts a Prefect server, creates the work pool, the deployments of ``prefect.yaml`` and the automation that marks
runs without a heartbeat as Crashed, and starts a process worker. Ctrl-C or SIGTERM stops the worker, then the server.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from commands.local import HEARTBEAT
from commands.lost_runs import expect_heartbeats
from commands.orchestrator import (
    PASSWORD,
    find_configured_server,
    new_password,
    password_file,
    prefect_home,
    running_server,
)
from commands.processes import start, stop_with_descendants
from commands.working_folder import refuse_settings
from talking_points.config import ConfigError
from talking_points.shipped import DEPLOYMENTS
from talking_points.stop_requests import sigterm_as_interrupt
from talking_points.terminal import show, tell
from talking_points.units import counted

POOL = "talking-points"
ZOMBIES = "Crash runs without a heartbeat"
SILENCE = 3 * HEARTBEAT
"""Seconds without a heartbeat after which a run is taken for dead."""

_WORKER_STOP = 15.0
"""Seconds that the worker gets to end before it is killed, and the runs that it leaves behind."""


def serve(home: Path, port: int = 4200, results: Path | None = None, silence: float = SILENCE) -> None:
    """Run server and worker until a signal comes.

    Args:
        home: the folder that deployments run in, so that relative paths of configurations hold; its ``prefect.yaml``
            is used where there is one, else the shipped one.
        port: of the server, which listens on 127.0.0.1 only.
        results: folder of the result records that a retry needs; by default ``build/results`` below ``home``.
        silence: seconds without a heartbeat after which a run is marked Crashed.

    Raises ``KeyboardInterrupt`` for the signal once both are stopped, and ``ConfigError`` when the port is taken,
    ``home`` is no folder, or the server or the worker fails.
    """
    home = home.absolute()
    _check(home)
    results = (results or home / "build" / "results").absolute()
    os.environ[PASSWORD] = new_password()
    tell(f"starting the Prefect server on port {port}; it brings its database in {prefect_home()} up to date")
    with sigterm_as_interrupt(), running_server(port) as url, keep_password(port) as file:
        os.environ["PREFECT_API_URL"] = url
        deploy(home, results, silence, pending=True)
        tell("starting the worker")
        environment = _children() | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT)}
        worker = start([*_PREFECT, "worker", "start", "--pool", POOL, "--type", "process"], environment, home)
        show(f"Prefect is at {url.removesuffix('/api')}; deployments run in {home}. Ctrl-C stops.")
        show(f"Its password, for the page and in {file} as long as this runs: {os.environ[PASSWORD]}", secrets=True)
        try:
            code = worker.wait()
        finally:
            stop_with_descendants(worker, _WORKER_STOP)
        raise ConfigError(f"the worker ended by itself with exit code {code}: see its messages above")


def deploy(home: Path, results: Path, silence: float = SILENCE, *, pending: bool = False) -> None:
    """Create or update, on the server that ``PREFECT_API_URL`` names, the work pool, deployments and automation.

    ``home`` and ``results`` are as the workers see them. Runs that are recorded as running, with ``pending`` those
    about to start as well, have ``silence`` seconds from now to give a sign of life. Raises ``ConfigError`` with the
    orchestrator's message.
    """
    _check(home)
    tell("creating the work pool")
    environment = _children() | {"TALKING_POINTS_HOME": str(home), "TALKING_POINTS_RESULTS": str(results)}
    _create_pool()
    own = home / "prefect.yaml"
    file = own if own.is_file() else DEPLOYMENTS
    crash_zombies(silence)
    _prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(file), environment=environment, folder=home)
    if waiting := expect_heartbeats(POOL, pending=pending):
        tell(f"{counted(waiting, 'run')} recorded as running: Crashed in {silence:.0f} s without a sign of life")


def deploy_to_configured(home: Path, results: Path) -> None:
    """``deploy`` to the server that ``PREFECT_API_URL`` or the active profile names. Raises ``ConfigError``."""
    if find_configured_server() is None:
        raise ConfigError(
            "expected the server to deploy to in PREFECT_API_URL, e.g. http://127.0.0.1:4200/api, found it unset; "
            "'talking-points server' starts one and deploys to it"
        )
    deploy(home, results)


def crash_zombies(silence: float = SILENCE) -> None:
    """Create or update the automation that marks a run without a heartbeat as Crashed, and so retryable."""
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
            within=timedelta(seconds=silence),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat: the process is gone")],
    )
    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(ZOMBIES)
        if not found:
            client.create_automation(automation)
        elif getattr(found[0].trigger, "within", None) != timedelta(seconds=silence):
            client.update_automation(found[0].id, automation)


_PREFECT = [sys.executable, "-P", "-m", "prefect"]


def _create_pool() -> None:
    """The work pool, with one run at a time: see ``prefect.yaml``."""
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=POOL, type="process", base_job_template=template, concurrency_limit=1)
    with get_client(sync_client=True) as client:
        client.create_work_pool(pool, overwrite=True)


def _check(home: Path) -> None:
    """Refuse a folder that deployments cannot or must not run in."""
    if not home.is_dir():
        found = f"the file {home}" if home.exists() else f"nothing at {home}"
        raise ConfigError(f"expected a folder that deployments run in, found {found}: choose it by --home")
    refuse_settings(home)


def _children() -> dict[str, str]:
    """The environment of Prefect's processes: what lies in the folder they run in is not taken for a library."""
    return os.environ | {"PYTHONSAFEPATH": "1"}


@contextmanager
def keep_password(port: int) -> Iterator[Path]:
    """A file with the password that only this user can read; it goes with the server."""
    path = password_file(port)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:  # noqa: PTH123
        stream.write(os.environ[PASSWORD])
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


_DEPLOYED = re.compile(r"Deployment '([^'/]+)/[^']+' successfully")


def _prefect(*arguments: str, environment: Mapping[str, str], folder: Path) -> None:
    """Run one of Prefect's commands, and tell which deployments it has made so far."""
    tell("creating the deployments")
    lines, made = [], 0
    wide = {"PYTHONUNBUFFERED": "1", "COLUMNS": "1000"}  # its boxes are as wide as the terminal
    with subprocess.Popen(
        [*_PREFECT, *arguments],
        env={**environment, **wide},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if deployed := _DEPLOYED.search(line):
                made += 1
                tell(f"  {made}: {deployed[1]}")
    if process.returncode:
        raise ConfigError(f"'prefect {' '.join(arguments)}' failed:\n{''.join(lines)}")
