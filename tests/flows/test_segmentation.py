"""The way of docs/segmentation.md, as printed but for its sizes, from an empty folder to an answer."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.prefect_records import prefect_api
from tests.test_readme import blocks, console_lines

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/segmentation.md"
SMALLER = {
    "--images 200": "--images 6", "max_steps=300": "max_steps=2", "backbone_steps=200": "backbone_steps=2",
    "max_steps=16": "max_steps=4", "limit=50": "limit=3",
}  # fmt: skip
MORE = {
    "train-segmenter": ["--set", "segmenter.batch_size=4", "--set", "segmenter_vision.backbone_batch_size=4"],
    "refine-segmenter": [
        "--set", "segmenter.batch_size=4", "--set", "segmenter_vision.backbone_batch_size=4", "--set",
        "refine.batch_size=4", "--set", "refine.group=2", "--set", "refine.save_steps=4", "--set",
        "refine.max_new_tokens=8",
    ],
    "evaluate-segmentation": ["--set", "max_new_tokens=8"],
}  # fmt: skip

PLANNED = {
    "refine-segmenter": "questions, 4 in a rollout, 2 answers to each",
    "evaluate-segmentation": "split test: 3 ",
}
"""What the plans of two of them say."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_way_of_the_page_leads_to_an_answer(orchestrator: None, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    environment["PREFECT_API_URL"] = prefect_api()  # a server of its own for each command takes four seconds
    (tmp_path / "home").mkdir()

    def run(arguments: list[str]) -> str:
        command = [sys.executable, "-m", "talking_points", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{arguments}\n{done.stderr[-3000:]}"
        return done.stdout

    lines = [line for line in console_lines(PAGE) if line.startswith("talking-points ")]
    for line in lines:
        for printed, smaller in SMALLER.items():
            line = line.replace(printed, smaller)
        words = shlex.split(line)[1:]
        if words[0] in PLANNED:
            assert PLANNED[words[0]] in run([*words, *MORE.get(words[0], []), "--dry-run"])
        output = run([*words, *MORE.get(words[0], [])])
    found = json.loads(output.splitlines()[-1])
    assert set(found["splits"]) == {"test"}
    report = json.loads((tmp_path / found["path"] / "report.json").read_text())
    assert "supervised" in report["splits"]["test"]["ways"]
    Image.new("RGB", (60, 40), "green").save(tmp_path / "photo.jpg")
    (block,) = blocks(PAGE, "python")
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
