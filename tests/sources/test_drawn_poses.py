"""The drawn MP-100: its partitions, its landmarks, and what its own reader makes of its quirks."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from talking_points.sources import open_source
from talking_points.sources.drawn import draw_sample, poses
from talking_points.sources.drawn.canvas import Canvas, Light, Pen
from talking_points.sources.drawn.scenes import DRAWABLES, MP100_CATEGORIES
from talking_points.sources.keypoint_sets import readable, set_of


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn-mp100")
    return draw_sample(folder, 120, 3, sources=["mp100"])["mp100"]


def test_partitions_test_every_category_once_and_are_disjoint() -> None:
    tested = Counter(category for test, _ in poses.PARTITIONS for category in test)
    assert tested == Counter(MP100_CATEGORIES.values())
    for test, val in poses.PARTITIONS:
        assert not set(test) & set(val)
        rest = set(MP100_CATEGORIES.values()) - set(test) - set(val)
        known = {name for category in rest for name in set_of(category).names}
        # Known names and new ones in every test set.
        assert any(set(set_of(category).names) <= known for category in test)
        assert any(not set(set_of(category).names) <= known for category in test)


def test_its_reader_reads_it(root: Path) -> None:
    images, seen, skipped = 0, Counter[str](), Counter[str]()
    for split in ("train", "val", "test"):
        source = open_source("mp100", root, split)
        for record in source:
            images += 1
            for item in record.objects:
                seen[set_of(item.id).key] += sum(point.visible for point in item.keypoints)
                assert item.skeleton
        skipped.update(source.skipped)
    listed = json.loads((root / "annotations" / "mp100_split1_train.json").read_text())
    values = {v for annotation in listed["annotations"] for v in annotation["keypoints"][2::3]}
    assert values == {0, 1, 2}
    assert 110 <= images + skipped["missing_image"] <= 120
    assert set(skipped) == {"missing_image", "keypoint_outside_image"}
    assert len(seen) == 8


@pytest.mark.parametrize("thing", ["horse", "bus", "car", "chair", "sofa", "bed", "table", "person", "heron"])
def test_landmarks_carry_the_names_of_the_set(thing: str) -> None:
    keypoints = set_of(MP100_CATEGORIES[thing])
    names = set()
    for seed in range(40):
        canvas = Canvas(400, 400, np.random.default_rng(seed), Light())
        matrix = np.array([[100.0 if seed % 2 else -100.0, 0.0, 200.0], [0.0, 100.0, 300.0]])
        DRAWABLES[thing].draw(Pen(canvas, canvas.begin(thing), matrix), canvas.rng)
        names |= {readable(mark.name) for mark in canvas.instances[0].landmarks}
    assert names == set(keypoints.names)


def test_own_sides_are_opposite_the_viewers_for_what_faces_him(root: Path) -> None:
    """Somebody who sits in the chair, or the person drawn, has the right side at the viewer's left."""
    ahead = Counter[tuple[str, bool]]()
    for record in open_source("mp100", root):
        for item in record.objects:
            places = {point.name: point.x for point in item.keypoints if point.visible}
            for left, right in ((a, b) for a in places for b in places if a.replace("left", "right") == b != a):
                ahead[set_of(item.id).key, places[left] > places[right]] += 1
    for key in ("person_body", "chair", "sofa", "bed"):
        assert ahead[key, True] > 4 * ahead[key, False], (key, ahead)
    assert ahead["table", False] > 4 * ahead["table", True]
