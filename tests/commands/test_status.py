"""``talking-points status``, also of a folder that somebody else made."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from commands import (
    cli,  # noqa: F401  (adds its commands)
    status,
)
from commands.console import app
from commands.status import read_status
from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from talking_points.locks import only_writer
from talking_points.whole_files import write_json
from tasks.running.build_folder import SETTINGS_FILE, build_folder
from tasks.running.progress import STATUS_FILE
from tasks.running.stages import WORK
from tasks.running.storage import Storage

STATUS = {"state": "finished", "seconds": 3.0, "time": "2026-01-02T03:04:05+00:00", "stages": {}, "failures": []}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["status", *map(str, arguments)], env={"COLUMNS": "160"})


REJECTED = ("stage", "id", "source", "image_path", "reason", "detail")


@pytest.fixture
def status_file(tmp_path: Path) -> Path:
    path = tmp_path / STATUS_FILE
    path.parent.mkdir()
    path.write_text(json.dumps(STATUS))
    return path


@pytest.mark.parametrize("option", [(), ("--watch",), ("--json",)])
def test_it_ends_its_last_line_once(status_file: Path, tmp_path: Path, option: tuple[str, ...]) -> None:
    done = run(tmp_path, *option)
    assert done.exit_code == 0, done.output
    assert "finished" in done.stdout
    assert done.stdout.endswith("\n")
    assert not done.stdout.endswith("\n\n")


def test_watch_waits_a_moment_for_a_build_that_is_about_to_go_on(
    status_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status_file.write_text(json.dumps(STATUS | {"state": "stopped"}))
    monkeypatch.setattr(status, "LOOK_EVERY", 0.1)
    holds = iter([False, False, True, True])
    monkeypatch.setattr(status, "in_use", lambda storage: next(holds, False))
    assert run(tmp_path, "--watch").exit_code == 0
    assert next(holds, None) is None, "it looked until the build was over"
    monkeypatch.setattr(status, "_BEGINS_WITHIN", 0.1)
    assert run(tmp_path, "--watch").exit_code == 0, "and not for ever"


NESTED = b'{"stages":' + b"[" * 3000 + b"]" * 3000 + b"}"


@pytest.mark.parametrize("option", [(), ("--watch",), ("--json",)])
@pytest.mark.parametrize("content", [None, NESTED], ids=["pipe", "nested"])
def test_a_status_that_is_no_file_of_ours_is_named(
    status_file: Path, tmp_path: Path, option: tuple[str, ...], content: bytes | None
) -> None:
    plant(status_file, content)
    done = run(tmp_path, *option)
    assert done.exit_code == 2, done.output
    assert "status.json is damaged" in done.stderr


WORKER = {"worker": "a", "threads": 1, "tasks": []}


@pytest.mark.parametrize(
    "damage",
    [
        {"seconds": float("inf")},
        {"time": "0001-01-01T00:00:00+23:59"},
        {"slowest": [{"shard": "a", "seconds": float("inf"), "rows": 1}], "workers": [WORKER], "idle_share": 0.1},
        {"workers": [WORKER], "idle_share": 10**400},
    ],
    ids=str,
)
def test_numbers_and_times_that_there_are_not_are_damage(
    status_file: Path, tmp_path: Path, damage: dict[str, Any]
) -> None:
    status_file.write_text(json.dumps(STATUS | damage))
    done = run(tmp_path)
    assert done.exit_code == 2, done.output
    assert "status.json is damaged" in done.stderr


def test_a_build_on_a_machine_with_another_time_is_running(
    status_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status_file.write_text(json.dumps(STATUS | {"state": "running"}))
    assert "killed" in run(tmp_path).stdout
    monkeypatch.setattr(status, "listen_for_holder", lambda storage: "a lease that is heard of")
    assert "running" in run(tmp_path).stdout


@pytest.mark.parametrize("content", [None, NESTED], ids=["pipe", "nested"])
def test_settings_that_are_no_file_of_ours_are_named(tmp_path: Path, content: bytes | None) -> None:
    config = load_config(BuildConfig, None, [f"output={tmp_path / 'out'}", "sources.partimagenet.root=/data"])
    with build_folder(config) as storage:
        storage.write_bytes(f"{WORK}/index/partimagenet/00000.parquet", b"made")
    plant(Path(storage.path(SETTINGS_FILE)), content)
    with (
        pytest.raises(ConfigError, match=r"settings\.json is (missing or damaged|no regular file)"),
        build_folder(config),
    ):
        pass


def test_a_pipe_among_the_rejected_rows_is_named(status_file: Path, tmp_path: Path) -> None:
    os.mkfifo(status_file.parent / "x.rejected.parquet")
    done = run(tmp_path, "--rejected")
    assert done.exit_code == 2, done.output
    assert "x.rejected.parquet" in done.stderr


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"PAR1", 2),
        (pa.table({"a": [1]}), 2),
        (pa.table({name: [None] for name in REJECTED}), 0),
        (pa.table({name: [7] for name in REJECTED}), 0),
    ],
    ids=["torn", "other", "empty", "numbers"],
)
def test_rejected_rows_of_another_form_are_no_traceback(
    status_file: Path, tmp_path: Path, content: Any, code: int
) -> None:
    path = status_file.parent / "x.rejected.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(content, path)
    done = run(tmp_path, "--rejected")
    assert done.exit_code == code, done.output
    assert code == 0 or "x.rejected.parquet" in done.stderr


def plant(path: Path, content: bytes | None) -> None:
    """Put a pipe, or what is given, in the place of a file."""
    path.unlink()
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)


def test_a_training_shows_its_stages(tmp_path: Path) -> None:
    done, stopped = tmp_path / "localizer", tmp_path / "vision"
    for folder in (done, stopped):
        write_json(folder / "started.json", {})
    write_json(done / "stage.json", {"seconds": 83.0, "metrics": {"step": 40, "loss": 0.25, "train_runtime": 80.0}})
    write_json(stopped / "checkpoint-20" / "complete.json", {})
    (stopped / ".progress.json").write_text('{"line": "vision: step 2')  # torn, as by another program
    assert [" ".join(line.split()) for line in run(tmp_path).stdout.splitlines()[2:]] == [
        "localizer done in 1 min 23 s, step 40, loss 0.25",
        "vision stopped the same command goes on from step 20",
    ]
    with only_writer(stopped, "a training"):
        status = json.loads(run(tmp_path, "--json").stdout)
        assert status["running"]
        assert [stage["state"] for stage in status["stages"]] == ["done", "training"]
        assert " ".join(run(stopped).stdout.split()) == f"{stopped} vision training has begun"
    (done / "stage.json").write_text('{"seconds": 3')
    broken = run(tmp_path)
    assert broken.exit_code == 2
    assert "stage.json is damaged" in broken.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "finished, 3 s in the last run until 2026-01-02 03:04:05 UTC"),
        ({"seconds": 7384.0}, "finished, 2 h 03 min in the last run until"),
        ({"state": "failed", "error": "no answer from http://127.0.0.1:9/v1"}, "failed: no answer from http://127"),
        ({"state": "running"}, "killed; run the build again to go on, 3 s in the last run until"),
    ],
)
def test_the_last_run_is_told_in_words(status_file: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    status_file.write_text(json.dumps(STATUS | change))
    assert says in " ".join(run(tmp_path).stdout.split())


def test_a_store_without_a_build_is_named_as_it_was_given() -> None:
    with pytest.raises(ConfigError, match="no build found in memory://nothing/here, nor a training"):
        read_status(Storage("memory://nothing/here"))
