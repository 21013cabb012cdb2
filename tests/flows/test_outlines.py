"""``make outlines`` in miniature: scenes, questions, the segmenter, its refinements and their controls, the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.outlines import QUESTIONS, build_scenes, outlines_config
from talking_points.config import load_config
from talking_points.evaluation.outline_floors import FLOORS, judge_outlines
from talking_points.instructions.config import InstructionBuildConfig
from tasks.outline_jobs import control_name, outline_jobs, refined_names
from tests.prefect_records import prefect_api

ROOT = Path(__file__).resolve().parents[2]
SHORT = (
    "image_size=64", "segmenter_vision.backbone_steps=2", "segmenter_vision.backbone_batch_size=4",
    "segmenter.max_steps=2", "segmenter.batch_size=4", "refine.batch_size=2", "refine.group=2", "refine.updates=2",
    "refine.max_steps=2", "refine.save_steps=2", "refine.max_new_tokens=6", "control.max_steps=1",
)  # fmt: skip


def test_every_refinement_has_a_control_of_equal_time_and_all_are_judged(tmp_path: Path) -> None:
    jobs = {job.name: job for job in outline_jobs(outlines_config(tmp_path, []), tmp_path, 10, 5, build_scenes)}
    assert {after for job in jobs.values() for after in job.after} <= set(jobs)
    for seed, name in enumerate(refined_names()):
        assert jobs[name].after == ("segmenter",)
        assert jobs[control_name(seed)].after == (name,)
    assert set(jobs["figures"].after) == {*refined_names(), *(control_name(seed) for seed in range(3))}
    built = load_config(InstructionBuildConfig, "configs/build/instructions_plain.yaml", list(QUESTIONS))
    assert built.split.train_parts == 11
    assert set(built.instructions.kinds) == {"text_to_mask", "point_to_mask", "text_to_box"}


def test_floors_are_judged_by_pairs_of_seeds() -> None:
    def way(giou: float) -> dict[str, float]:
        return {"giou": giou, "ciou": giou}

    def compared(edge: float, formed: float) -> dict[str, object]:
        return {"boundary_f": edge, "form": {"well_formed": formed}}

    found = {
        "form": {"well_formed": 99.0}, "res": {"giou": 50.0}, "rec": {"accuracy@0.5": 49.9},
        "ways": {
            "model": way(50), "exchanged images": way(30), "box of the answer": way(46),
            "refined-0": way(54), "continued-0": way(50), "refined-1": way(55), "continued-1": way(53),
        },
        "compared": {
            "refined-0": compared(40, 99), "continued-0": compared(41, 99), "refined-1": compared(44, 100),
            "continued-1": compared(41, 99),
        },
    }  # fmt: skip
    judged = judge_outlines({"splits": {"test": found}})
    assert judged["gain"] == {"by_seed": [4, 2], "mean": 3, "std": pytest.approx(2**0.5)}
    reached = {name for name, one in judged["floors"].items() if one["reached"]}
    assert set(FLOORS) - reached == {"over_box", "box_accuracy"}
    assert judged["floors"]["boundary_gain"]["found"] == 1
    assert judged["floors"]["well_formed"]["found"] == 99.5
    assert judged["floors"]["well_formed_gain"]["found"] == 0.5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_nothing_to_a_report(orchestrator: None, tmp_path: Path) -> None:
    output = tmp_path / "outlines"
    command = [sys.executable, "-m", "commands.outlines", "--output", str(output), "--images", "16", "--questions", "4"]
    command += [part for setting in SHORT for part in ("--set", setting)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PREFECT_API_URL": prefect_api()}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((output / "report.json").read_text())
    assert set(report["floors"]) == set(FLOORS)
    assert len(report["gain"]["by_seed"]) == 3
    for name in refined_names():
        assert {"mean_ratio", "mean_clipped_low", "mean_clipped_high"} <= set(report["stages"][name]["metrics"])
    assert "| held-out drawn scenes |" in done.stdout
    assert done.stdout.rstrip().endswith("report.json")
