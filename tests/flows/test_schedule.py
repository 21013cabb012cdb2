"""What schedules and deployments do on a real server, with ``prefect.yaml`` as it is shipped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.building import overrides
from tests.flows.serving import REPOSITORY, Served, served, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OFTEN = 20
"""Seconds between two runs of the schedule that is waited for; the worker looks for runs every ten."""

WRONG = {
    "build-llamapointinpart": (["output=out"], "expected the dataset folder at"),
    "train-localizer": (["output=out", "dataset=nowhere"], "nowhere"),
    "train-descriptor": (["output=out", "dataset=nowhere"], "nowhere"),
    "adapt-descriptor": (["output=out", "ap10k.root=nowhere"], "nowhere"),
    "learn": (["vision.nothing=1"], "vision.nothing"),
    "evaluate": (["output=out", "localizer=nowhere"], "no Point Localizer at nowhere"),
    "retrain-and-evaluate": (["folder=out", "train.dataset=nowhere"], "nowhere"),
}
"""By deployment: settings that cannot be used, and what the run's last state says of them."""


def project(folder: Path) -> Path:
    """A project folder with everything as shipped, and one deployment more, whose runs come often."""
    folder.mkdir()
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    settings = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    settings["deployments"].append(
        {
            "name": "often",
            "entrypoint": "often.py:often",
            "work_pool": settings["definitions"]["work_pool"],
            "schedules": [{"slug": "often", "interval": OFTEN, "active": False}],
        }
    )
    (folder / "prefect.yaml").write_text(yaml.safe_dump(settings))
    (folder / "often.py").write_text(
        "from prefect import flow\n\n\n@flow(name='often')\ndef often():\n    print('a scheduled run')\n"
    )
    return folder


def test_schedules_give_runs_and_deployments_run(drawn: dict[str, Path], tmp_path: Path) -> None:
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    assert set(WRONG) == {item["name"] for item in deployments}
    home, state = project(tmp_path / "home"), tmp_path / "state"
    with served(home, state) as prefect:
        weekly = deployment(prefect, "retrain-and-evaluate")
        wait_for(lambda: len(runs(prefect, weekly, "SCHEDULED")) >= 3, 60, "the next runs of the weekly schedule")
        times = sorted(run["expected_start_time"] for run in runs(prefect, weekly, "SCHEDULED"))
        assert all(time[11:16] == "03:00" for time in times)

        log = (state / "serve.log").read_text()
        assert "Traceback" not in log, log

        often = deployment(prefect, "often")
        schedule = f"deployments/{often['id']}/schedules/{often['schedules'][0]['id']}"
        prefect.call("PATCH", schedule, active=True)
        wait_for(lambda: runs(prefect, often, "COMPLETED") != [], 120, "a scheduled run is executed by the worker")
        assert runs(prefect, often, "COMPLETED")[0]["auto_scheduled"]
        prefect.call("PATCH", schedule, active=False)

        # Every deployment starts from the worker, side by side, and ends with the message that the command has.
        prefect.call("PATCH", "work_pools/talking-points", concurrency_limit=3)
        started = {name: prefect.start(name, *given) for name, (given, _) in WRONG.items()}
        built = prefect.start("build-llamapointinpart", *overrides(tmp_path / "out", drawn, "limit=6"))
        ends = {name: prefect.wait(run, "FAILED", "CRASHED", "COMPLETED") for name, run in started.items()}
        for name, ended in ends.items():
            assert ended["type"] == "FAILED", (name, ended)
            assert WRONG[name][1] in ended["message"], (name, ended, ends)
        ended = prefect.wait(built, "FAILED", "CRASHED", "COMPLETED")
        assert ended["type"] == "COMPLETED", ended
        assert len(runs(prefect, weekly, "SCHEDULED")) >= 3


def deployment(prefect: Served, name: str) -> dict[str, Any]:
    found = prefect.call("GET", f"deployments/name/{name}/{name}")
    assert isinstance(found, dict)
    return found


def runs(prefect: Served, deployment: dict[str, Any], state: str) -> list[dict[str, Any]]:
    """Runs of a deployment that are in the state, given by type."""
    wanted = {"deployment_id": {"any_": [deployment["id"]]}, "state": {"type": {"any_": [state]}}}
    found = prefect.call("POST", "flow_runs/filter", flow_runs=wanted)
    assert isinstance(found, list)
    return found
