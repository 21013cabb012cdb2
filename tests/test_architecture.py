"""The rules that keep the three floors apart."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("talking_points", "tasks", "flows")
ROOMS = (
    "records",
    "config",
    "allocator",
    "sources",
    "candidates",
    "descriptions",
    "models",
    "training",
    "evaluation",
    "publishing",
    "audit",
)
FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def imported(path: Path) -> list[str]:
    """Modules that a file imports when it is imported itself: imports inside functions may look anywhere."""
    names: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    for name in imported(path):
        head = name.split(".")[0]
        if head in FLOORS:
            assert FLOORS.index(head) <= floor, f"{path} imports upward: {name}"
        if floor == 0:
            assert head != "prefect", f"{path}: the library knows no Prefect"


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.is_relative_to(ROOT / "talking_points")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_rooms_import_earlier_rooms_only(path: Path) -> None:
    parts = path.relative_to(ROOT / "talking_points").parts
    own = parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imported(path):
        pieces = name.split(".")
        if pieces[0] == "talking_points" and len(pieces) > 1:
            assert ROOMS.index(pieces[1]) <= ROOMS.index(own), f"{path} imports from a later room: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600
    assert path.stem not in {"utils", "helpers", "common", "misc"}


def test_the_library_works_without_prefect_and_torch() -> None:
    code = (
        "import sys; sys.modules['prefect'] = None; sys.modules['torch'] = None\n"
        "import talking_points.sources, talking_points.candidates.build, talking_points.descriptions.steps\n"
        "import talking_points.publishing.card, talking_points.publishing.schema\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
