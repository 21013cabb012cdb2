"""A run that is silent for long, and alive, is not taken for dead, however it was started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from commands.local import HEARTBEAT
from commands.server import SILENCE
from tests.fault_server import MODEL, FaultServer, serving
from tests.flows.building import CONFIG, overrides
from tests.flows.serving import REPOSITORY, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SILENT = 180
"""Seconds that a model takes for its answers: twice as long as a run without a heartbeat is left alone."""


def test_a_silent_run_is_not_marked_crashed_from_the_command_line_nor_from_the_worker(
    drawn: dict[str, Path], tmp_path: Path
) -> None:
    with serving(FaultServer(delay=SILENT)) as model, served(REPOSITORY, tmp_path / "state") as prefect:
        step = f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}', timeout: 300}}"
        given = {name: overrides(tmp_path / name, drawn, "limit=3", step) for name in ("command", "worker")}
        command = [str(Path(sys.executable).with_name("talking-points")), "build", "--config", CONFIG]
        command += [word for setting in given["command"] for word in ("--set", setting)]
        built = subprocess.Popen(
            command, env=os.environ | prefect.environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        prefect.wait(prefect.trigger(*given["worker"]), "COMPLETED", "FAILED", "CRASHED", seconds=400)
        output, _ = built.communicate(timeout=400)
        assert built.returncode == 0
        assert json.loads(output.splitlines()[-1])["rows"] > 0
        runs = [run for run in prefect.call("POST", "flow_runs/filter") if run["start_time"]]  # not the weekly ones
        assert len(runs) == 2
        for run in runs:
            states = prefect.call("GET", f"flow_run_states/?flow_run_id={run['id']}")
            names = [state["type"] for state in sorted(states, key=lambda state: state["timestamp"])]
            assert names[-1] == "COMPLETED", names
            assert "CRASHED" not in names
            assert run["total_run_time"] > SILENT >= 2 * SILENCE
    assert len(model.seen) >= 6


def test_deployments_have_the_heartbeat_of_commands() -> None:
    settings = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    for deployment in settings["deployments"]:
        assert deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT)
