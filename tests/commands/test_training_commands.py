"""The training commands: wrong input is refused before an orchestrator is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands import cli  # noqa: F401  (registers all commands)
from commands.console import app


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


def test_the_champion_before_is_restored(tmp_path: Path) -> None:
    before = {"run": "a", "mpck": 30.0, "previous": None}
    (tmp_path / "champion.json").write_text(json.dumps({"run": "b", "mpck": 40.0, "previous": before}))
    done = CliRunner().invoke(app, ["restore-champion", "--set", f"folder={tmp_path}"])
    assert json.loads(done.stdout) == before
    assert json.loads((tmp_path / "champion.json").read_text()) == before
    assert CliRunner().invoke(app, ["restore-champion", "--set", f"folder={tmp_path}"]).exit_code == 2
