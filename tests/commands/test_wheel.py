"""The wheel, installed into an environment of its own, works in any folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ("talking_points", "tasks", "flows", "commands", "prompts", "data_cards", "configs")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from a copy."""
    pytest.importorskip("setuptools", "77", reason="setuptools is not installed here")
    tree, target = tmp_path_factory.mktemp("tree") / "project", tmp_path_factory.mktemp("wheel")
    tree.mkdir()
    for name in PARTS:
        shutil.copytree(REPOSITORY / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "prefect.yaml"):
        shutil.copy(REPOSITORY / name, tree / name)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(target)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, capture_output=True)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a fresh environment that holds this wheel; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A plain path: the link to this tree that an editable installation left there is not followed.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    script = folder / "bin" / "talking-points"
    start = "from commands.cli import main\nif __name__ == '__main__':\n    main()\n"
    script.write_text(f"#!{folder / 'bin' / 'python'}\n{start}")
    script.chmod(0o755)
    return script


def test_the_wheel_holds_what_is_not_code(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.read("configs/prefect.yaml") == (REPOSITORY / "prefect.yaml").read_bytes()
        (metadata,) = [name for name in names if name.endswith("dist-info/METADATA")]
        text = archive.read(metadata).decode()
    for kind in ("configs/*/*.yaml", "prompts/*.jinja", "data_cards/*"):
        files = {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob(kind) if path.is_file()}
        assert files <= names, files - names
    assert {"LICENSE", "NOTICE"} <= {Path(name).name for name in names}
    assert "License-Expression: Apache-2.0" in text
    assert not any(name.startswith("tests") for name in names)


def test_every_command_works_in_any_folder(program: Path, tmp_path: Path) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    home.mkdir()
    environment = {"HOME": str(home), "PATH": os.defpath, "HF_HUB_OFFLINE": "1", "LANG": "C.UTF-8"}

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [program, *arguments], cwd=here, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == code, (arguments, done.stdout[-2000:], done.stderr[-3000:])
        return done.stdout + done.stderr

    assert run("--version").startswith("talking-points ")
    assert str(program.parents[1]) in subprocess.run(
        [program.with_name("python"), "-P", "-c", "import talking_points as t; print(t.__file__)"],
        capture_output=True, text=True, check=True, cwd=here,
    ).stdout  # fmt: skip
    run("draw-sample", "build/sample", "--images", "6")
    quiet = run("--quiet", "build", "--config", "build/sample.yaml", "--set", "limit=6")
    assert quiet.startswith('{"dataset": ')
    assert len(quiet.splitlines()) == 1
    assert "finished" in run("status", "build/llamapointinpart")
    run("audit", "build/llamapointinpart", "--report", "--share", "1", "--split", "train")
    assert "expected a YAML file" in run("build", "--config", "build/ruls.yaml", code=2)
    backend = "refine={backend: llama_cpp, model: x.gguf}"
    (here / "x.gguf").touch()
    planned = run("build", "--config", "build/sample.yaml", "--set", backend, "--set", "output=x", "--dry-run")
    assert ".whl[llama-cpp]" in planned or importlib.util.find_spec("llama_cpp")
    # The shipped files, and then one's own in their place.
    assert "prefect.yaml" in run("init")
    own = here / "configs" / "build" / "rules.yaml"
    own.write_text(own.read_text().replace("shard_size", "no_such_setting"))
    assert "no_such_setting" in run("build", "--config", "configs/build/rules.yaml", code=2)


def test_the_module_is_the_command(program: Path, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise SystemExit('a file of the working folder was run')")
    done = subprocess.run(
        [program.with_name("python"), "-m", "talking_points", "-h"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    panels = ["Build a dataset", "Look at it", "Train and evaluate", "Use the models", "Operate"]
    assert [panel for panel in panels if panel in done.stdout] == panels
    assert [done.stdout.index(panel) for panel in panels] == sorted(done.stdout.index(panel) for panel in panels)
    assert "Exit codes: 0 done" in done.stdout
    assert done.stdout.index(" doctor ") < done.stdout.index(" build ") < done.stdout.index(" describe ")
