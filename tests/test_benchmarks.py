"""Every benchmark runs as its own page says, here at its smallest size."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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


FIGURES = "print('{\"a\": 1}', flush=True)"
PARTS_OF_A_RUN: dict[str, tuple[str | None, dict[str, Any]]] = {
    "whole": (FIGURES, {"a": 1}),
    "a line behind the figures": (f"{FIGURES}; print(3)", {"a": 1}),
    "failed with figures": (f"{FIGURES}; raise SystemExit(3)", {"a": 1, "failed": "exit code 3: "}),
    "nothing but a number": ("print(3)", {"failed": "exit code 0: "}),
    "out of time with figures": (f"{FIGURES}; import time; time.sleep(60)", {"a": 1, "left_out": None}),
    "not run": (None, {"failed": None}),
}


@pytest.mark.parametrize("part", PARTS_OF_A_RUN)
def test_a_part_of_the_gpu_benchmark_keeps_what_it_found(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine minutes of a machine are not lost with the part that fails or takes too long."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    gpu = import_module("gpu")
    code, expected = PARTS_OF_A_RUN[part]
    command = ["no-such-program"] if code is None else [sys.executable, "-c", code]
    found = gpu.run_step(command, 1.0 if "time" in part else 30.0)
    found.pop("seconds", None)
    assert found.keys() == expected.keys()
    assert all(value is None or found[name] == value for name, value in expected.items())
    said = gpu.without_nan({"a": {"share_of_peak": float("nan")}, "b": 1.0})
    assert said == {"a": {"share_of_peak": None}, "b": 1.0}


def test_the_gpu_benchmark_tells_what_it_has_when_it_is_stopped(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--tiny"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        while "inference: runs" not in running.stderr.readline():
            assert running.poll() is None
        running.terminate()
        out, _ = running.communicate(timeout=60)
    assert running.returncode == 143
    found = json.loads(out.splitlines()[-1])
    assert found["machine"]["device"] == "cpu"
    assert found["inference"] == {"left_out": "the command was stopped in it"}
