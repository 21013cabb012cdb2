"""Averages of named keypoints: over objects, over points, and what must not change them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.config import ConfigError
from talking_points.evaluation.pose_scores import AskedPoints, by_category, cape, episodes, pair_pck, pooled
from talking_points.evaluation.pose_tables import pose_table
from talking_points.examples.config import KeypointFiles
from talking_points.examples.keypoints import PoseExample
from talking_points.examples.pose_files import open_poses
from talking_points.sources.drawn import draw_sample
from talking_points.sources.keypoint_sets import KeypointSet

NAMES = ("nose", "left eye", "right eye", "tail")
SET = KeypointSet.from_names("kite", NAMES)


def kite(number: int, labelled: int, category: int = 1) -> PoseExample:
    visible = np.arange(len(NAMES)) < labelled
    points = np.arange(8.0).reshape(4, 2) + number
    return PoseExample(
        f"{number}", f"i{number}", category, f"c{category}", SET, (99, 99), (0, 0, 10, 10), points, visible
    )


def distances(points: AskedPoints, wrong: int) -> np.ndarray:
    """Every point of object ``wrong`` is missed, all others are met."""
    return points.distances(points.truth + np.where(points.owner == wrong, 50.0, 0.0)[:, None])


@given(st.lists(st.integers(0, 4), min_size=2, max_size=8), st.randoms())
def test_order_and_sharding_change_no_average_and_empty_objects_count_nowhere(
    labelled: list[int], random: object
) -> None:
    objects = [kite(number, count, number % 3) for number, count in enumerate(labelled)]
    points = AskedPoints.of(objects)
    if not len(points):
        return
    assert len(points.objects) == sum(count > 0 for count in labelled)
    away = {
        (points.objects[row].id, place): (row + place) % 2 * 0.5
        for row, place in zip(points.owner, points.index, strict=True)
    }
    random.shuffle(objects)  # type: ignore[attr-defined]
    averages = []
    for own in (points, AskedPoints.of(objects)):
        distance = np.array(
            [away[own.objects[row].id, place] for row, place in zip(own.owner, own.index, strict=True)], np.float32
        )
        averages.append(
            [*cape(own, distance).values(), *pooled(distance).values(), *by_category(own, distance)[0].values()]
        )
        halves = [own.some(np.isin(own.owner, rows)) for rows in np.array_split(np.unique(own.owner), 2) if len(rows)]
        parts = [part.per_object(distance[chosen] < 0.1) for part, chosen in halves]
        assert 100 * np.concatenate(parts).mean() == pytest.approx(cape(own, distance)["pck@0.1"])
    assert averages[0] == pytest.approx(averages[1])


def test_objects_and_points_weigh_differently_only_where_their_numbers_differ() -> None:
    unequal, equal = (AskedPoints.of([kite(0, 1), kite(1, count)]) for count in (4, 1))
    found = {
        name: (cape(one, distances(one, 0))["pck@0.1"], pooled(distances(one, 0))["pck@0.1"])
        for name, one in (("unequal", unequal), ("equal", equal))
    }
    assert found == {"unequal": (50, 80), "equal": (50, 50)}


def test_a_distance_of_exactly_the_threshold_is_wrong() -> None:
    points = AskedPoints.of([kite(0, 1)])
    at = points.distances(points.truth + np.array([2.0, 0.0]))  # a fifth of the box's longer side
    assert (cape(points, at)["pck@0.2"], cape(points, at)["pck@0.25"]) == (0, 100)
    assert cape(points, points.distances([[np.inf, np.inf]]))["mpck"] == 0


def test_a_keypoint_of_a_pair_counts_where_both_are_labelled() -> None:
    points = AskedPoints.of([kite(0, 1), kite(1, 4)])
    pairs, _ = episodes(points, count=2, queries=1)
    assert len(pairs) == 2
    places = points.truth.copy()
    places[points.index > 0] += 50
    assert pair_pck(points, places, [(0, 1), (1, 0)])["pck@0.1"] == 100, "all but the nose are wrong, and not asked"


def test_missing_images_are_counted_by_category_and_one_with_none_left_is_named(tmp_path: Path) -> None:
    root = draw_sample(tmp_path, 16, 5, sources=["mp100"])["mp100"]
    before = open_poses(KeypointFiles(root=root), "test")
    lost = before.examples[0].category_name
    listed = json.loads((root / "annotations" / "mp100_split1_test.json").read_text())
    number = before.examples[0].category
    images = {one["image_id"] for one in listed["annotations"] if one["category_id"] == number}
    for one in listed["images"]:
        if one["id"] in images:
            (root / "images" / one["file_name"]).unlink(missing_ok=True)
    if len(before.categories) == 1:
        with pytest.raises(ConfigError, match="missing_image"):
            open_poses(KeypointFiles(root=root), "test")
        return
    after = open_poses(KeypointFiles(root=root), "test")
    assert after.missing[lost] >= 1
    assert lost not in after.categories.values()
    report = {"partition": 1, "objects": 0, "points": 0, "seen_categories": [], "answers": {}, "groups": {}}
    report |= {"without_images": [lost], "skipped": {"missing_image": 3, "crowd": 1}}
    table = pose_table({"partitions": [report], "mean": {}, "split": "test"})
    assert f"no image is on disk: {lost}." in table
    assert "Left out: 1 crowd, 3 missing image." in table
    assert "## Partition 1: 0 objects of split test, 0 keypoints" in table
    assert ("in percent" in table, "Mean of the partitions" in table) == (True, False)
    own = pose_table({"partitions": [report | {"own": True}], "mean": {"greedy": {}}, "split": "val"})
    assert "## Own keypoint files: 0 objects of split val" in own
    assert "Published" not in own, "the paper's figures are of MP-100"
    assert "## New drawings: 0 objects" in pose_table({"partitions": [report | {"title": "New drawings"}], "mean": {}})
