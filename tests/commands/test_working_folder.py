"""The folder in which a command is called cannot run code in it, nor change its settings; and it leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands import cli  # noqa: F401  (registers all commands)
from commands.console import app
from tests.flows.building import CONFIG, overrides
from tests.prefect_database import prefect_home

PLANTED = {
    "prefect.toml": "[api]\nurl = 'http://evil.example/api'\n",
    ".env": "COLOR=red\nprefect_api_url=http://evil.example/api\n",
    "pyproject.toml": "[tool.prefect.logging]\nsettings_path = 'logging.yml'\n",
}
COMMANDS = (["build", "--config", CONFIG, "--dry-run"], ["status", "out"], ["evaluate"], ["server"], ["deploy"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("name", PLANTED)
def test_settings_of_prefect_in_the_working_folder_are_refused(
    name: str, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(PLANTED[name])
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert f"in {tmp_path / name}" in done.stderr


UNREADABLE = {
    "prefect.toml": ["no = [toml", "a = " + "[" * 100_000],
    "pyproject.toml": ["tool = 3", "tool = [1]", "[tool]\nprefect = 7"],
    ".env": ["\udcff"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in UNREADABLE.items() for text in texts])
def test_a_file_that_prefect_could_not_read_is_named(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(text, errors="surrogateescape")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["status", "out"])
    assert done.exit_code == 2
    assert name in done.stderr


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "link to nothing", "device"])
def test_what_gives_prefect_something_else_than_us_is_refused(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / (name if kind == "pipe" else "elsewhere")
    if "pipe" in kind:
        os.mkfifo(pipe)
    if kind != "pipe":
        (tmp_path / name).symlink_to("/dev/zero" if kind == "device" else pipe)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["status", "out"])
    assert done.exit_code == 2
    assert str(tmp_path / name) in done.stderr


def test_files_that_set_nothing_of_prefect_are_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=x\n")
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    (tmp_path / "prefect.toml").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "no build found" in CliRunner().invoke(app, ["status", "out"]).stderr


@pytest.mark.slow
def test_modules_in_the_working_folder_are_not_run_and_nothing_stays_in_the_temporary_one(
    drawn: dict[str, Path], tmp_path: Path
) -> None:
    here, temporary, marker = tmp_path / "here", tmp_path / "tmp", tmp_path / "marker"
    here.mkdir()
    temporary.mkdir()
    for name in ("prefect", "uvicorn", "starlette", "numpy", "multiprocessing", "tasks", "flows", "sitecustomize"):
        (here / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write({name!r})\nraise SystemExit(3)\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_API")}
    environment |= {"TMPDIR": str(temporary), "PREFECT_HOME": prefect_home(tmp_path / "prefect")}
    program = str(Path(sys.executable).with_name("talking-points"))
    given = overrides(tmp_path / "out", drawn, "limit=3", "runner=processes")
    build = [program, "build", "--config", CONFIG, *(word for setting in given for word in ("--set", setting))]
    for command in (build, [program, "status", str(tmp_path / "out")]):
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
        assert not marker.exists(), marker.read_text()
        assert done.returncode == 0, done.stderr
    assert not list(temporary.glob("*talking-points*"))
