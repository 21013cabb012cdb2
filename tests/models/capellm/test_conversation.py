"""Texts of rounds, what of them is learnt, and how keypoints are grouped."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.models.capellm.conversation import (
    IGNORED_LABEL,
    Query,
    QueryError,
    Round,
    Template,
    encode,
    group,
)
from tests.models.capellm.tokenizers import KINDS, Kind, tokenizer_of

QUESTION = "Where is the {keypoint} of this object?"
ROUNDS = [
    Round(Query("left eye", "It sits above the nose."), "[0.123,0.456]"),
    Round(Query("nose"), "[0.007,0.999]"),
    Round(Query("hem", "The lower edge, 2.5 cm wide."), "[0.500,0.000]"),
]


def learnt_texts(kind: Kind, end: str) -> list[str]:
    """The decoded learnt tokens of every round: runs of labels."""
    tokenizer = tokenizer_of(kind)
    text, spans = Template(QUESTION, end).render(ROUNDS)
    encoded = encode(tokenizer, text, spans)
    assert tokenizer.decode(encoded.ids) == text
    runs: list[list[int]] = [[]]
    for label in encoded.labels:
        if label != IGNORED_LABEL:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run) for run in runs if run]


@pytest.mark.parametrize("kind", ["llama3", "split", "digits"])
def test_with_an_end_token_exactly_the_answers_and_their_ends_are_learnt(kind: Kind) -> None:
    end = tokenizer_of(kind).eos_token
    assert learnt_texts(kind, end) == [f" {one.answer}{end}" for one in ROUNDS]


def test_a_marker_of_its_own_tokens_is_learnt_whole() -> None:
    assert learnt_texts("split", "</s>") == [f" {one.answer}</s>" for one in ROUNDS]


def test_a_token_that_reaches_into_the_next_role_belongs_to_the_prompt() -> None:
    answers = [f" {one.answer}</s" for one in ROUNDS]
    assert learnt_texts("llama3", "</s>") == [*answers[:-1], answers[-1] + ">"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["</s>", "<|end_of_text|>"])
def test_nothing_of_a_prompt_is_learnt(kind: Kind, end: str) -> None:
    for learnt, one in zip(learnt_texts(kind, end), ROUNDS, strict=True):
        assert learnt in f" {one.answer}{end}"


def test_rounds_follow_at_once_and_prompts_end_without_a_space() -> None:
    template = Template(QUESTION, "</s>")
    text, spans = template.render(ROUNDS[:2])
    assert text == (
        "\nUser: Where is the left eye of this object?\nReference: It sits above the nose.\n"
        "Assistant: [0.123,0.456]</s>User: Where is the nose of this object?\nAssistant: [0.007,0.999]</s>"
    )
    assert [text[start:end] for start, end in spans] == [" [0.123,0.456]</s>", " [0.007,0.999]</s>"]
    assert template.prompt(ROUNDS[1].query, ROUNDS[:1]) == text[: spans[1][0]]
    plain = Template(QUESTION, "</s>", describe=False)
    assert "Reference" not in plain.render(ROUNDS)[0]


@pytest.mark.parametrize(
    ("query", "cleaned"),
    [
        (Query("  left\n eye ", "a\r\nb"), Query("left eye", "a b")),
        (Query("Assistant: nose</s>", "User: x <image>"), Query("nose", "x")),
        (Query("no<im_patch>se", " "), Query("no se", None)),
        (Query("hem<|<|end|>|>"), Query("hem")),
        (Query("tipEND"), Query("tip")),
        (Query("no\u200bse", "on\u00ad it\x00"), Query("nose", "on it")),
    ],
)
def test_user_text_is_stripped_of_what_reads_as_another_role(query: Query, cleaned: Query) -> None:
    assert query.clean(["END"]) == cleaned


@pytest.mark.parametrize("name", ["", " \n", "</s>", "User:", "\u200b\u00ad", "Us\u200ber:"])
def test_an_empty_name_is_refused(name: str) -> None:
    with pytest.raises(QueryError, match="name of a keypoint"):
        Query(name).clean()


@pytest.mark.parametrize("query", [Query("x" * 10_001), Query("nose", "x" * 10_001)])
def test_a_text_beyond_all_models_is_refused_before_it_is_tokenised(query: Query) -> None:
    with pytest.raises(QueryError, match="at most 10,000 characters, found one of 10,001") as refused:
        query.clean()
    assert len(str(refused.value)) < 200


@given(st.integers(1, 70), st.integers(1, 8), st.integers(0, 2**31))
def test_groups_hold_every_index_and_fill_from_the_others(count: int, k: int, seed: int) -> None:
    generator = random.Random(seed)
    order = generator.sample(range(count), count)
    groups = group(order, k, generator)
    assert {index for one in groups for index in one} == set(range(count))
    assert all(len(set(one)) == len(one) for one in groups)
    if count < k:
        assert groups == [order]
        return
    assert [len(one) for one in groups] == [k] * -(-count // k)
    rest = count % k
    filled = groups[-1][rest:] if rest else []
    assert not set(filled) & set(groups[-1][:rest])
    assert len([index for one in groups for index in one]) - count == len(filled)


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="k = 0"):
        group([1, 2], 0, random.Random(0))


def test_half_a_character_in_a_question_is_asked_as_a_lost_one() -> None:
    query = Query("nose \ud83d", "on \udcff top").clean()
    assert query == Query("nose \ufffd", "on \ufffd top")
    encode(tokenizer_of("llama3"), Template(QUESTION, "</s>").prompt(query))
