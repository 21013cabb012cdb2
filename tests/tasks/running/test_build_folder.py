from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from tasks.running.build_folder import FolderInUse, build_folder


def config(output: Path, *overrides: str) -> BuildConfig:
    return load_config(BuildConfig, None, [f"output={output}", "sources.partimagenet.root=/data", *overrides])


def test_the_same_configuration_goes_on(tmp_path: Path) -> None:
    for overrides in ((), ("workers=5", "shard_size=7"), ()):
        with build_folder(config(tmp_path, *overrides)) as storage:
            storage.write_bytes("data/x", b"kept")


@pytest.mark.parametrize("resume", ["always", "if_possible", "never"])
def test_another_configuration(tmp_path: Path, resume: str) -> None:
    with build_folder(config(tmp_path)):
        pass
    changed = config(tmp_path, "seed=4", f"resume={resume}")
    if resume == "if_possible":
        with build_folder(changed):
            return
    with (
        pytest.raises(ConfigError, match="seed: 0 -> 4" if resume == "always" else "resume is 'never'"),
        build_folder(changed),
    ):
        pass


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"thesis\.tex"), build_folder(config(tmp_path)):
        pass


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
