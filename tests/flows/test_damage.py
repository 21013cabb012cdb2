"""Damaged and deleted files, a full disk, a second build: the next run notices and repairs, or says what to do."""

from __future__ import annotations

import base64
import io
import json
import pickle
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from prefect.settings import PREFECT_RESULTS_LOCAL_STORAGE_PATH, temporary_settings

from commands.status import print_status
from talking_points.config import ConfigError
from tasks.running import build_folder
from tasks.running.build_folder import SETTINGS_FILE
from tasks.running.lease import FolderInUse
from tasks.running.manifests import holds
from tasks.running.progress import STATUS_FILE
from tasks.running.result_records import RefusedRecord, judge_record
from tasks.running.runner import BuildFailed
from tasks.running.storage import Storage
from tests.flows.building import build, published
from tests.tasks.running.test_result_records import Planted

pytestmark = pytest.mark.usefixtures("orchestrator")

SETTINGS = ("limit=12", "shard_size=6")


@pytest.fixture(scope="module")
def finished(orchestrator: None, drawn: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished build and its result records. Copy both before changing them."""
    folder = tmp_path_factory.mktemp("finished")
    with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: folder / "results"}):
        build(folder / "out", drawn, *SETTINGS)
    return folder / "out", folder / "results"


@pytest.fixture
def copy(finished: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A copy whose records the builds of the test use."""
    output = Path(shutil.copytree(finished[0], tmp_path / "out"))
    results = Path(shutil.copytree(finished[1], tmp_path / "results"))
    with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: results}):
        yield output, results


def files(output: Path, results: Path) -> list[Path]:
    """Every shard, published file and result record, in a fixed order."""
    shards = [path for path in output.rglob("*") if path.is_file() and path.name not in {"lock", "settings.json"}]
    return sorted([*shards, *(path for path in results.rglob("*") if path.is_file())])


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("harm", ["flip", "delete"])
@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_files_are_noticed_and_made_again(
    harm: str, seed: int, copy: tuple[Path, Path], finished: tuple[Path, Path], drawn: dict[str, Path]
) -> None:
    draw = random.Random(seed)
    chosen = [path for path in files(*copy) if draw.random() < 0.5]
    assert len(chosen) > 15
    for path in chosen:
        if harm == "flip":
            flip(path, draw)
        else:
            path.unlink()
    result = build(copy[0], drawn, *SETTINGS)
    assert result["executed_shards"] > 0
    assert published(copy[0]) == published(finished[0])
    assert build(copy[0], drawn, *SETTINGS)["executed_shards"] == 0


def test_a_flipped_byte_of_a_record_is_never_believed(finished: tuple[Path, Path]) -> None:
    storage = Storage(finished[0])
    for path in sorted(finished[1].rglob("*"))[::4]:
        content = path.read_bytes()
        true = json.loads(json.loads(content)["result"])
        assert holds(storage, true)
        draw = random.Random(path.name)
        for position in range(0, len(content), 7):
            damaged = bytearray(content)
            damaged[position] ^= 1 << draw.randrange(8)
            try:
                read = json.loads(json.loads(judge_record(bytes(damaged), path.name))["result"])
            except RefusedRecord:
                continue
            assert read == true or not holds(storage, read)


@pytest.mark.parametrize("place", ["serializer", "result"])
def test_planted_records_run_no_code_and_count_as_none(
    place: str, copy: tuple[Path, Path], finished: tuple[Path, Path], drawn: dict[str, Path], tmp_path: Path
) -> None:
    marker = tmp_path / "executed"
    pickled = base64.encodebytes(pickle.dumps(Planted(marker))).decode()
    planted = [path for path in copy[1].rglob("*") if path.is_file()]
    for path in planted:
        record = json.loads(path.read_text())
        record["result"] = pickled
        if place == "serializer":
            record["metadata"]["serializer"] = {"type": "pickle", "picklelib": "pickle"}
        path.write_text(json.dumps(record))
    for runner in ("threads", "processes"):
        result = build(copy[0], drawn, *SETTINGS, f"runner={runner}")
        assert not marker.exists()
        assert (result["executed_shards"], result["reused_shards"]) == ((len(planted) - 3, 0), (0, len(planted) - 3))[
            runner == "processes"
        ]
        assert published(copy[0]) == published(finished[0])


def test_damaged_settings_are_refused_with_the_way_out(copy: tuple[Path, Path], drawn: dict[str, Path]) -> None:
    settings = copy[0] / SETTINGS_FILE
    for content in (b"", b"{]", b"[]", settings.read_bytes().replace(b'"seed": 0', b'"seed": 1')):
        settings.write_bytes(content)
        with pytest.raises(ConfigError, match="resume=if_possible"):
            build(copy[0], drawn, *SETTINGS)
    settings.unlink()
    result = build(copy[0], drawn, *SETTINGS, "resume=if_possible")
    assert result["executed_shards"] == 0
    build(copy[0], drawn, *SETTINGS)


def test_a_damaged_status_is_named(copy: tuple[Path, Path]) -> None:
    (copy[0] / STATUS_FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"status\.json is damaged.*run the build again"):
        print_status(Storage(copy[0]))


def test_the_status_of_a_killed_build_says_so(copy: tuple[Path, Path]) -> None:
    path = copy[0] / STATUS_FILE
    status = json.loads(path.read_text())
    assert status["state"] == "finished"
    path.write_text(json.dumps(status | {"state": "running"}))
    with redirect_stdout(io.StringIO()) as text:
        print_status(Storage(copy[0]))
    assert "killed; run the build again" in " ".join(text.getvalue().split())


def test_a_second_build_is_refused_at_once(copy: tuple[Path, Path], drawn: dict[str, Path]) -> None:
    from talking_points.build_config import BuildConfig
    from talking_points.config import load_config
    from tests.flows.building import CONFIG, overrides

    config = load_config(BuildConfig, CONFIG, overrides(copy[0], drawn, *SETTINGS))
    with build_folder.build_folder(config):
        with pytest.raises(FolderInUse, match="another build is writing"):
            build(copy[0], drawn, *SETTINGS)
        # The command looks before it starts an orchestrator.
        with pytest.raises(FolderInUse, match="another build is writing"):
            build_folder.check_folder(Storage(copy[0]), config)
    build_folder.check_folder(Storage(copy[0]), config)


def test_a_full_disk_is_named_and_room_repairs_it(
    finished: tuple[Path, Path], drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "talking-points-test", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        with pytest.raises(ConfigError, match="MiB free"):
            build(disk / "out", drawn, *SETTINGS)
        monkeypatch.setattr(build_folder, "_RESERVE", 0)
        with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: tmp_path / "results"}):
            with pytest.raises(BuildFailed, match=r"No space left on device.*make room on the disk"):
                build(disk / "out", drawn, *SETTINGS)
            assert not list(disk.rglob("*.part"))
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            assert build(disk / "out", drawn, *SETTINGS)["reused_shards"] > 0
        assert published(disk / "out") == published(finished[0])
    finally:
        # Lazily: a process that the build has ended may hold a file there for another moment.
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
