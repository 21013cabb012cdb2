"""What the README says is so: its commands run, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer

from commands import cli  # noqa: F401  (registers all commands)
from commands.console import app
from talking_points.build_config import BuildConfig
from talking_points.config import load_config
from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.paper import ROWS
from talking_points.evaluation.pose_config import EvaluatePosesConfig
from talking_points.evaluation.reproduction import ReproduceConfig, command_line
from talking_points.evaluation.retraining_config import RetrainConfig
from talking_points.evaluation.segmentation_config import EvaluateSegmentationConfig
from talking_points.examples.keypoint_authors import DescribeKeypointsConfig
from talking_points.instructions.config import InstructionBuildConfig
from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.config import TrainConfig
from talking_points.training.segmenter_config import SegmenterConfig
from tests.blocks import BLOCKS, PAGES, ROOT


def blocks(page: str, language: str) -> list[str]:
    return [block.text for block in BLOCKS if (block.page, block.language) == (page, language)]


def console_lines(page: str) -> list[str]:
    """What is typed of a page's blocks, continuation lines joined."""
    return [line for block in BLOCKS if block.page == page for line in block.commands]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_named_commands_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"talking-points ([a-z][a-z-]+)", text)) <= known
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", text, flags=re.MULTILINE)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }


def test_every_command_is_in_the_readme() -> None:
    table = (ROOT / "README.md").read_text()
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert re.search(rf"`(talking-points )?{name}\b", table), f"the README does not say what '{name}' does"


def test_arguments_are_called_in_the_readme_as_in_the_help_which_says_of_every_option_what_it_is() -> None:
    table = (ROOT / "README.md").read_text()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert [option.name for option in command.params if not option.help] == [], name
        command = typer.main.get_command(app).get_command(None, name)  # type: ignore[attr-defined]
        arguments = [word.metavar for word in command.params if word.param_type_name == "argument"]
        for written in re.findall(rf"^\| `talking-points {name} ([A-Z/_ ]+?)(?: --.*)?`", table, flags=re.MULTILINE):
            words = written.split()
            assert all(word in (argument or "").split("|") for word, argument in zip(words, arguments, strict=False)), (
                name,
                words,
                arguments,
            )


def test_every_row_of_the_papers_tables_is_explained() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert set(ROWS) <= set(re.findall(r"`(\w+)`", " ".join(table)))


def test_the_command_for_the_real_datasets_is_a_valid_one(drawn: dict[str, Path], tmp_path: Path) -> None:
    command = next(line for line in console_lines("README.md") if "/data/PascalPart116" in line)
    for source, folder in (
        ("pascal_part116", "PascalPart116"),
        ("ade20k_part234", "ADE20KPart234"),
        ("partimagenet", "PartImageNet"),
    ):
        assert f"/data/{folder}" in command
        command = command.replace(f"/data/{folder}", str(drawn[source]))
    command = command.replace("/data/llamapointinpart", str(tmp_path / "out"))
    executable = Path(sys.executable).with_name("talking-points")
    done = subprocess.run([executable, *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "points" in done.stdout


def test_every_command_that_is_printed_is_a_valid_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options, configurations and settings are there; what is not ours is of a program that is known to be named."""
    (tmp_path / "photo.jpg").touch()  # the reader's own
    monkeypatch.chdir(tmp_path)
    others = Counter[str]()
    for page in PAGES:
        for line in console_lines(page):
            words = shlex.split(line)
            if words[0] != "talking-points":
                others[words[0]] += 1
                continue
            name, *arguments = words[1:]
            command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
            context = command.make_context(name, list(arguments))
            config = context.params.get("config")
            if config is not None:
                load_config(_kind(name), config, context.params["overrides"] or ())
    # make: its targets are looked at above; the rest is run by hand, with servers and machines that a test has not.
    programs = ". accelerate dask docker export make pip prefect py python python3 python3.11 vllm"
    assert set(others) == set(programs.split())


def _kind(command: str) -> Any:
    if command == "build":
        return BuildConfig
    others = {
        "describe-keypoints": DescribeKeypointsConfig,
        "build-instructions": InstructionBuildConfig,
        "evaluate": EvaluateConfig,
        "evaluate-poses": EvaluatePosesConfig,
        "plan": ReproduceConfig,
        "reproduce": ReproduceConfig,
        "train-answerer": AnswererConfig,
        "train-segmenter": SegmenterConfig,
        "refine-segmenter": SegmenterConfig,
        "evaluate-segmentation": EvaluateSegmentationConfig,
    }
    if command in others:
        return others[command]
    return RetrainConfig if command == "retrain-and-evaluate" else TrainConfig


def test_the_papers_way_in_the_readme_is_what_reproduce_and_the_rehearsal_walk() -> None:
    paper = load_config(ReproduceConfig, "configs/reproduce/paper.yaml")
    walked = [command_line(step, paper) for step in paper.steps]
    printed = [" ".join(line.split()) for line in console_lines("README.md")]
    first = printed.index(walked[0])
    assert printed[first : first + len(walked)] == walked
