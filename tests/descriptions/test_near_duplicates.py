"""Texts that say almost the same are found whatever their order, and nothing else is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.build_config import BuildConfig, dataset_settings
from talking_points.descriptions.near_duplicates import near_duplicate_texts, repeats, shingles_of, similarity

WORDS = [f"word{number}" for number in range(500)]


def sentence(seed: int, length: int = 60) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(length))


def test_copies_with_a_changed_word_are_found_and_others_are_not() -> None:
    texts = [sentence(seed) for seed in range(400)]
    changed = [text.replace(text.split()[30], "other", 1) for text in texts[:100]]
    shouted = [f"  {text.upper()}! " for text in texts[100:120]]
    groups = near_duplicate_texts(texts + changed + shouted, 0.85)
    expected = [[number, 400 + number] for number in range(120)]
    assert all(group in expected for group in groups)
    assert len(groups) >= 115, "hashing may miss a pair near the threshold, not many"
    assert [group for group in groups if group[0] >= 100] == expected[100:], "equal texts are never missed"
    assert repeats(groups) == {group[1] for group in groups}


@pytest.mark.parametrize(
    ("texts", "groups"),
    [
        ([], []),
        (["one"], []),
        (["", "", "!"], [[0, 1, 2]]),
        (["a b", "A, b.", "b a"], [[0, 1]]),
        (["a b c d"] * 3, [[0, 1, 2]]),
        (["a b c d", "a b c e"], []),
    ],
)
def test_small_cases(texts: list[str], groups: list[list[int]]) -> None:
    assert near_duplicate_texts(texts, 0.85) == groups


@given(st.lists(st.sampled_from(["a b c d e", "a b c d f", "x y z", "A b c d e.", ""]), max_size=12))
def test_groups_hold_each_text_once_and_equal_ones_together(texts: list[str]) -> None:
    groups = near_duplicate_texts(texts, 1.0)
    numbers = [number for group in groups for number in group]
    assert len(numbers) == len(set(numbers))
    for group in groups:
        assert group == sorted(group)
        assert len({shingles_of(texts[number]) for number in group}) == 1
    left = [shingles_of(texts[number]) for number in range(len(texts)) if number not in numbers]
    assert len(left) == len(set(left))


def test_similarity_is_that_of_the_word_triples() -> None:
    one, other = shingles_of("the cat sat on a mat"), shingles_of("The cat sat on the mat")
    assert similarity(one, other) == pytest.approx(2 / 6)
    assert similarity(one, one) == 1


def test_the_setting_is_on_or_off_and_changes_no_fingerprint_where_it_is_off() -> None:
    def of(value: object) -> BuildConfig:
        return BuildConfig.model_validate({"output": "x", "near_duplicates": value})

    assert of(True).near_duplicates == of({}).near_duplicates is not None
    assert of(False).near_duplicates is None
    assert "near_duplicates" not in dataset_settings(of(False))
    with pytest.raises(ValueError, match="threshold"):
        of({"threshold": 0})
