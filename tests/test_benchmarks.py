"""Every benchmark runs as its own page says, here at its smallest size."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

SMALLEST = {
    "answering": ["--rounds", "1", "--objects", "1"],
    "backends": ["--rows", "4", "--tokens", "2"],
    "candidates": ["--images", "2", "--plain-images", "2"],
    "gpu": ["--tiny"],
    "grpo_against_trl": ["--prompts", "2", "--new-tokens", "4", "--steps", "1"],
    "gspo_against_trl": ["--prompts", "2", "--group", "2", "--new-tokens", "4", "--steps", "1"],
    "outlines": ["--images", "2", "--repeats", "1"],
    "overhead": ["--images", "2"],
    "peers": ["--rows", "6", "--peers", "ours"],
    "resume": ["--images", "2"],
    "rollouts": ["--questions", "2", "--group", "2", "--tokens", "4"],
    "scale": ["rows", "30"],
    "small_model": ["--rows", "2", "--config", "build/rules.yaml"],
    "texts": ["--rows", "4"],
}


PARTS = {"trl_side", "null_server", "peer_jobs", "omg_llava", "scale_stage", "training"}
"""Programs that a benchmark starts, and what several of them import."""


def test_all_are_tried() -> None:
    assert {path.stem for path in BENCHMARKS.glob("*.py")} - PARTS == set(SMALLEST)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_ends_with_a_figure(name: str, tmp_path: Path) -> None:
    if name.endswith("against_trl") and find_spec("trl") is None:
        pytest.skip("TRL is not installed: the benchmark says how to install it")
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *SMALLEST[name]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\d", done.stdout.splitlines()[-1])
    if name == "gpu":
        steps = json.loads(done.stdout.splitlines()[-1])
        assert steps["inference"]["tiny"]["describe_samples_per_second"] > 0
        assert min(steps["training"]["tiny"][stage] for stage in ("sft", "localizer", "grpo")) > 0
        assert [name for name, step in steps.items() if "left_out" in step] == ["parity", "answering", "text"]
