"""The topology of ``docker/compose.yaml`` as plain processes: PostgreSQL, server, worker; kill, cancel, retry."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands.server import ZOMBIES
from tests.flows.building import overrides, published
from tests.flows.serving import executions, project, served, session
from tests.patience import patient, wait_for
from tests.postgresql import postgresql_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = ("limit=12", "shard_size=2")
STOPS_WITHIN = 10.0
"""Seconds from Cancel until no process of the run is left."""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL that Prefect connects to."""
    with postgresql_server() as place:
        yield f"postgresql+asyncpg://{place}"


def test_kill_cancel_and_retry_on_postgresql(postgresql: str, drawn: dict[str, Path], tmp_path: Path) -> None:
    home, log, broken = project(tmp_path / "home"), tmp_path / "executions", tmp_path / "broken"
    environment = {
        "EXECUTIONS": str(log),
        "BROKEN": str(broken),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgresql,
        "SLOWLY": "1.5",
    }
    with served(home, tmp_path / "state", **environment) as prefect:
        names = [automation["name"] for automation in prefect.call("POST", "automations/filter")]
        assert names == [ZOMBIES]

        # The process of the run is killed: the worker marks it Crashed at once, and Retry goes on.
        run = prefect.trigger(*overrides(tmp_path / "out", drawn, *SETTINGS))
        wait_for(lambda: "sample-0" in executions(log), 300, "the build is under way")
        os.kill(flow_process(tmp_path / "out"), signal.SIGKILL)
        assert prefect.wait(run, "CRASHED", "COMPLETED", seconds=60)["type"] == "CRASHED"
        before = executions(log)
        # The worker reports the exit again once it has looked for hooks of the flow, and overrules a retry before that.
        over = {"event": {"name": ["prefect.worker.executed-flow-run"]}}

        def wait_for_worker(runs: int) -> None:
            wait_for(lambda: prefect.call("POST", "events/filter", filter=over)["total"] >= runs, 120, "its report")

        wait_for_worker(1)
        prefect.retry(run)

        # Cancelled in the UI: over within ten seconds, all finished shards kept.
        wait_for(lambda: len(executions(log)) > len(before) + 2, 300, "the retry is under way")
        process = flow_process(tmp_path / "out")
        assert process in session(process)
        began = time.monotonic()
        prefect.call("POST", f"flow_runs/{run}/set_state", state={"type": "CANCELLING"}, force=False)
        wait_for(lambda: not session(process), 60, "the cancelled run has no process left")
        took = time.monotonic() - began
        assert took < patient(STOPS_WITHIN), f"{took:.1f} s"
        prefect.wait(run, "CANCELLED", seconds=60)
        assert not list((tmp_path / "out").rglob("*.part"))
        wait_for_worker(2)
        prefect.retry(run)
        assert prefect.wait(run, "COMPLETED", "CRASHED", "FAILED")["type"] == "COMPLETED"
        made = executions(log)
        assert len(made) - len(set(made)) <= 4, "two interruptions cost at most one shard per worker each"

        other = prefect.trigger(*overrides(tmp_path / "reference", drawn, *SETTINGS))
        assert prefect.wait(other, "COMPLETED", "CRASHED", "FAILED")["type"] == "COMPLETED"
    assert published(tmp_path / "out") == published(tmp_path / "reference")


def flow_process(output: Path) -> int:
    """The process that holds the lock of the build."""
    lock = (output / ".work" / "lock").stat()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[5].split(":")[2] == str(lock.st_ino):
            return int(fields[4])
    raise AssertionError(f"nobody holds the lock of {output}")
