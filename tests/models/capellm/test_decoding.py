"""Constrained answers: they always parse, and are the free ones where those are answers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from talking_points.models.capellm.coordinates import format_point, parse_point
from talking_points.models.capellm.decoding import AnswerGrammar, TokenizerError, search
from tests.models.capellm.tokenizers import KINDS, Kind, tokenizer_of

END = "</s>"


def scored(table: dict[tuple[int, ...], Tensor], vocabulary: int) -> tuple[Any, list[tuple[int, ...]]]:
    """A stand-in for the model: logits that depend on everything read so far, drawn once and remembered."""
    branches: list[tuple[int, ...]] = [(), (), ()]

    def step(parents: Any, tokens: Any) -> tuple[Tensor, list[int]]:
        nonlocal branches
        branches = [branches[parent] + tuple(ids) for parent, ids in zip(parents, tokens, strict=True)]
        for branch in branches:
            generator = torch.Generator().manual_seed(hash(branch) % 2**31)
            table.setdefault(branch, torch.randn(vocabulary, generator=generator) * 3)
        return torch.stack([table[branch] for branch in branches]), list(range(len(branches)))

    return step, branches


PROMPTS = [(5,), (6, 7), (8, 9, 10)]


def run(grammar: AnswerGrammar, vocabulary: int, mode: Any, beam: int = 5) -> tuple[Any, dict[tuple[int, ...], Tensor]]:
    table: dict[tuple[int, ...], Tensor] = {}
    step, _ = scored(table, vocabulary)
    return search(grammar, PROMPTS, step, mode, beam), table


def grammar_of(kind: Kind) -> AnswerGrammar:
    return AnswerGrammar.of(tokenizer_of(kind), 2 if kind == "digits" else 3, END)


@pytest.mark.parametrize("kind", KINDS)
def test_the_grammar_writes_what_the_tokenizer_reads(kind: Kind) -> None:
    tokenizer, grammar = tokenizer_of(kind), grammar_of(kind)
    assert (grammar.fast is not None) == (kind in ("llama3", "split"))
    for x, y in ((0, 0), (7, 42), (99, 10)):
        text = f" {grammar.text(x, y)}{END}"
        assert tokenizer.decode(grammar.ids(x, y)) == text
        if grammar.natural:
            whole = tokenizer(f"\nAssistant:{text}", add_special_tokens=False)["input_ids"]
            assert tuple(whole[-len(grammar.ids(x, y)) :]) == grammar.ids(x, y)
    assert grammar_of("digits").natural
    assert grammar_of("llama3").natural


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["greedy", "beam", "mean"])
def test_answers_always_parse(kind: Kind, mode: str) -> None:
    grammar, tokenizer = grammar_of(kind), tokenizer_of(kind)
    found, _ = run(grammar, len(tokenizer), mode)
    assert [one.query for one in found] == [0, 1, 2]
    for one in found:
        x, y = one.numbers
        count = 10**grammar.decimals
        assert parse_point(tokenizer.decode(grammar.ids(x, y)), END) == (x / count, y / count)
        assert one.total < 0
        assert 0 < one.mass < 1
        assert all(0 <= value < 1 for value in one.expected)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_follows_the_free_choice_wherever_it_is_in_the_grammar(kind: Kind) -> None:
    """Every prompt's scores are raised along one answer, so that free decoding gives it: so must the grammar."""
    grammar, vocabulary = grammar_of(kind), len(tokenizer_of(kind))
    wanted = [(3, 77), (42, 0), (99, 58)]
    table: dict[tuple[int, ...], Tensor] = {}
    for prompt, (x, y) in zip(PROMPTS, wanted, strict=True):
        ids = grammar.ids(x, y)
        for place in range(len(ids)):
            logits = torch.randn(vocabulary)
            logits[ids[place]] = 50.0
            table[prompt + ids[:place]] = logits
    step, _ = scored(table, vocabulary)
    assert [one.numbers for one in search(grammar, PROMPTS, step, "greedy")] == wanted


@pytest.mark.parametrize("kind", ["llama3", "digits"])
def test_a_wider_beam_never_finds_less(kind: Kind) -> None:
    grammar, vocabulary = grammar_of(kind), len(tokenizer_of(kind))
    totals = [[one.total for one in run(grammar, vocabulary, "beam", beam)[0]] for beam in (1, 2, 5, 20)]
    for narrow, wide in pairwise(totals):
        assert all(after >= before - 1e-6 for before, after in zip(narrow, wide, strict=True))
    greedy = [one.total for one in run(grammar, vocabulary, "greedy")[0]]
    assert totals[0] == pytest.approx(greedy)


