"""``docs/tour.ipynb`` runs from its first cell to its last, and holds no output in the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from talking_points import PointDescriptor, PointLocalizer
from tests.training.conftest import small, write_dataset

TOUR = Path(__file__).resolve().parents[1] / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    found = json.loads(TOUR.read_text(encoding="utf-8"))
    assert (found["nbformat"], found["metadata"]["language_info"]) == (4, {"name": "python"})
    return list(found["cells"])


def test_it_holds_no_outputs(cells: list[dict[str, Any]]) -> None:
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 6
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code), "strip them before a commit"
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_every_cell_runs_in_order(
    cells: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the folders that it names, with untrained models of their kinds."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    write_dataset(Path("build/llamapointinpart"), split="test")
    for name, kind in (("descriptor", PointDescriptor), ("localizer", PointLocalizer)):
        small(kind, max_new_tokens=8).save_pretrained(Path("build/learn/train", name))
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    printed = capsys.readouterr().out
    assert "dog / head at [0.0, 3.0]" in printed
    assert "and is found at" in printed
    assert [line.split("mPCK")[0].strip() for line in printed.splitlines() if "mPCK" in line] == [
        "the dataset", "the descriptor",
    ]  # fmt: skip
    lines = {line.get_label() for line in names["axes"].get_lines()}
    assert lines == {"the point", "found"}
    assert 0 <= names["reports"][0].controls["centre"] <= 100
    matplotlib.pyplot.close(names["figure"])

    described = iter([""])
    names["descriptor"].describe = lambda images, points, **_: [next(described, "the head of the dog") for _ in points]
    exec(compile("".join(cells[-1]["source"]), cells[-1]["id"], "exec"), names)
    printed = capsys.readouterr().out
    assert printed.count("has no answer: empty description") == 1, "a row without an answer is shown, not a traceback"
    assert printed.count("mPCK") == 2
