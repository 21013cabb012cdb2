"""Images of a shard's rows: each is decoded once, the first rows stay as they were drawn."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from talking_points.descriptions.asking import FIRST_WINDOW
from talking_points.sources.protocol import SkippedImage
from tasks.running.captions import _by_image
from tasks.running.lease import Fence
from tasks.running.shards import Environment, Place
from tasks.running.source_images import ImagesInTurn
from tasks.running.worker_checks import WorkerDiffers
from tests.descriptions.candidates import make_candidate


def environment(root: Path, fence: Fence | None = None) -> Environment:
    places = {"coco_parts": Place(root=str(root), options={})}
    return Environment(output="out", sources=places, cache="", max_rejected_share=1, fence=fence)


def test_a_worker_elsewhere_uses_no_other_image_than_was_listed(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    listed = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    row = replace(make_candidate(), source="coco_parts", image_path="a.png", image_sha256=listed)
    images = ImagesInTurn(environment(tmp_path, Fence(number=1, shared=True)))
    assert images.pixels(row).shape == (4, 5, 3)
    other, gone = (replace(row, id=name, image_path=name) for name in ("b.png", "c.png"))
    Image.new("RGB", (5, 4), "white").save(tmp_path / "b.png")
    with pytest.raises(WorkerDiffers, match=r"b\.png, as the worker process \d+ on .* is not the file that the build"):
        images.pixels(other)
    with pytest.raises(WorkerDiffers, match=r"c\.png, .* cannot be read \(No such file or directory\), but is one"):
        images.pixels(gone)


def test_rows_that_follow_one_another_share_their_images_array(tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "b.png")):
        Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(tmp_path / name)
    row = replace(make_candidate(), source="coco_parts")
    images = ImagesInTurn(environment(tmp_path))
    first, again, other = (
        images.pixels(replace(row, id=str(number), image_path=name))
        for number, name in enumerate(("a.png", "a.png", "b.png"))
    )
    assert first is again
    assert int(first.max()) == 0
    assert int(other.max()) == 1
    with pytest.raises(SkippedImage):
        images.pixels(replace(row, image_path="none.png"))


def test_the_first_rows_are_those_that_were_drawn_first() -> None:
    rows = [replace(make_candidate(), id=str(number), image_path=f"{number % 3}.png") for number in range(40)]
    asked = _by_image(rows)
    assert asked[:FIRST_WINDOW] == rows[:FIRST_WINDOW]
    assert sorted(asked, key=lambda row: int(row.id)) == rows
    later = [row.image_path for row in asked[FIRST_WINDOW:]]
    assert later == sorted(later)