def test_probability_entropy_and_expectation_of_number_tokens() -> None:
    grammar, tokenizer = grammar_of("llama3"), tokenizer_of("llama3")
    found, table = run(grammar, len(tokenizer), "mean")
    assert grammar.fast is not None
    numbers = grammar.fast[0]
    for one, prompt in zip(found, PROMPTS, strict=True):
        scores = table[prompt + grammar.head].log_softmax(-1)
        share = scores[numbers].softmax(-1)
        x = int(share.argmax())
        assert one.numbers[0] == x
        assert one.log_probability[0] == pytest.approx(float(share[x].log()), abs=1e-5)
        assert one.expected[0] == pytest.approx(float((share * (torch.arange(1000) + 0.5) / 1000).sum()), abs=1e-5)
        assert one.entropy[0] == pytest.approx(float(-(share * share.log()).sum()), abs=1e-4)
        behind = table[prompt + grammar.head + grammar.numbers[0][x] + grammar.between].log_softmax(-1)
        assert one.numbers[1] == int(behind[grammar.fast[1]].argmax())
        assert one.mass == pytest.approx(min(float(part[numbers].exp().sum()) for part in (scores, behind)), abs=1e-5)


def test_beam_is_the_best_joint_probability_of_the_likeliest_x() -> None:
    grammar, tokenizer = grammar_of("llama3"), tokenizer_of("llama3")
    found, table = run(grammar, len(tokenizer), "beam", beam=4)
    assert grammar.fast is not None
    x_tokens, y_tokens = grammar.fast
    for one, prompt in zip(found, PROMPTS, strict=True):
        first = table[prompt + grammar.head][x_tokens].log_softmax(-1)
        best = {}
        for x in first.topk(4).indices.tolist():
            second = table[prompt + grammar.head + grammar.numbers[0][x] + grammar.between][y_tokens].log_softmax(-1)
            best[(x, int(second.argmax()))] = float(first[x] + second.max())
        assert one.numbers == max(best, key=lambda pair: best[pair])


def test_the_expectation_of_split_digits_lies_in_the_likeliest_branches() -> None:
    """With all mass on one path the expectation is the middle of its bin; with none known, the middle of all."""
    grammar, vocabulary = grammar_of("digits"), len(tokenizer_of("digits"))

    def flat(parents: Any, tokens: Any) -> tuple[Tensor, list[int]]:
        return torch.zeros(len(parents), vocabulary), list(range(len(parents)))

    for one in search(grammar, PROMPTS, flat, "mean"):
        assert one.expected == pytest.approx((0.5, 0.5))
        assert one.log_probability[0] == pytest.approx(-torch.tensor(100.0).log().item(), abs=1e-5)


class Lossy:
    """A tokenizer that writes one string differently."""

    def __init__(self, wrong: str, instead: str) -> None:
        self.inner, self.wrong, self.instead = tokenizer_of("digits"), wrong, instead

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def decode(self, *args: Any, **kwargs: Any) -> str:
        return self.inner.decode(*args, **kwargs).replace(self.wrong, self.instead)


def test_a_tokenizer_that_cannot_write_a_number_is_refused_by_that_number() -> None:
    with pytest.raises(TokenizerError, match=r"'\[0\.37,0\.62\]</s>' comes back as ' \[0\.3_,0\.62"):
        AnswerGrammar.of(Lossy("37", "3_"), 2, END)
    with pytest.raises(TokenizerError, match="cannot write coordinates"):
        AnswerGrammar.of(tokenizer_of("digits"), 2, "0")  # an end that is a digit


@given(st.integers(0, 999), st.integers(0, 999))
def test_text_and_point_are_inverses_on_the_grid(x: int, y: int) -> None:
    text = format_point(x / 1000, y / 1000)
    assert text == f"[0.{x:03d},0.{y:03d}]"
    assert parse_point(text) == (x / 1000, y / 1000)


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), st.integers(1, 4))
def test_every_point_is_written_and_read_within_half_a_step(x: float, y: float, decimals: int) -> None:
    point = parse_point(format_point(x, y, decimals))
    assert point is not None
    assert max(abs(point[0] - x), abs(point[1] - y)) <= 10**-decimals
    assert max(point) < 1


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("[0.123,0.456]</s>User: 0.7", (0.123, 0.456)),
        ("[0.333, 0.667].", (0.333, 0.667)),
        ("0.1 0.2", (0.1, 0.2)),
        ("[1.000,0.500]", (0.999, 0.5)),
        ("[10.5,20.5]", None),
        ("[0.123]", None),
        ("", None),
        ("[0.1,0.2,0.3]", None),
        ("[-0.200,0.300]", None),
        ("[1.5,0.2]", None),
        ("[1e-3,0.2]", None),
        ("[0.12a,0.34]", None),
        ("[0.123,0.", None),
        ("[.5,.5]", None),
        ("[12,34]", None),
    ],
)
def test_free_answers_are_read_or_unparsed(text: str, point: tuple[float, float] | None) -> None:
    assert parse_point(text, END) == point


def test_points_outside_are_not_written() -> None:
    for x, y in ((-0.01, 0.5), (0.5, 1.0), (float("nan"), 0.1)):
        with pytest.raises(ValueError, match="fractions of the crop"):
            format_point(x, y)
    assert format_point(0.9996, 0.5) == "[0.999,0.500]"
    assert format_point(0.9996, 0.5, clip=False) == "[1.000,0.500]"
