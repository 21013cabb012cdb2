"""A real server, worker and deployment for tests, as ``talking-points server`` starts them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from commands.orchestrator import free_port
from commands.server import SILENCE
from tests.patience import wait_for
from tests.prefect_database import prefect_home

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Served:
    """Handles of a running ``serve``: the UI's address and password, and the process."""

    url: str
    password: str
    process: subprocess.Popen[bytes]
    killed: bool = False
    """Set by a test that killed the process itself."""

    def call(self, method: str, path: str, **body: Any) -> Any:
        deadline = time.monotonic() + 120
        while True:
            response = httpx.request(
                method,
                f"{self.url}/api/{path}",
                json=body or None,
                auth=self.credentials,
                timeout=60,
                verify=False,  # no certificate is shown, and reading those of the authorities takes 20 ms a time
            )
            # SQLite is locked: Prefect's own clients ask again as well.
            if response.status_code != 503 or time.monotonic() > deadline:
                break
            time.sleep(1)
        response.raise_for_status()
        return response.json() if response.content else None

    @property
    def credentials(self) -> tuple[str, str]:
        user, _, password = self.password.partition(":")
        return user, password

    @property
    def environment(self) -> dict[str, str]:
        """What makes the commands of a test clients of this server."""
        return {"PREFECT_API_URL": f"{self.url}/api", "PREFECT_API_AUTH_STRING": self.password}

    def trigger(self, *overrides: str) -> str:
        """Start a run of the deployment of builds; returns its id."""
        return self.start("build-llamapointinpart", *overrides)

    def start(self, name: str, *overrides: str, state: str = "SCHEDULED") -> str:
        """Start a run of a deployment; returns its id. The worker takes it when its state is ``SCHEDULED``."""
        deployment = self.call("GET", f"deployments/name/{name}/{name}")
        parameters = deployment["parameters"] | {"overrides": list(overrides)}
        path = f"deployments/{deployment['id']}/create_flow_run"
        run = self.call("POST", path, parameters=parameters, state={"type": state})
        return str(run["id"])

    def state(self, run: str) -> dict[str, Any]:
        state = self.call("GET", f"flow_runs/{run}")["state"]
        assert isinstance(state, dict)
        return state

    def wait(self, run: str, *states: str, seconds: float = 240) -> dict[str, Any]:
        """Wait until the run is in one of the states, given by type; returns the state."""
        wait_for(lambda: self.state(run)["type"] in states, seconds, f"run {run} in {states}")
        return self.state(run)

    def retry(self, run: str) -> None:
        """What the Retry button of the UI sends."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        answer = self.call("POST", f"flow_runs/{run}/set_state", state=state, force=False)
        assert answer["status"] == "ACCEPT", answer


def project(folder: Path) -> Path:
    """A project folder whose deployments run ``logged_build``."""
    folder.mkdir()
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    settings = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    settings["deployments"] = [item for item in settings["deployments"] if item["name"] == "build-llamapointinpart"]
    (deployment,) = settings["deployments"]
    assert deployment["entrypoint"] == "flows.build_llamapointinpart.build_llamapointinpart"
    deployment["entrypoint"] = "logged_build.py:build_llamapointinpart"
    (folder / "prefect.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy(REPOSITORY / "tests" / "flows" / "logged_build.py", folder)
    return folder


@contextmanager
def served(home: Path, state: Path, silence: float = SILENCE, /, **environment: str) -> Iterator[Served]:
    """Server and worker for the project in ``home``, with their database and result records in ``state``."""
    state.mkdir(exist_ok=True)
    port, results = free_port(), state / "results"
    command = ["-m", "talking_points", "server", "--home", str(home), "--port", str(port), "--results", str(results)]
    if silence != SILENCE:
        code = "from pathlib import Path\nfrom commands.server import serve\n"
        command = ["-c", f"{code}serve(Path({str(home)!r}), {port}, Path({str(results)!r}), silence={silence})"]
    log = state / "serve.log"
    settings = {"PREFECT_LOGGING_LEVEL": "INFO", "PYTHONPATH": str(REPOSITORY)}
    settings["PREFECT_HOME"] = prefect_home(state / "prefect")
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | settings | environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        wait_for(lambda: "Its password, " in log.read_text() or process.poll() is not None, 480, "server and worker")
        text = log.read_text()
        assert "Its password, " in text, text
        password = text.split("Its password, ")[1].split(": ")[1].split()[0]
        handles = Served(text.split("Prefect is at ")[1].split(";")[0], password, process)
        yield handles
        assert handles.killed or process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()


def executions(log: Path) -> list[str]:
    """Keys of the shards whose execution began, in that order."""
    lines = log.read_text().split("\n") if log.exists() else []
    return [line.split()[1] for line in lines if line.startswith("start ")]


def session(leader: int) -> list[int]:
    """Living processes of the session that ``leader`` began."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found
