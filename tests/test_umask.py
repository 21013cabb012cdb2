"""Who may read what is written is for the umask to say, whatever a library thinks; secrets are their owner's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from commands.orchestrator import PASSWORD, keep_private
from commands.server import keep_password
from talking_points.audit.store import AnswerStore
from talking_points.models.localizer import PointLocalizer
from talking_points.models.stand_in_chat import write_llama
from talking_points.tensor_files import save_tensors
from talking_points.whole_files import write_json
from tasks.running.storage import Storage
from tests.training.conftest import small


def _save_over(path: Path) -> None:
    import torch

    for _ in range(2):
        save_tensors({"a": torch.zeros(2)}, path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "json": lambda folder: write_json(folder / "a.json", {}),
    "tensors": lambda folder: _save_over(folder / "a.safetensors"),
    "model": lambda folder: small(PointLocalizer).save_pretrained(folder / "model"),
    "stand-in": lambda folder: write_llama(folder / "model", awq=True),
    "created": lambda folder: Storage(folder).create("a/1.json", b"{}"),
    "answers": lambda folder: AnswerStore(folder / "audit" / "answers.sqlite"),
}


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> object:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], indirect=True, ids=oct)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_is_written_has_the_mode_of_the_umask(write: Callable[[Path], object], umask: int, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    found = list((tmp_path / "out").rglob("*"))
    assert any(path.is_file() for path in found)
    for path in found:
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(wanted), path
        assert not path.name.endswith(".part")


@pytest.mark.parametrize("umask", [0o000, 0o022], indirect=True, ids=oct)
def test_secrets_are_closed_whatever_the_umask(umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv(PASSWORD, "admin:known")
    keep_private(tmp_path / "prefect")
    with keep_password(4200) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
