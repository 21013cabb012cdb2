"""A finished build is recognised before anything is started, and nothing else is taken for one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.settings import PREFECT_RESULTS_LOCAL_STORAGE_PATH, temporary_settings

from commands.build import find_finished
from commands.local import RECORDS
from talking_points.build_config import BuildConfig
from talking_points.config import load_config
from tasks.running.build_checks import check_build
from tasks.running.storage import Storage
from tests.flows.building import CONFIG, build, made, overrides


@pytest.fixture(scope="module")
def built(orchestrator: None, drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished build, ``out``, and its only source, ``partimagenet``."""
    folder = tmp_path_factory.mktemp("finished")
    source = Path(shutil.copytree(drawn["partimagenet"], folder / "partimagenet"))
    with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: folder / "out" / ".work" / "results"}):
        assert build(folder / "out", {"partimagenet": source}, "shard_size=5")["rows"] == 12
    return folder


def look(folder: Path, *more: str) -> dict[str, object] | None:
    """What a command finds in the folder."""
    roots = {"partimagenet": folder / "partimagenet"}
    settings = load_config(BuildConfig, CONFIG, overrides(folder / "out", roots, "shard_size=5", *more))
    return find_finished(settings, Storage(settings.output), check_build(settings), folder / "out/.work/results")


@pytest.fixture
def copy(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in a process without a server and with the records where the command has them."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    folder = Path(shutil.copytree(built, tmp_path / "copy"))
    monkeypatch.setenv(RECORDS, str(folder / "out/.work/results"))
    return folder


def test_a_finished_build_is_found_and_told_as_a_run_that_reuses_all(copy: Path) -> None:
    before = json.loads((copy / "out/.work/status.json").read_text())
    found = look(copy, "workers=3")
    assert found is not None
    assert (found["rows"], found["rejected"], found["executed_shards"]) == (12, 0, 0)
    after = json.loads((copy / "out/.work/status.json").read_text())
    assert after["state"] == "finished"
    assert made(copy / "out") == {}
    for name, stage in after["stages"].items():
        earlier = before["stages"][name]
        nothing_made = {"executed": 0, "executed_rows": 0, "executed_seconds": 0.0}
        assert stage == earlier | {"reused": earlier["executed"]} | nothing_made


def _first(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte of a shard": lambda folder: _flip(_first(folder, "out/.work/generate/*.parquet")),
    "a byte of the dataset": lambda folder: _flip(_first(folder, "out/data/*.parquet")),
    "the card": lambda folder: _first(folder, "out/README.md").write_text("another"),
    "no figure": lambda folder: _first(folder, "out/figures/*.png").unlink(),
    "no manifest": lambda folder: _first(folder, "out/manifest.json").unlink(),
    "no record": lambda folder: _first(folder, "out/.work/results/refine-*").unlink(),
    "a byte of a record": lambda folder: _flip(_first(folder, "out/.work/results/verify-*")),
    "another source file": lambda folder: os.utime(_first(folder, "partimagenet/**/*.JPEG"), (1, 1)),
    "a new source file": lambda folder: (folder / "partimagenet" / "new").touch(),
    "a run that was killed": lambda folder: (folder / "out/.work/status.json").write_text('{"state": "running"}'),
    "a damaged status": lambda folder: (folder / "out/.work/status.json").write_text("[]"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_left_to_the_flow(copy: Path, change: str) -> None:
    CHANGES[change](copy)
    assert look(copy) is None


def test_other_settings_and_other_places_are_left_to_the_flow(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(copy, "verification.min_words=7", "resume=if_possible") is None
    assert look(copy, "resume=if_possible") is not None
    assert look(copy, "seed=1") is None
    assert look(copy, "publish.repo=org/name") is None
    for name, value in {
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": "s3-bucket/results",
        "PREFECT_TASKS_REFRESH_CACHE": "true",
        RECORDS: "/somewhere/else",
    }.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert look(copy) is None, name
    profiles = copy / "profiles.toml"
    profiles.write_text('active = "mine"\n[profiles.mine]\nPREFECT_TASKS_REFRESH_CACHE = "true"\n')
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(profiles))
    assert look(copy) is None
    profiles.write_text('active = "mine"\n[profiles.mine]\nPREFECT_TASKS_REFRESH_CACHE = ""\n')
    assert look(copy) is not None
