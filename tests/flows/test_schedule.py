"""What schedules and deployments do on a real server, with ``prefect.yaml`` as it is shipped.

All on one server, beside runs that are silent for minutes from the beginning on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands.local import HEARTBEAT
from commands.server import SILENCE
from tests.blocks import SERVED, printed_by, run_lines
from tests.fault_server import MODEL, FaultServer, serving
from tests.flows.building import CONFIG, overrides
from tests.flows.serving import REPOSITORY, Served, served
from tests.patience import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OFTEN = 20
"""Seconds between two runs of the schedule that is waited for; the worker looks for runs every ten."""

SILENT = 180
"""Seconds that a model takes for its answers: twice as long as a run without a heartbeat is left alone."""

WRONG = {
    "build-llamapointinpart": (["output=out"], "expected the dataset folder at"),
    "build-instructions": (["output=out"], "expected the dataset folder at"),
    "train-localizer": (["output=out", "dataset=nowhere"], "nowhere"),
    "train-descriptor": (["output=out", "dataset=nowhere"], "nowhere"),
    "adapt-descriptor": (["output=out", "keypoints.root=nowhere"], "nowhere"),
    "describe-keypoints": (["output=out", "sets=[nowhere]"], "nowhere"),
    "train-answerer": (["output=out", "poses.root=nowhere"], "nowhere"),
    "evaluate-poses": (["output=out", "keypoints.root=nowhere"], "nowhere"),
    "train-segmenter": (["output=out", "instructions.root=nowhere"], "nowhere"),
    "refine-segmenter": (["output=out", "instructions.root=nowhere"], "nowhere"),
    "evaluate-segmentation": (["output=out", "instructions=nowhere"], "nowhere"),
    "outlines": (["vision.nothing=1"], "vision.nothing"),
    "learn": (["vision.nothing=1"], "vision.nothing"),
    "poses": (["vision.nothing=1"], "vision.nothing"),
    "reproduce": (["nothing=1"], "nothing"),
    "evaluate": (["output=out", "localizer=nowhere"], "no Point Localizer at nowhere"),
    "retrain-and-evaluate": (["folder=out", "train.dataset=nowhere"], "nowhere"),
}
"""By deployment: settings that cannot be used, and what the run's last state says of them."""

BY_WORKER = ("train-localizer", "evaluate", "outlines")
"""One of each form: with fields, with a configuration alone, with a folder. A worker starts Python for every run."""


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


@dataclass
class Stage:
    """The server of this file, the folders of its project and of its state, and the two runs that are silent."""

    prefect: Served
    home: Path
    state: Path
    command: subprocess.Popen[str]
    run: str


@pytest.fixture(scope="module")
def stage(drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("served")
    home, state = project(folder / "home"), folder / "state"
    with serving(FaultServer(delay=SILENT)) as model, served(home, state) as prefect:
        prefect.call("PATCH", "work_pools/talking-points", concurrency_limit=4)
        step = f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}', timeout: 300}}"
        given = {name: overrides(folder / name, drawn, "limit=3", step) for name in ("command", "worker")}
        words = [str(Path(sys.executable).with_name("talking-points")), "build", "--config", CONFIG]
        words += [word for setting in given["command"] for word in ("--set", setting)]
        with subprocess.Popen(
            words, env=os.environ | prefect.environment, cwd=folder, stdout=subprocess.PIPE, text=True
        ) as command:
            try:
                yield Stage(prefect, home, state, command, prefect.trigger(*given["worker"]))
            finally:
                command.terminate()
    assert len(model.seen) >= 6


def test_schedules_give_runs_that_the_worker_executes(stage: Stage) -> None:
    prefect = stage.prefect
    weekly = deployment(prefect, "retrain-and-evaluate")
    wait_for(lambda: len(runs(prefect, weekly, "SCHEDULED")) >= 3, 60, "the next runs of the weekly schedule")
    times = sorted(run["expected_start_time"] for run in runs(prefect, weekly, "SCHEDULED"))
    assert all(time[11:16] == "03:00" for time in times)

    log = (stage.state / "serve.log").read_text()
    assert "Traceback" not in log, log

    often = deployment(prefect, "often")
    schedule = f"deployments/{often['id']}/schedules/{often['schedules'][0]['id']}"
    prefect.call("PATCH", schedule, active=True)
    wait_for(lambda: runs(prefect, often, "COMPLETED") != [], 120, "a scheduled run is executed by the worker")
    assert runs(prefect, often, "COMPLETED")[0]["auto_scheduled"]
    prefect.call("PATCH", schedule, active=False)


