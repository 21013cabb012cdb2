"""Power loss: server, worker and flow are killed at once. The run becomes Crashed by itself, and Retry finishes it."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from commands.local import HEARTBEAT
from tests.flows.building import overrides, published
from tests.flows.serving import Served, executions, project, served
from tests.flows.test_topology import flow_process
from tests.patience import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = ("limit=12", "shard_size=2")


def test_a_run_whose_server_worker_and_process_were_killed_is_crashed_and_retried(
    drawn: dict[str, Path], tmp_path: Path
) -> None:
    home, log = project(tmp_path / "home"), tmp_path / "executions"
    environment = {"EXECUTIONS": str(log), "SLOWLY": "1"}
    with served(home, tmp_path / "state", **environment) as prefect:
        listen(prefect)
        run = prefect.trigger(*overrides(tmp_path / "out", drawn, *SETTINGS))
        wait_for(lambda: sum(key.startswith("object_caption") for key in executions(log)) > 2, 300, "captions")
        process = flow_process(tmp_path / "out")
        prefect.killed = True
        everything = {process, prefect.process.pid, *descendants(prefect.process.pid)}
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: nobody sees the others die
            for pid in everything:
                os.kill(pid, number)
        wait_for(lambda: not Path(f"/proc/{process}").exists(), 30, "the flow's process is gone")
    made = executions(log)
    # A downtime of minutes, after which the server forgets that it waits for a heartbeat.
    with closing(sqlite3.connect(tmp_path / "state" / "prefect" / "prefect.db")) as database, database:
        assert database.execute("DELETE FROM automation_bucket").rowcount

    with served(home, tmp_path / "state", **environment) as prefect:
        assert prefect.state(run)["type"] == "RUNNING", "nobody has told the server"
        state = prefect.wait(run, "CRASHED", seconds=6 * HEARTBEAT)
        assert "heartbeat" in state["message"]
        wait_for(lambda: len(told(prefect, run)) == 1, 30, "what listens for crashes, as notifications do, hears of it")
        prefect.retry(run)
        done = prefect.wait(run, "COMPLETED", "FAILED", "CRASHED")
        assert done["type"] == "COMPLETED", done
        assert len(executions(log)) - len(set(executions(log))) <= 2, "at most one shard per worker is made again"
        assert len(set(executions(log))) > len(set(made))
        reference = prefect.trigger(*overrides(tmp_path / "reference", drawn, *SETTINGS))
        assert prefect.wait(reference, "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
    assert published(tmp_path / "out") == published(tmp_path / "reference")


def listen(prefect: Served) -> None:
    """An automation on crashed runs, with the trigger of ``talking-points notify`` and no message to send."""
    trigger = {
        "type": "event",
        "posture": "Reactive",
        "expect": ["prefect.flow-run.Crashed"],
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
        "threshold": 1,
    }
    prefect.call("POST", "automations/", name="listens", trigger=trigger, actions=[{"type": "do-nothing"}])


def told(prefect: Served, run: str) -> list[Any]:
    """The times that this automation has heard of the run."""
    found = prefect.call("POST", "events/filter", filter={"event": {"name": ["prefect.automation.triggered"]}})[
        "events"
    ]
    return [event for event in found if event["resource"]["prefect.resource.name"] == "listens" and run in str(event)]


def descendants(ancestor: int) -> list[int]:
    """All processes that ``ancestor`` started, and those that these did."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = [ancestor]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]
