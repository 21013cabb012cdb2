"""The training commands: wrong input is refused before an orchestrator is started."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from flows import cli  # noqa: F401  (registers all commands)
from flows.console import app


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train-localizer", "--set", "localizer.epochs=none"], "localizer.epochs"),
        (["train-descriptor", "--config", "nowhere.yaml"], "no configuration at"),
        (["adapt-descriptor", "--set", "adapt.reward=best"], "neg_mse"),
        (["evaluate", "--set", "definition=mine"], "definition"),
        (["retrain-and-evaluate", "--set", "limit=0"], "limit"),
    ],
)
def test_wrong_configurations_end_with_exit_code_2(
    command: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # nothing listens there: it must not be asked
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
