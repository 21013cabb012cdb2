"""The whole way to the paper's tables in small: every step of it, through a real orchestrator and a managed server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from talking_points.config import load_config
from talking_points.evaluation.reproduction import ReproduceConfig, command_line
from tests.publishing.conftest import hub  # noqa: F401  (fixture)
from tests.publishing.local_hub import LocalHub

pytest.importorskip("torch", reason="needs the extra 'train'")


@pytest.mark.slow
def test_every_step_of_the_papers_way_runs_on_tiny_models(tmp_path: Path, hub: LocalHub) -> None:  # noqa: F811
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("talking-points")), "rehearse", str(tmp_path / "r"), "--images", "4",
            "--hub", "org/rehearsed",
        ],
        env=own | hub.environment(tmp_path / "home") | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    paper = load_config(ReproduceConfig, "configs/reproduce/paper.yaml")
    for step in paper.steps:
        assert f"`{command_line(step, paper)}`" in done.stdout
    assert "| publish |" in done.stdout
    assert "What a GPU would change" in done.stdout
    tables = (tmp_path / "r" / "reproduction" / "tables" / "tables.md").read_text()
    assert "OMG-LLaVA | 31.03" in tables
    log = next((tmp_path / "r" / "build" / "llamapointinpart-paper" / ".work" / "servers").iterdir()).read_text()
    assert "ended with exit code" in log
