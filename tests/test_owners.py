"""What another user of the machine owns can be looked at; whoever would write there is told whose it is, at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import commands.cli  # noqa: F401  (adds all commands)
from commands.console import app
from commands.orchestrator import keep_private
from talking_points.config import ConfigError
from talking_points.owners import ClosedError, explain, find_closed, owner_of, refuse_closed
from tests.nobody import as_nobody
from tests.publishing.small_dataset import write_dataset


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A dataset that may be read and not written to, by root neither."""
    dataset = write_dataset(tmp_path / "dataset")
    closed = [dataset, *(path for path in dataset.rglob("*") if path.is_dir())]
    for path in closed:
        path.chmod(0o555)

    real = os.access

    def access(path: str | Path, mode: int) -> bool:
        return real(path, mode) and not (mode & os.W_OK and Path(path).resolve() in closed)

    monkeypatch.setattr(os, "access", access)
    yield dataset
    for path in closed:
        path.chmod(0o755)


WRITING = [
    "report {}",
    "compare {} {} --html {}/page.html",
    "audit {} --report",
    "audit {} --port 0",
    "tables {}/x human=none.json",
    "init {}/x",
    "draw-sample {}/x",
    "rehydrate {} --output {}/x",
    "rehearse {}/x",
    "reproduce -s output={}/x",
    "convert-omg-llava none --output {}/x",
    "convert-capellm none none --output {}/x",
    "retrain-and-evaluate -s folder={}/x",
    *(
        f"{command} -s output={{}}/x"
        for command in (
            *("train-localizer", "train-descriptor", "adapt-descriptor", "train-answerer", "train-segmenter"),
            *("refine-segmenter", "describe-keypoints", "write-pose-rows", "evaluate", "evaluate-poses"),
            "evaluate-segmentation",
        )
    ),
]


@pytest.mark.parametrize("command", WRITING)
def test_commands_that_would_write_there_say_whose_it_is(command: str, closed: Path) -> None:
    before = sorted(path.relative_to(closed) for path in closed.rglob("*"))
    arguments = command.replace("--port 0", "--port 18085").replace("{}", str(closed)).split()
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})
    assert done.exit_code == 2, done.output
    assert f"{closed} belongs to {closed.owner()} and is closed to this user" in done.output
    assert sorted(path.relative_to(closed) for path in closed.rglob("*")) == before


def test_it_can_be_reported_on_elsewhere(closed: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(closed), "--to", str(tmp_path / "mine" / "report")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "mine" / "report" / "index.html").is_file()
    done = CliRunner().invoke(app, ["publish", str(closed), "org/name", "--dry-run", "--allow-partial"])
    assert done.exit_code == 0, done.output


def test_the_system_says_what_is_closed(tmp_path: Path) -> None:
    """To a real other user: no place below a closed folder can be made, a file of one's own in an open one can."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "theirs").write_text("")
    (tmp_path / "hidden" / "deep").mkdir(parents=True)
    (tmp_path / "hidden").chmod(0o700)
    readable = [path for path in tmp_path.parents if not path.stat().st_mode & 0o001] + [tmp_path]
    modes = {path: path.stat().st_mode for path in readable}

    def look() -> str:
        places = (
            tmp_path / "open" / "new" / "x",
            tmp_path / "open" / "theirs",
            tmp_path / "x",
            tmp_path / "hidden/deep",
        )
        return "|".join(str(find_closed(place)) for place in places)

    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    try:
        for path in readable:
            path.chmod(modes[path] | 0o011)
        found = as_nobody(look)
    finally:
        for path, mode in modes.items():
            path.chmod(mode & 0o7777)
    assert found == f"None|{tmp_path / 'open' / 'theirs'}|{tmp_path}|{tmp_path / 'hidden'}"


def test_places_and_what_is_written_inside_them_are_looked_at(closed: Path, tmp_path: Path) -> None:
    refuse_closed(tmp_path / "new" / "x")
    with pytest.raises(ClosedError, match=f"belongs to {closed.owner()}"):
        refuse_closed(closed / "new" / "x")
    open_again = tmp_path / "open"
    open_again.mkdir()
    (open_again / "data").symlink_to(closed / "data")
    with pytest.raises(ClosedError, match=r"open/data belongs to"):
        refuse_closed(open_again, "data")
    assert owner_of(tmp_path / "nowhere") == "somebody else"


def test_errors_about_closed_files_are_told_and_no_others(
    closed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code in (errno.EACCES, errno.EPERM, errno.EROFS):
        assert f"{closed} belongs to" in (explain(OSError(code, os.strerror(code), str(closed / "x"))) or "")
    assert explain(OSError(errno.EACCES, "no file")) is None
    assert explain(OSError(errno.EIO, "broken", str(closed))) is None
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    with pytest.raises(ClosedError, match=r"is on a file system that is mounted read-only; choose another place"):
        refuse_closed(closed / "x")


def test_a_home_that_is_closed_is_named_with_its_variable(closed: Path) -> None:
    with pytest.raises(ConfigError, match=r"belongs to .*: set PREFECT_HOME to another folder"):
        keep_private(closed / ".prefect")
