"""Rewards and the judgement of words, without any model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.examples.words import Facts, claims_true, colours, judge_words
from talking_points.training.rewards import FALSE_WORDS_WEIGHT, REWARDS, Rewarded, neg_mse, neg_mse_true_words
from tests.training.conftest import points

DOG = Facts(
    object="dog",
    part="head",
    object_location="is toward the left of the image and vertically centered",
    part_location="toward the upper right of the dog",
    point_location="slightly left of the center",
    instance_index=0,
    instance_count=2,
)
TRUE = (
    "The point is on the leftmost of two dogs, which is toward the left of the image and vertically centered, on its "
    "head, toward the upper right of the dog, and within the head, the point is slightly left of the center, on a "
    "black spot."
)
FALSE = TRUE.replace("toward the left of the image", "toward the right of the image")


def rewarded(predicted, truth, text: str = TRUE) -> Rewarded:
    points = np.atleast_2d(np.asarray(predicted, dtype=float))
    return Rewarded(points, np.atleast_2d(np.asarray(truth, dtype=float)), [text] * len(points), [DOG] * len(points))


def test_the_papers_reward_is_the_mean_over_both_coordinates() -> None:
    assert neg_mse(rewarded([0.5, 0.2], [0.1, 0.2]))[0] == pytest.approx(-0.08)


def reference_reward(name: str, predicted: list[float], truth: list[float]) -> float:
    """One number at a time; equation 2 is ``neg_mse``."""
    x, y = predicted[0] - truth[0], predicted[1] - truth[1]
    distance = math.sqrt(x * x + y * y)
    if name == "neg_mse":
        return -(x * x + y * y) / 2
    if name == "neg_distance":
        return -distance
    return ((1.0 if distance < 0.1 else 0.0) + (1.0 if distance < 0.2 else 0.0)) / 2


@pytest.mark.parametrize("name", ["neg_mse", "neg_distance", "mean_pck"])
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)), max_size=12),
)
def test_rewards_are_those_of_their_definitions(name: str, places) -> None:
    truth = np.array([[x, y] for x, y, _, _ in places]).reshape(-1, 2)
    predicted = truth + np.array([[dx, dy] for _, _, dx, dy in places]).reshape(-1, 2)
    expected = [reference_reward(name, *pair) for pair in zip(predicted.tolist(), truth.tolist(), strict=True)]
    found = REWARDS[name](Rewarded(predicted, truth, [TRUE] * len(places), [DOG] * len(places)))
    assert found.shape == (len(places),)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("x", "expected"),
    [(0.0, 1.0), (np.nextafter(0.1, 0), 1.0), (0.1, 0.5), (np.nextafter(0.2, 0), 0.5), (0.2, 0.0), (1.5, 0.0)],
)
def test_a_point_at_the_threshold_is_not_below_it(x: float, expected: float) -> None:
    assert REWARDS["mean_pck"](rewarded([x, 0.0], [0.0, 0.0]))[0] == expected


@given(st.integers(0, 2**31))
def test_equation_2_is_taken_in_shares_of_each_images_own_sides(seed: int) -> None:
    random = np.random.default_rng(seed)
    examples, predicted, expected = [], random.uniform(0, 500, (6, 2)), []
    for example, (x, y) in zip(points(2, 3).examples, predicted, strict=True):
        width, height = (int(side) for side in random.integers(20, 500, 2))
        true_x, true_y = float(random.integers(width)), float(random.integers(height))
        examples.append(replace(example, size=(width, height), keypoint=(true_x, true_y)))
        expected.append(-(((x - true_x) / width) ** 2 + ((y - true_y) / height) ** 2) / 2)
    np.testing.assert_allclose(neg_mse(Rewarded.of(examples, predicted)), expected, rtol=1e-9)


@pytest.mark.parametrize("name", REWARDS)
@given(x=st.floats(0, 1), y=st.floats(0, 1))
def test_no_prediction_is_better_than_the_point_itself(name: str, x: float, y: float) -> None:
    truth = [0.4, 0.6]
    assert REWARDS[name](rewarded([x, y], truth))[0] <= REWARDS[name](rewarded(truth, truth))[0]


def test_equally_near_the_true_text_is_rewarded_more() -> None:
    near = ([0.4, 0.4], [0.41, 0.4])
    assert neg_mse(rewarded(*near, text=TRUE)) == neg_mse(rewarded(*near, text=FALSE))
    difference = neg_mse_true_words(rewarded(*near, text=TRUE)) - neg_mse_true_words(rewarded(*near, text=FALSE))
    assert difference[0] == pytest.approx(FALSE_WORDS_WEIGHT / 4)


def test_saying_nothing_is_no_way_round_the_judgement() -> None:
    silent, false = rewarded([0.4, 0.4], [0.4, 0.4], "A dog."), rewarded([0.4, 0.4], [0.4, 0.4], FALSE)
    assert neg_mse_true_words(silent)[0] < neg_mse_true_words(false)[0]


def test_levels_are_judged_one_by_one() -> None:
    assert claims_true(TRUE, DOG) == [True, True, True, True]
    assert claims_true(FALSE, DOG) == [False, True, True, True]
    assert claims_true(TRUE.replace("leftmost", "rightmost"), DOG) == [True, True, True, False]
    assert claims_true("", DOG) == [False, False, False]


def test_a_bare_keypoint_is_judged_by_its_objects_place_alone() -> None:
    bare = Facts("fox", None, "is toward the left of the image and vertically centered", None, None, 0, 1)
    assert claims_true("The fox is toward the left of the image, on its eye.", bare) == [True]
    assert claims_true("The fox is toward the right of the image, on its eye.", bare) == [False]
    on = "which is toward the left of the image and vertically centered, on its head, toward the upper right of the"
    assert claims_true(f"On the horse, {on} horse, and within the head at the bottom.", bare) == [True]
    assert claims_true(f"On the horse, {on.replace('left', 'right')} horse, at the left.", bare) == [False]


def test_colours_are_compared_with_their_own_reference_and_with_chance() -> None:
    texts = [TRUE.replace("black", colour) for colour in ("black", "white", "red", "blue") * 10]
    report = judge_words(texts, [DOG] * 40, references=texts)
    assert report.colour == 100
    assert report.colour_chance == pytest.approx(25, abs=15)
    assert report.part_named == report.object_named == report.true_words == 100
    assert colours("a light brown, shiny spot") == {"brown"}
