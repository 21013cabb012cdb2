from __future__ import annotations

import fcntl  # noqa: F401  # before the test changes its user, who may not read it
import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands.publish_commands import _only_publisher
from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from talking_points.locks import FolderInUseError
from tasks.running.build_folder import SETTINGS_FILE, build_folder, check_folder
from tasks.running.folder_lock import in_use
from tasks.running.lease import FolderInUse
from tasks.running.progress import STATUS_FILE
from tasks.running.stages import WORK
from tasks.running.storage import Storage
from tests.nobody import as_nobody


def config(output: Path, *overrides: str) -> BuildConfig:
    return load_config(BuildConfig, None, [f"output={output}", "sources.partimagenet.root=/data", *overrides])


def test_the_same_configuration_goes_on(tmp_path: Path) -> None:
    for overrides in ((), ("workers=5", "shard_size=7"), ()):
        with build_folder(config(tmp_path, *overrides)) as storage:
            storage.write_bytes("data/x", b"kept")


@pytest.mark.parametrize("resume", ["always", "if_possible", "never"])
def test_another_configuration(tmp_path: Path, resume: str) -> None:
    with build_folder(config(tmp_path)) as storage:
        storage.write_bytes(f"{WORK}/index/partimagenet/00000.parquet", b"made")
    changed = config(tmp_path, "seed=4", f"resume={resume}")
    if resume == "if_possible":
        with build_folder(changed):
            return
    with (
        pytest.raises(ConfigError, match="seed: 0 -> 4" if resume == "always" else "resume is 'never'"),
        build_folder(changed),
    ):
        pass


@pytest.mark.parametrize("resume", ["always", "never"])
def test_a_build_that_made_nothing_stands_in_nobodys_way(tmp_path: Path, resume: str) -> None:
    with build_folder(config(tmp_path)) as storage:
        storage.write_json(STATUS_FILE, {})
    with build_folder(config(tmp_path, "seed=4", f"resume={resume}")) as storage:
        assert storage.read_json(SETTINGS_FILE)["settings"]["seed"] == 4


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"thesis\.tex"), build_folder(config(tmp_path)):
        pass


@pytest.mark.parametrize(
    "name",
    [".work", ".work/requests", ".work/index/ade20k", ".work/a/b/c/d", "data", "data/train", "rejected/a", "figures"],
)
def test_links_inside_an_output_are_refused(tmp_path: Path, name: str) -> None:
    """Promise kept: a build folder from somebody else leads no build to write elsewhere."""
    output, elsewhere = tmp_path / "output", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if name != ".work":
        with build_folder(config(output)):
            pass
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="is a link"), build_folder(config(output)):
        pass
    with pytest.raises(ConfigError, match="is a link"):
        check_folder(Storage(output), config(output))
    assert not list(elsewhere.iterdir())


def test_publishing_waits_for_nobody(tmp_path: Path) -> None:
    with (
        build_folder(config(tmp_path)),
        pytest.raises(ConfigError, match="a build is writing to"),
        _only_publisher(tmp_path),
    ):
        pass
    with (
        _only_publisher(tmp_path),
        pytest.raises(FolderInUseError, match=r"a publication .* is writing"),
        _only_publisher(tmp_path),
    ):
        pass
    with _only_publisher(tmp_path / "downloaded"):
        assert not (tmp_path / "downloaded").exists()


def test_an_output_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot"), build_folder(config(tmp_path / "file" / "out")):
        pass


def test_a_second_build_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from talking_points.build_config import BuildConfig; from talking_points.config import load_config\n"
        "from tasks.running.build_folder import build_folder\n"
        f"c = load_config(BuildConfig, None, ['output={tmp_path}', 'sources.partimagenet.root=/data'])\n"
        "with build_folder(c):\n    print('locked', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "locked"
        with pytest.raises(FolderInUse, match="another build"), build_folder(config(tmp_path)):
            pass
    finally:
        holder.kill()
        holder.wait()
    with build_folder(config(tmp_path)):
        pass


@pytest.mark.parametrize("name", ["a[b]", "a::b", "a*", "what?", "line\nbreak", "\x1b[2Jgone", "half\udcff", ""])
def test_names_that_nobody_could_load_are_refused_before_anything_starts(name: str) -> None:
    with pytest.raises(ConfigError, match="choose another output"):
        load_config(BuildConfig, None, output=name, sources={"partimagenet": {"root": "/data"}})


@pytest.mark.parametrize("name", ["with spaces", "a#b", "~tilde", "100%", "{a}", "ä", "a:b", "file://"])
def test_odd_names_are_paths_and_nothing_else(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = f"file://{tmp_path}/there" if name == "file://" else name
    settings = load_config(BuildConfig, None, output=output, sources={"partimagenet": {"root": "/data"}})
    with build_folder(settings) as storage:
        storage.write_bytes("data/x", b"kept")
    place = tmp_path / (name if name != "file://" else "there")
    assert (place / "data" / "x").read_bytes() == b"kept"
    storage.remove("data")
    assert not (place / "data").exists()


def test_a_tilde_is_the_home_folder() -> None:
    settings = load_config(BuildConfig, None, output="~/points", sources={"partimagenet": {"root": "/data"}})
    assert settings.output == str(Path.home() / "points")


def test_a_folder_of_somebody_else_can_be_looked_at_and_not_built_into(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with build_folder(config(output)):
        pass
    for path in output.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    output.chmod(0o555)
    closed = [path for path in tmp_path.parents if not path.stat().st_mode & 0o001] + [tmp_path]

    def look() -> str:
        running = in_use(Storage(output))
        with pytest.raises(ConfigError) as refused, build_folder(config(output)):
            pass
        return f"{running} {refused.value}"

    try:
        for path in closed:
            path.chmod(path.stat().st_mode | 0o011)
        found = as_nobody(look) if os.getuid() == 0 else look()
    finally:
        for path in closed:
            path.chmod(path.stat().st_mode & ~0o011)
        for path in (output, *output.rglob("*")):
            path.chmod(0o755)
    assert found.startswith("False ")
    assert f"belongs to {output.owner()}" in found
    assert "choose another place" in found
