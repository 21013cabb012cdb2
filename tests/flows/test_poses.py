"""``make poses`` in miniature: scenes, the vision model, the answerer and its twin, the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.poses import FLOORS, poses_config
from talking_points import PointLocalizer
from talking_points.sources.drawn import draw_sample
from tasks.pose_jobs import pose_jobs
from tests.blocks import KEYPOINTS, printed_by, run_lines
from tests.prefect_records import prefect_api
from tests.training.conftest import small

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("answerer.max_steps=2", "answerer.batch_size=3", "pose_vision.steps=2", "pose_vision.batch_size=4")


def test_figures_wait_for_both_models_and_the_twin_takes_the_same_steps(tmp_path: Path) -> None:
    config = poses_config(tmp_path, [])
    jobs = {job.name: job for job in pose_jobs(config, tmp_path, 10)}
    assert {after for job in jobs.values() for after in job.after} <= set(jobs)
    for name in ("figures-new", "figures-seen"):
        assert set(jobs[name].after) == {"answerer", "answerer-blind", "fresh-scenes"}
    twin = config.blind_twin()
    assert twin.answerer.blind
    assert twin.answerer.model_copy(update={"blind": False}) == config.answerer


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_nothing_to_a_report(orchestrator: None, tmp_path: Path) -> None:
    output = tmp_path / "poses"
    command = [sys.executable, "-m", "commands.poses", "--output", str(output), "--images", "60", "--objects", "10"]
    command += [part for setting in SHORT for part in ("--set", setting)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PREFECT_API_URL": prefect_api()}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((output / "report.json").read_text())
    for name, found in report["sighted_minus_blind"].items():
        low, high = found["interval"]
        assert found["reached"] == (found["difference"] >= FLOORS[name] and low > 0)
        assert low <= found["difference"] <= high
    assert 0 <= report["oracle"] <= 100
    assert report["seen"]["seen_categories"]
    assert not report["new"]["seen_categories"]
    assert "| sighted less blind, PCK@0.1 |" in done.stdout

    # The models in one table with others, as docs/keypoints.md prints it.
    (tmp_path / "build").mkdir()
    trained = poses_config(output, []).output
    for name, model in (("", ""), ("-blind", "-blind"), ("-token", "")):
        (tmp_path / "build" / f"answerer{name}").symlink_to(trained / f"answerer{model}")
    small(PointLocalizer).save_pretrained(tmp_path / "build" / "localizer")
    (tmp_path / "MP100").symlink_to(draw_sample(tmp_path / "drawn", 12, 5, sources=["mp100"])["mp100"])
    (block,) = printed_by(KEYPOINTS)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    told = run_lines(block.commands, tmp_path, environment)
    assert all(name in told for name in ("greedy", "beam", "mean", "blind", "localizer", "token")), told