def test_every_deployment_runs_and_what_fails_is_told(stage: Stage, drawn: dict[str, Path], tmp_path: Path) -> None:
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    assert set(WRONG) == {item["name"] for item in deployments}
    prefect = stage.prefect
    with Listener.listening() as told:
        # What fails is told of through a block, here one that calls this machine.
        webhook(prefect, told.url)
        # Every deployment starts, these from the worker, side by side, and ends with the message that the command has.
        started = {name: prefect.start(name, *WRONG[name][0]) for name in BY_WORKER}
        later = tmp_path / "PascalPart116"
        form: dict[str, object] = {"preset": "rules", "limit": 6, **roots(drawn)}
        built = fill_form(prefect, **form, output=str(tmp_path / "out"))
        early = fill_form(prefect, **form | {"pascal_part116": str(later)}, output=str(tmp_path / "early"))
        ends = execute(stage, [name for name in WRONG if name not in BY_WORKER])
        ends |= {name: prefect.wait(run, "FAILED", "CRASHED", "COMPLETED") for name, run in started.items()}
        assert set(ends) == set(WRONG)
        for name, ended in ends.items():
            assert ended["type"] == "FAILED", (name, ended)
            assert WRONG[name][1] in ended["message"], (name, ended, ends)
        assert "expected the dataset folder at" in prefect.wait(early, "FAILED", "CRASHED", "COMPLETED")["message"]
        later.symlink_to(drawn["pascal_part116"])
        prefect.retry(early)
        wait_for(lambda: len(told.bodies) > len(WRONG), 60, f"a message for each run that failed: {told.bodies}")
        messages = " ".join(told.bodies)
        assert all(name in messages and WRONG[name][1] in messages for name in WRONG), messages
        assert "/runs/flow-run/" in messages
        for run in (built, early):
            ended = prefect.wait(run, "FAILED", "CRASHED", "COMPLETED")
            assert ended["type"] == "COMPLETED", ended
            assert ended["message"].startswith("6 rows")
    assert len(runs(prefect, deployment(prefect, "retrain-and-evaluate"), "SCHEDULED")) >= 3


