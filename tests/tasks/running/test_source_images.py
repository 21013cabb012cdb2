"""Images of a shard's rows: each is decoded once, the first rows stay as they were drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from talking_points.descriptions.asking import FIRST_WINDOW
from talking_points.sources.protocol import SkippedImage
from tasks.running.captions import _by_image
from tasks.running.source_images import ImagesInTurn
from tests.descriptions.candidates import make_candidate


def test_rows_that_follow_one_another_share_their_images_array(tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "b.png")):
        Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(tmp_path / name)
    row = replace(make_candidate(), source="coco_parts")
    images = ImagesInTurn({"coco_parts": str(tmp_path)})
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
