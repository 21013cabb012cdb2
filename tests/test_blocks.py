"""Every fenced block of every page is run as it is printed, or says why it is not; a new one must find its class in
``tests/blocks.py``.

What is run here is run in one folder with a home of its own, on one build and one pair of tiny models.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from talking_points import PointDescriptor, PointLocalizer
from talking_points.build_config import BuildConfig
from talking_points.evaluation.champions import RetrainConfig
from tests.blocks import BLOCKS, CLASSES, HERE, ROOT, SETTINGS, Run, Shown, printed_by, run_lines
from tests.publishing.local_hub import LocalHub
from tests.publishing.test_model_card import report
from tests.tasks.test_keypoint_texts import writing
from tests.training.conftest import small


def test_every_block_has_a_class() -> None:
    lost = [f"{block.page}:{block.line}: {block.text.splitlines()[0]}" for block in BLOCKS if block.kind is None]
    assert not lost, f"say in CLASSES how these are tested: {lost}"
    used = {max(block.kinds, key=lambda key: len(key[1])) for block in BLOCKS}
    assert set(CLASSES) == used, "classes of blocks that there are not"
    assert len(used) == len(BLOCKS), "one class for each"


def test_classes_keep_their_word() -> None:
    for block in BLOCKS:
        kind, place = block.kind, f"{block.page}:{block.line}"
        if isinstance(kind, Run | Shown) and kind.by:
            file, _, name = kind.by.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(), f"{place}: no test {kind.by}"
        if isinstance(kind, Run):
            assert all(written in " ".join(block.commands) for written, _ in kind.replaced), place
        if isinstance(kind, Shown):
            assert block.language in ("", "mermaid", "json"), f"{place}: {block.language} is code"
        assert block.language != "console", f"{place}: prompts are copied with the commands; use bash"


def test_commands_are_what_a_shell_reads() -> None:
    """Whole when they are copied: no prompt, no comment (which the shell of macOS runs), nothing it would expand."""
    shells = [block for block in BLOCKS if block.language == "bash"]
    lines = [command for block in shells for command in block.commands]
    assert len(lines) > 30
    for line in lines:
        assert not line.startswith(("$", "#", "%")), line
        bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
        assert not re.search(r"[][*?#<>]|\{.*,", bare), f"quote this, or say it in the text: {line}"
    subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=True, timeout=60)
    for words in (shlex.split(line, comments=True) for line in lines):
        if words[0] == "python" and "-c" in words:
            compile(words[words.index("-c") + 1], "a command", "exec")


def test_python_compiles_and_imports_what_there_is() -> None:
    for block in (block for block in BLOCKS if block.language == "python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), f"{block.page}:{block.line}"


def test_settings_are_those_that_there_are() -> None:
    read = []
    for block in BLOCKS:
        if block.language == "yaml":
            values = yaml.safe_load(block.text)
            if "publish" in values:
                RetrainConfig.model_fields["publish"].annotation.model_validate(values["publish"])  # type: ignore[union-attr]
            else:
                BuildConfig.model_validate({"output": "x", **values})
            read.append(block)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "json":
            assert all(isinstance(json.loads(line), dict) for line in block.text.splitlines())
    assert read == printed_by(SETTINGS)


# ------------------------------------------------------------------ run as printed

SESSIONS = """
import contextlib, io, json, sys
printed, sessions = [], {}
for page, code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, page, "exec"), sessions.setdefault(page, {}))
    printed.append(out.getvalue())
print(json.dumps(printed))
"""
"""Runs the Python of each page as one session, and says what every block has printed."""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """What a clone holds and the first blocks need, and the environment that `make build` would make in it."""
    project = tmp_path / "project"
    project.mkdir()
    for name in (
        "Makefile",
        "pyproject.toml",
        "requirements.lock",
        "requirements-base.lock",
        "configs",
        "prefect.yaml",
    ):
        source = ROOT / name
        shutil.copytree(source, project / name) if source.is_dir() else shutil.copy(source, project / name)
    (project / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith("."):
            (project / ".venv" / part.name).symlink_to(part)
    for made in (".base", ".dev"):
        (project / ".venv" / made).touch()
    (tmp_path / "home").mkdir()
    return project


def prepare(project: Path) -> None:
    """What `make learn`, an evaluation and a reader with a photo would have left."""
    for name, model in (("descriptor", small(PointDescriptor, max_new_tokens=4)), ("localizer", small(PointLocalizer))):
        model.save_pretrained(project / "build" / "learn" / "train" / name)
    scores = report("descriptor", localizer="x", images=9, levels={}, words={}, categories={}, undescribed=0)
    (project / "build" / "evaluation").mkdir()
    (project / "build" / "evaluation" / "descriptor.json").write_text(json.dumps({**scores, "predictions": []}))
    (project / "photos").mkdir()
    Image.fromarray(np.zeros((60, 90, 3), np.uint8)).save(project / "photos" / "dog.png")


@pytest.mark.slow
def test_the_pages_work_when_they_are_copied(copied: Path, tmp_path: Path) -> None:
    own = printed_by(HERE)
    environment = {"HOME": str(tmp_path / "home"), "PATH": os.defpath, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    first = [line for block in own if block.page == "README.md" for line in block.typed()]
    printed = run_lines(first, copied, environment | {"IMAGES": "6", "HF_HUB_OFFLINE": "1"})
    assert re.search(r"dataset: .*build/llamapointinpart", printed)
    assert "index.html" in printed

    prepare(copied)
    asked, answered = [block for block in own if block.language == "json"]
    (copied / "rows.jsonl").write_text(asked.text)
    with LocalHub(tmp_path / "hub") as hub, writing() as endpoint:
        environment |= hub.environment(tmp_path / "home" / "hub")
        later = [line for block in own if block.page != "README.md" for line in block.typed()]
        later = [line.replace("ENDPOINT", endpoint) for line in later]
        printed = run_lines([". .venv/bin/activate", *later], copied, environment)
        assert "org/point-descriptor" in printed
        places = [json.loads(line) for line in (copied / "build" / "places.jsonl").read_text().splitlines()]
        assert [list(line) for line in places] == [list(json.loads(line)) for line in answered.text.splitlines()]
        assert places[2] == json.loads(answered.text.splitlines()[2]) | {"error": places[2]["error"]}
        code = [block for block in own if block.language == "python"]
        done = subprocess.run(
            [copied / ".venv" / "bin" / "python", "-c", SESSIONS], cwd=copied, env=environment, capture_output=True,
            input=json.dumps([(block.page, block.text) for block in code]), text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for block, said in zip(code, json.loads(done.stdout), strict=True):
        following = own[own.index(block) + 1 :][:1]
        if following and isinstance(following[0].kind, Shown) and not following[0].language:
            assert said == following[0].text, f"{block.page}:{block.line}"
        elif block.page == "README.md" and "PointLocalizer" in block.text:
            assert "is found at" in said
