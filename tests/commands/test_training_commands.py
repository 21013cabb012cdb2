"""The training commands: wrong input is refused before an orchestrator is started."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from commands import (
    cli,  # noqa: F401  (registers all commands)
    orchestrator,
)
from commands.console import app
from talking_points.config import ConfigError
from tests.patience import patient
from tests.prefect_database import prefect_home
from tests.training.conftest import write_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train-localizer", "--set", "localizer.epochs=none"], "localizer.epochs"),
        (["train-descriptor", "--config", "nowhere.yaml"], "no configuration at"),
        (["adapt-descriptor", "--set", "adapt.reward=best"], "neg_mse"),
        (["evaluate", "--set", "definition=mine"], "definition"),
        (["retrain-and-evaluate", "--set", "limit=0"], "limit"),
        (["restore-champion", "--set", "folder=nowhere"], "no earlier champion"),
    ],
)
def test_wrong_configurations_end_with_exit_code_2(
    command: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # nothing listens there: it must not be asked
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2, done.output
    assert message in done.stderr


def test_who_waits_for_a_mute_server_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(orchestrator, "_SILENCE", 0.1)
    monkeypatch.setattr(orchestrator, "_PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # connections wait in its queue
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/api"
        monkeypatch.setenv("PREFECT_API_URL", url)
        monkeypatch.setenv("NO_PROXY", "")  # it is written to, and restored after the test
        with pytest.raises(ConfigError, match="found none that answers"):
            orchestrator.claim_port()
    assert f"waiting for the Prefect server at {url}" in capsys.readouterr().err


def test_the_champion_before_is_restored(tmp_path: Path) -> None:
    before = {"run": "a", "mpck": 30.0, "previous": None}
    (tmp_path / "champion.json").write_text(json.dumps({"run": "b", "mpck": 40.0, "previous": before}))
    done = CliRunner().invoke(app, ["restore-champion", "--set", f"folder={tmp_path}"])
    assert json.loads(done.stdout) == before
    assert json.loads((tmp_path / "champion.json").read_text()) == before
    assert CliRunner().invoke(app, ["restore-champion", "--set", f"folder={tmp_path}"]).exit_code == 2


@pytest.mark.parametrize(
    "previous",
    [
        {"run": "../../elsewhere", "mpck": 30.0, "previous": None},
        {"run": "a", "mpck": 30.0, "previous": {"run": "/etc", "mpck": 1.0, "previous": None}},
        {"run": "a", "mpck": 1e999, "previous": None},
        {"run": "a", "mpck": 30.0},
        ["a"],
    ],
)
def test_a_champion_that_no_run_wrote_is_refused(tmp_path: Path, previous: object) -> None:
    (tmp_path / "champion.json").write_text(json.dumps({"run": "b", "mpck": 40.0, "previous": previous}))
    done = CliRunner().invoke(app, ["restore-champion", "--set", f"folder={tmp_path}"])
    assert done.exit_code == 2, done.output
    assert "champion.json" in done.stderr
    assert "history.jsonl" in done.stderr
    assert json.loads((tmp_path / "champion.json").read_text())["run"] == "b"


@pytest.mark.slow
def test_a_training_says_at_once_what_it_does_and_is_stopped_within_seconds(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "dataset", rows=24) / "data"
    shutil.copy(data / "train-00000-of-00001.parquet", data / "test-00000-of-00001.parquet")
    given = [f"dataset={data.parent}", f"output={tmp_path / 'out'}", "vision.steps=0", "image_size=64"]
    given += [
        "descriptor.epochs=500",
        "descriptor.batch_size=4",
        "threads=1",
        f"features.folder={tmp_path / 'features'}",
    ]
    command = [sys.executable, "-m", "talking_points", "train-descriptor", *(w for s in given for w in ("--set", s))]
    environment = os.environ | {"PREFECT_HOME": prefect_home(tmp_path / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    begun, lines = time.monotonic(), []
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.monotonic() - begun, line.strip()))
            if "step" in line:
                break
        running = _status(tmp_path / "out")
        stopped = time.monotonic()
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    said = [line for _, line in lines]
    assert said[:2] == ["train-descriptor: checking configuration and inputs", "starting the orchestrator"]
    assert f"descriptor: is made in {tmp_path / 'out' / 'descriptor'}" in said
    assert re.fullmatch(r"descriptor: step \d+ of 3,000, loss [\d.]+, [\d.]+ .*, .* left", said[-1]), said
    assert process.returncode == 130, rest
    assert time.monotonic() - stopped < patient(10)
    assert rest.strip().splitlines()[-1] == "stopped; what is finished is kept, run the same command again to go on"
    assert running["running"]
    (stage,) = running["stages"]
    assert stage["state"] == "training"
    assert stage["progress"]["total"] == 3000
    assert stage["progress"]["done"] > 0
    assert stage["progress"]["seconds_left"] > 0
    after = _status(tmp_path / "out")
    assert not after["running"]
    assert after["stages"][0]["state"] == "stopped"
    assert after["stages"][0]["line"].startswith(
        "the same command goes on from step 0; it was last at descriptor: step "
    )


def _status(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(CliRunner().invoke(app, ["status", str(output), "--json"]).stdout)
    return found