def test_the_commands_of_the_page_speak_to_a_server(stage: Stage, drawn: dict[str, Path], tmp_path: Path) -> None:
    """The blocks of docs/operating.md, each in a fresh shell of a user whose server this is."""
    prefect = stage.prefect
    _, triggered, deployed, retried, told, stored = printed_by(SERVED)
    address = prefect.url.removeprefix("http://")
    home = tmp_path / "home"
    home.mkdir()
    (home / ".prefect").symlink_to(stage.state / "prefect")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    user = {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    own_port = (address, f"server-{address.rpartition(':')[2]}")

    printed = run_lines(triggered.typed(*own_port), stage.home, user)
    run = re.findall("UUID: ([0-9a-f-]{36})", printed)[0]
    assert "this build cannot start" in prefect.wait(run, "FAILED", "CRASHED", "COMPLETED")["message"], "models of 7B"

    results = stage.state / "results"
    once = "--type process --run-once"
    known = "deployments/name/build-llamapointinpart/build-llamapointinpart"
    before = prefect.call("GET", known)["updated"]
    printed = run_lines(deployed.typed(address, prefect.password, results, once), stage.home, user)
    assert prefect.call("GET", known)["updated"] > before, "it is deployed anew"
    assert printed.count("started!") == printed.count("stopped!") == 1, "the worker of the last line"

    printed = run_lines(told.typed(*own_port), stage.home, user)
    assert "sends to slack-webhook/ops" in printed

    # A build from the command line whose model was not there yet.
    failing = FaultServer(fault=lambda seed, attempt: "right" if there else "truncated")
    there: list[str] = []
    with serving(failing) as model:
        step = f"local_caption={{backend: openai, model: {MODEL}, endpoint: '{model.url}'}}"
        given = overrides(tmp_path / "out", drawn, "limit=3", step)
        words = ["talking-points", "build", "--config", CONFIG, *(word for item in given for word in ("--set", item))]
        done = subprocess.run(
            words, env=user | prefect.environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done.stderr
        (failed,) = [
            run for run in prefect.call("POST", "flow_runs/filter") if str(tmp_path / "out") in str(run["parameters"])
        ]
        there.append("now")
        lines = retried.typed(tmp_path / "out", f" {failed['id']} ")
        run_lines(lines, tmp_path, user | prefect.environment)
        assert prefect.state(failed["id"])["type"] == "COMPLETED"
    run_lines(stored.commands, tmp_path, user | prefect.environment)
    assert prefect.call("GET", "block_types/slug/remote-file-system/block_documents/name/results")["data"]


def test_a_silent_run_is_not_marked_crashed_from_the_command_line_nor_from_the_worker(stage: Stage) -> None:
    prefect = stage.prefect
    prefect.wait(stage.run, "COMPLETED", "FAILED", "CRASHED", seconds=400)
    output, _ = stage.command.communicate(timeout=400)
    assert stage.command.returncode == 0
    assert json.loads(output.splitlines()[-1])["rows"] > 0
    silent = [run for run in prefect.call("POST", "flow_runs/filter") if "timeout: 300" in str(run["parameters"])]
    assert len(silent) == 2
    for run in silent:
        assert run["total_run_time"] > SILENT >= 2 * SILENCE
        states = prefect.call("GET", f"flow_run_states/?flow_run_id={run['id']}")
        names = [state["type"] for state in sorted(states, key=lambda state: state["timestamp"])]
        assert names[-1] == "COMPLETED", names
        assert "CRASHED" not in names


def test_deployments_have_the_heartbeat_of_commands() -> None:
    settings = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    for item in settings["deployments"]:
        assert item["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT)


def execute(stage: Stage, names: list[str]) -> dict[str, dict[str, Any]]:
    """Run deployments with settings that cannot be used, as a worker would; returns the states in which they end."""
    ends = {}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.flows.engines"],
        env=os.environ | stage.prefect.environment | {"PYTHONPATH": str(REPOSITORY)},
        cwd=stage.state, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as engines:  # fmt: skip
        assert engines.stdin
        assert engines.stdout
        for name in names:
            # No worker takes what is pending.
            run = stage.prefect.start(name, *WRONG[name][0], state="PENDING")
            engines.stdin.write(f"{run}\n")
            engines.stdin.flush()
            assert engines.stdout.readline(), f"the engine of {name} took the others with it"
            ends[name] = stage.prefect.state(run)
    return ends


def roots(drawn: dict[str, Path]) -> dict[str, str]:
    return {name: str(drawn[name]) for name in ("pascal_part116", "ade20k_part234", "partimagenet")}


def fill_form(prefect: Served, **fields: object) -> str:
    """Start a build as the form of the run page does, whose fields have types and say what they are."""
    found = deployment(prefect, "build-llamapointinpart")
    form = found["parameter_openapi_schema"]["properties"]
    assert form["config"]["type"] == form["output"]["type"] == "string"
    assert {"rules", "paper"} <= set(form["preset"]["enum"])
    assert {"type": "integer", "minimum": 1} in form["limit"]["anyOf"]
    assert all(field["title"] == name and field["description"] for name, field in form.items())
    parameters = found["parameters"] | fields
    run = prefect.call("POST", f"deployments/{found['id']}/create_flow_run", parameters=parameters)
    return str(run["id"])


class Listener(ThreadingHTTPServer):
    """A webhook of this machine that keeps what it is sent."""

    bodies: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator[Listener]:
        with cls(("127.0.0.1", 0), _Keeps) as server:
            server.bodies = []
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server
            server.shutdown()


class _Keeps(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def webhook(prefect: Served, url: str) -> None:
    """Save a block that calls ``url``, and create the automation with the command."""
    block = "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Webhook\n"
    block += f"Webhook(name='ops', url={url!r}, json_data={{'text': '{{{{subject}}}}: {{{{body}}}}'}}).save('ops')"
    environment = os.environ | prefect.environment
    subprocess.run([sys.executable, "-c", block], env=environment, check=True, capture_output=True)
    command = [sys.executable, "-m", "talking_points", "notify", "custom-webhook/ops"]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "sends to custom-webhook/ops" in done.stdout


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
