"""PCK, mPCK, intervals and the paired test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talking_points.evaluation.paper import FIGURES
from talking_points.evaluation.pck import (
    DEFINITIONS,
    MP100,
    TALKING_POINTS,
    PckDefinition,
    distances,
    mpck,
    pck,
    point_scores,
)
from talking_points.evaluation.statistics import bootstrap_interval, compare_pairs


@pytest.mark.parametrize(
    ("low", "high", "printed"),
    [(63.93, 92.33, 78.13), (65.60, 92.05, 78.83), (28.24, 57.49, 42.87), (17.26, 44.80, 31.03), (15.97, 43.72, 29.85)],
)
def test_mpck_is_the_mean_the_paper_prints(low: float, high: float, printed: float) -> None:
    assert np.mean((low, high)) == pytest.approx(printed, abs=0.0051)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.table}-{figure.method}")
def test_every_printed_mpck_follows_from_the_printed_breakdown(figure) -> None:
    if figure.pck:
        assert np.mean(figure.pck) == pytest.approx(figure.mpck, abs=0.0051)


def test_the_threshold_itself_is_not_below_the_threshold() -> None:
    assert pck([0.1], 0.1) == 0.0
    assert pck([np.nextafter(0.1, 0)], 0.1) == 100.0


def test_width_and_height_are_divided_by_separately() -> None:
    found = distances([[30.0, 10.0], [0.0, 15.0]], [[0.0, 10.0], [0.0, 0.0]], [[300, 100], [300, 100]])
    np.testing.assert_allclose(found, [0.1, 0.15])


def test_the_box_definition_divides_by_the_longer_side() -> None:
    found = distances([[30.0, 40.0]], [[0.0, 0.0]], [[640, 480]], [[5, 5, 100, 50]], "bbox_max_side")
    np.testing.assert_allclose(found, [0.5])
    with pytest.raises(ValueError, match="boxes"):
        distances([[0.0, 0.0]], [[0.0, 0.0]], [[1, 1]], normalizer="bbox_max_side")


def test_a_prediction_that_is_no_number_is_wrong_and_harms_no_other() -> None:
    found = distances([[np.nan, 0.0], [0.0, 0.0]], np.zeros((2, 2)), np.ones((2, 2)))
    assert pck(found, 0.2) == 50.0


def test_points_are_pooled_not_averaged_by_image() -> None:
    assert mpck([0.0, 0.0, 0.0, 1.0]) == 75.0


@pytest.mark.parametrize("shape", [((3, 2), (2, 2)), ((4,), (4,)), ((2, 3), (2, 3))])
def test_shapes_that_do_not_fit_are_refused(shape) -> None:
    with pytest.raises(ValueError, match="shape"):
        distances(np.zeros(shape[0]), np.zeros(shape[1]), np.ones((3, 2)))


def test_a_definition_averages_its_own_thresholds_only() -> None:
    with pytest.raises(ValueError, match="mean_over"):
        PckDefinition("odd", (0.1,), (0.2,), "image_wh")


def share_below(found: list[float], threshold: float) -> float:
    """PCK, counted."""
    return 100 * sum(distance < threshold for distance in found) / len(found)


@settings(max_examples=80)
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from(("talking_points", "mp100")))
def test_scores_are_those_of_a_count_by_hand(seed: int, count: int, name: str) -> None:
    """Both definitions, written out as their texts state them, on random points, sizes and boxes."""
    random = np.random.default_rng(seed)
    sizes = random.integers(20, 900, (count, 2))
    boxes = np.column_stack([random.uniform(0, 300, (count, 2)), random.uniform(5, 400, (count, 2))])
    truth = random.uniform(0, 1, (count, 2)) * sizes
    predicted = truth + random.normal(0, 0.12, (count, 2)) * sizes
    lost = random.random(count) < 0.1
    predicted[lost, random.integers(2)] = random.choice([np.nan, np.inf, -np.inf])
    expected = []
    for (x, y), (true_x, true_y), (width, height), box, none in zip(
        predicted.tolist(), truth.tolist(), sizes.tolist(), boxes.tolist(), lost, strict=True
    ):
        if none:
            expected.append(math.inf)
        elif name == "talking_points":  # by the image's own width and height
            expected.append(math.hypot(x / width - true_x / width, y / height - true_y / height))
        else:  # by the longer side of the object's box
            expected.append(math.hypot(x - true_x, y - true_y) / max(box[2], box[3]))
    thresholds = {"talking_points": [0.1, 0.2], "mp100": [0.05, 0.1, 0.15, 0.2, 0.25]}[name]
    definition = DEFINITIONS[name]
    found = distances(predicted, truth, sizes, boxes, definition.normalizer)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    for threshold in (0.05, *thresholds):
        assert pck(found, threshold) == pytest.approx(share_below(expected, threshold))
    by_hand = sum(share_below(expected, threshold) for threshold in thresholds) / len(thresholds)
    assert mpck(found, definition) == pytest.approx(by_hand)
    of_points = [100 * sum(distance < t for t in thresholds) / len(thresholds) for distance in expected]
    np.testing.assert_allclose(point_scores(found, definition), of_points)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=50), st.sampled_from((TALKING_POINTS, MP100)))
def test_mpck_is_the_mean_of_the_point_scores(values: list[float], definition: PckDefinition) -> None:
    assert point_scores(values, definition).mean() == pytest.approx(mpck(values, definition))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_pck_grows_with_the_threshold(values: list[float]) -> None:
    assert pck(values, 0.05) <= pck(values, 0.1) <= pck(values, 0.2)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        images = np.repeat(np.arange(60), 4)
        scores = 100.0 * (random.random(60)[images] < 0.5)  # points of an image fail together
        interval = bootstrap_interval(scores, images.astype(str).tolist(), draws=300, seed=trial)
        held += interval.low <= 50 <= interval.high
    assert 0.88 <= held / 200 <= 0.99


def test_drawing_images_widens_the_interval_of_points_that_fail_together() -> None:
    scores = np.repeat(np.random.default_rng(1).integers(0, 2, 50) * 100.0, 10)
    together = bootstrap_interval(scores, np.repeat(np.arange(50), 10).astype(str).tolist())
    apart = bootstrap_interval(scores, [str(index) for index in range(500)])
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_a_set_does_not_differ_from_itself() -> None:
    scores = np.random.default_rng(0).random(40) * 100
    result = compare_pairs(scores, scores, [str(index) for index in range(40)])
    assert result.difference == 0
    assert result.p_value == 1.0


def test_a_constant_gain_is_significant_and_a_single_image_never_is() -> None:
    before = np.zeros(40)
    images = [str(index) for index in range(40)]
    assert compare_pairs(before, before + 10, images).p_value < 0.001
    assert compare_pairs(before, before + 10, ["one"] * 40).p_value == 1.0


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_exchanging_the_two_sets_changes_the_sign_only(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.random(30) * 100, random.random(30) * 100
    images = random.integers(0, 8, 30).astype(str).tolist()
    forward, back = compare_pairs(a, b, images, draws=200), compare_pairs(b, a, images, draws=200)
    assert forward.difference == pytest.approx(-back.difference)
    assert forward.p_value == back.p_value
