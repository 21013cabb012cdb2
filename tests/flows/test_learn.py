"""``make learn`` in miniature: every stage, both controls, all ablations, the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from tasks.learn_jobs import dataset_folder

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = {
    "image_size": 64,
    "limit": 24,
    "vision.backbone_steps": 2,
    "vision.steps": 2,
    "adapt.max_steps": 2,
    "adapt.batch_size": 2,
    "adapt.save_steps": 1,
    "adapt.max_new_tokens": 8,
    "keypoints.limit": 6,
    **{
        f"{stage}.{name}": value
        for stage in ("localizer", "descriptor")
        for name, value in {"max_steps": 3, "batch_size": 4, "eval_points": 4, "save_steps": 2, "eval_steps": 2}.items()
    },
}

FIGURES = {
    "localizer_gt", "localizer_gt_pck", "text_only", "shuffled_images", "centre", "descriptor", "grpo", "frozen_lm",
    "no_gaussian", "no_location", "part_names", "another_point", "zero_shot", "in_domain", "hard",
}  # fmt: skip


def learn(output: Path) -> tuple[dict, str]:
    command = [sys.executable, "-m", "commands.learn", "--output", str(output), "--images", "16"]
    for name, value in SETTINGS.items():
        command += ["--set", f"{name}={value}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((output / "report.json").read_text()), done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_from_nothing_to_figures(tmp_path: Path) -> None:
    report, printed = learn(tmp_path / "learn")
    assert set(report) >= FIGURES
    assert 0 <= report["localizer_gt"] <= 100
    assert set(report["hard"]) == {"localizer_gt", "text_only", "centre", "another_point", "no_location", "points"}
    assert set(report["localizer_gt_pck"]) == {"0.05", "0.1", "0.2"}
    assert set(report["part_names"]) == {"descriptor", "no_gaussian", "no_location"}
    assert report["details"]["no_gaussian"]["words"].keys() == report["details"]["descriptor"]["words"].keys()
    for name in ("ground_truth", "descriptor", "no_gaussian", "no_location"):
        assert report["details"][name]["above_text_only"]["points"] == report["details"]["ground_truth"]["points"]
    seeds = {"adapted-0", "adapted-1", "adapted-2"}
    stages = {"vision", "text-only", "localizer", "descriptor", "judge-b", "frozen-lm", "no-gaussian", "no-location"}
    others = {
        "vision-scenes",
        "scenes",
        "hard-scenes",
        "figures",
        "hard-figures",
        *(f"scores of {name}" for name in {"descriptor"} | seeds),
    }
    assert set(report["stages"]) == stages | seeds | others
    assert "| localizer_gt |" in printed
    assert printed.splitlines()[-1] == str(tmp_path / "learn" / "report.json")
    started = json.loads((tmp_path / "learn" / "train" / "no-gaussian" / "started.json").read_text())
    assert started["descriptor"]["model"] == {"keypoint_tokens": 2, "keypoint_mask": "predicted"}
    hard = datasets.load_dataset(str(dataset_folder(tmp_path / "learn", "hard")))
    names = hard["test"].features["source"].names
    rows = [row for split in hard.values() for row in split]
    assert {names[row["source"]] for row in rows} == {"pascal_part116", "ade20k_part234"}
    assert min(row["instance_count"] for row in rows if names[row["source"]] == "ade20k_part234") >= 2
    for level in ("object_location", "part_location", "point_location"):
        assert not [row[level] for row in rows if "slightly" in row[level]], "coarse words alone"
