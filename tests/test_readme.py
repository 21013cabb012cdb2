"""What the README says is so: its commands run, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from commands import cli  # noqa: F401  (registers all commands)
from commands.console import app
from talking_points.evaluation.paper import ROWS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "docs/operating.md"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


def console_lines(page: str) -> list[str]:
    """Commands of the console blocks: continuation lines joined, comments cut off."""
    text = "\n".join(blocks(page, "console")).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("$ ")]
    return [line[2:].split("  #")[0].strip() for line in lines]


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
    assert set(re.findall(r"`make ([a-z-]+)|^\$ make ([a-z-]+)", text, flags=re.MULTILINE)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }


def test_every_command_is_in_the_readme() -> None:
    table = (ROOT / "README.md").read_text()
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert re.search(rf"`(talking-points )?{name}\b", table), f"the README does not say what '{name}' does"


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


@pytest.mark.slow
def test_make_build_ends_with_a_row_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out"
    variables = [f"VENV={sys.prefix}", f"SAMPLE={tmp_path / 'sample'}", f"OUTPUT={output}", "IMAGES=6"]
    done = subprocess.run(["make", "build", *variables], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert str(output) in done.stdout
    (code,) = blocks("README.md", "python")
    names: dict[str, object] = {}
    exec(code.replace("build/llamapointinpart", str(output)), names)
    dataset: Any = names["dataset"]
    assert dataset["train"][0]["description"]
    assert dataset["test"][0]["description"] in done.stdout
