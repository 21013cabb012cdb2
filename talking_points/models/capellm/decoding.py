"""Answers that always parse: the tokens of every possible coordinate, and the search among them.

An answer is `` [0.NNN,0.NNN]`` and the end: a skeleton of fixed tokens and two numbers. Where every number is one
token, as in Llama 3, a number is one choice among 10^decimals; where a tokenizer splits digits, a trie over their
sequences offers at every step the tokens that can follow. The first is a trie of depth one, so one search serves both.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from talking_points.models.capellm.coordinates import parse_point

Mode = Literal["greedy", "beam", "mean"]
Ids = tuple[int, ...]

_CONTEXT = "\nAssistant:"


class TokenizerError(ValueError):
    """A tokenizer that cannot write coordinates: names the text that does not survive."""


@dataclass
class Node:
    """A place in a trie of numbers. ``index``: the number, at a leaf; ``middle``: mean of all that can follow."""

    children: dict[int, Node] = field(default_factory=dict)
    index: int | None = None
    middle: float = 0.0

    @cached_property
    def tokens(self) -> Tensor:
        """Ids of the tokens that can follow (n,)."""
        return torch.tensor(list(self.children), dtype=torch.long)

    @cached_property
    def middles(self) -> Tensor:
        """The children's middles (n,), in the order of ``tokens``."""
        return torch.tensor([child.middle for child in self.children.values()], dtype=torch.float32)


@dataclass(frozen=True)
class AnswerGrammar:
    """Token ids of the answers: ``head``, a number, ``between``, a number, ``tail``.

    natural: whether these are the tokens that the tokenizer itself makes of an answer behind a prompt; if a token can
    span both numbers, they are put together from pieces instead.
    """

    head: Ids
    between: Ids
    tail: Ids
    numbers: tuple[tuple[Ids, ...], tuple[Ids, ...]]
    decimals: int
    natural: bool = True

    @classmethod
    def of(cls, tokenizer: Any, decimals: int, end: str) -> AnswerGrammar:
        """The grammar in a fast tokenizer's tokens. Raises ``TokenizerError`` for one that cannot write it."""
        grammar = _natural(tokenizer, decimals, end) or _from_pieces(tokenizer, decimals, end)
        grammar._check(tokenizer, end)
        return grammar

    @property
    def fast(self) -> tuple[Tensor, Tensor] | None:
        """Ids of the number tokens for x and y (10^decimals,) where every number is one token; else None."""
        if any(len(ids) != 1 for axis in self.numbers for ids in axis):
            return None
        x, y = (torch.tensor([ids[0] for ids in axis]) for axis in self.numbers)
        return x, y

    @cached_property
    def tries(self) -> tuple[Node, Node]:
        """The numbers of x and of y as tries."""
        return _trie(self.numbers[0]), _trie(self.numbers[1])

    def ids(self, x: int, y: int) -> Ids:
        """The whole answer for the numbers ``x`` and ``y``."""
        return (*self.head, *self.numbers[0][x], *self.between, *self.numbers[1][y], *self.tail)

    def text(self, x: int, y: int) -> str:
        """The answer as text, without its leading space and its end."""
        return _answer(x, y, self.decimals)

    def _check(self, tokenizer: Any, end: str) -> None:
        count = 10**self.decimals
        for x in range(count):
            y = count - 1 - x
            written = tokenizer.decode(self.ids(x, y), skip_special_tokens=False, clean_up_tokenization_spaces=False)
            wanted = _answer(x, y, self.decimals)
            if written.lstrip() != wanted + end or parse_point(written, end) != (x / count, y / count):
                raise TokenizerError(
                    f"the tokenizer cannot write coordinates: {wanted + end!r} comes back as {written!r}. Use one "
                    "that keeps digits, points and brackets, and whose end marker differs from them"
                )
        used = {token for axis in self.numbers for ids in axis for token in ids}
        clash = used & set(self.tail[-1:])
        if clash:
            raise TokenizerError(f"token {clash} is both part of a number and the end {end!r}: choose another end")


def _answer(x: int, y: int, decimals: int) -> str:
    return f"[0.{x:0{decimals}d},0.{y:0{decimals}d}]"


def _natural(tokenizer: Any, decimals: int, end: str) -> AnswerGrammar | None:
    """The grammar in the tokens that the tokenizer makes of whole answers; None where numbers cannot be cut out."""
    count = 10**decimals
    prompt = tuple(tokenizer(_CONTEXT, add_special_tokens=False)["input_ids"])

    def tokens(pairs: Sequence[tuple[int, int]]) -> list[Ids] | None:
        texts = [f"{_CONTEXT} {_answer(x, y, decimals)}{end}" for x, y in pairs]
        whole = [tuple(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        if any(ids[: len(prompt)] != prompt for ids in whole):
            return None  # the space of the answer merges with the prompt's colon
        return [ids[len(prompt) :] for ids in whole]

    middle = count // 2
    of_x = tokens([(number, middle) for number in range(count)])
    of_y = tokens([(middle, number) for number in range(count)])
    if of_x is None or of_y is None:
        return None
    head, behind_x = _find_shared(of_x)
    before_y, tail = _find_shared(of_y)
    x_numbers = tuple(ids[len(head) : len(ids) - len(behind_x)] for ids in of_x)
    y_numbers = tuple(ids[len(before_y) : len(ids) - len(tail)] for ids in of_y)
    between = before_y[len(head) + len(x_numbers[middle]) :]
    if before_y != head + x_numbers[middle] + between:
        return None
    grammar = AnswerGrammar(head, between, tail, (x_numbers, y_numbers), decimals)
    generator = random.Random(0)
    pairs = [(generator.randrange(count), generator.randrange(count)) for _ in range(64)]
    return grammar if tokens(pairs) == [grammar.ids(x, y) for x, y in pairs] else None


def _find_shared(sequences: Sequence[Ids]) -> tuple[Ids, Ids]:
    """The longest beginning and end that all sequences have in common, not overlapping in any."""
    shortest = min(map(len, sequences))
    first = sequences[0]
    head = 0
    while head < shortest and all(ids[head] == first[head] for ids in sequences):
        head += 1
    tail = 0
    while tail < shortest - head and all(ids[-1 - tail] == first[-1 - tail] for ids in sequences):
        tail += 1
    return first[:head], first[len(first) - tail :]


def _from_pieces(tokenizer: Any, decimals: int, end: str) -> AnswerGrammar:
    def tokens(text: str) -> Ids:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    numbers = tuple(tokens(f"{number:0{decimals}d}") for number in range(10**decimals))
    return AnswerGrammar(tokens(" [0."), tokens(",0."), tokens("]" + end), (numbers, numbers), decimals, natural=False)


def _trie(numbers: Sequence[Ids]) -> Node:
    root = Node()
    for index, ids in enumerate(numbers):
        node = root
        for token in ids:
            node = node.children.setdefault(token, Node())
        node.index = index
    _fill_middles(root, len(numbers))
    return root


def _fill_middles(node: Node, count: int) -> tuple[float, int]:
    """Sum and number of the leaves' middles below; sets every node's mean."""
    if node.index is not None:
        total, leaves = (node.index + 0.5) / count, 1
    else:
        below = [_fill_middles(child, count) for child in node.children.values()]
        total, leaves = sum(part for part, _ in below), sum(number for _, number in below)
    node.middle = total / leaves
    return total, leaves


@dataclass
class Hypothesis:
    """One answer in the making: the branch it is read on, tokens not yet read, and what was decided."""

    query: int
    branch: int
    node: Node
    pending: list[int]
    axis: int = 0
    numbers: tuple[int, ...] = ()
    log_probability: tuple[float, float] = (0.0, 0.0)
    expected: tuple[float, float] = (0.0, 0.0)
    entropy: tuple[float, float] = (0.0, 0.0)
    mass: float = 1.0
    """The smallest share of probability that was on the grammar's tokens, before they were made the only ones."""

    @property
    def total(self) -> float:
        return sum(self.log_probability)


Step = Callable[[Sequence[int], Sequence[Sequence[int]]], tuple[Tensor, list[int]]]
"""Reads further tokens on some branches: (branches, tokens of each) to next-token logits (R, V) and new branches."""


def search(
    grammar: AnswerGrammar, prompts: Sequence[Sequence[int]], step: Step, mode: Mode, beam: int = 5
) -> list[Hypothesis]:
    """The best answer to every prompt, in the order of the prompts.

    greedy and mean follow the likeliest token; beam keeps the ``beam`` likeliest beginnings of x and gives each its
    likeliest y. ``step`` is called with branch q for the beginning of prompt q.
    """
    width = beam if mode == "beam" else 1
    root = grammar.tries[0]
    open_ones = [Hypothesis(query, query, root, [*prompt, *grammar.head]) for query, prompt in enumerate(prompts)]
    done: list[Hypothesis] = []
    while open_ones:
        logits, branches = step([one.branch for one in open_ones], [one.pending for one in open_ones])
        # Of a large vocabulary only the tokens that can follow leave the device.
        nodes = {id(one.node): one.node for one in open_ones}
        tokens = torch.cat([node.tokens for node in nodes.values()]).unique()
        logits = logits.float()
        scores = (logits[:, tokens.to(logits.device)] - logits.logsumexp(-1, keepdim=True)).cpu()
        grown: list[Hypothesis] = []
        for node in nodes.values():
            chosen = [place for place, one in enumerate(open_ones) if one.node is node]
            allowed = scores[chosen][:, torch.searchsorted(tokens, node.tokens)]
            for place, choice in zip(chosen, _choices(node, allowed, width), strict=True):
                one = open_ones[place]
                grown += _grow(grammar, one, branches[place], choice, width if one.axis == 0 else 1)
        if width > 1:
            grown = _best(grown, width)
        open_ones = [one for one in grown if one.axis < 2]
        done += [one for one in grown if one.axis == 2]
    return _best(done, 1)


def _best(hypotheses: Sequence[Hypothesis], width: int) -> list[Hypothesis]:
    """The ``width`` likeliest of every query, queries in order."""
    by_query: dict[int, list[Hypothesis]] = {}
    for one in sorted(hypotheses, key=lambda one: -one.total):
        by_query.setdefault(one.query, []).append(one)
    return [one for query in sorted(by_query) for one in by_query[query][:width]]


@dataclass(frozen=True)
class _Choice:
    """What can follow at a node, of one hypothesis: mass on it all, entropy in nats, expected middle, and the likeliest
    children as (place among the children, log-probability)."""

    mass: float
    entropy: float
    middle: float
    likeliest: list[tuple[int, float]]


def _choices(node: Node, allowed: Tensor, width: int) -> Iterator[_Choice]:
    """The choices of hypotheses that stand at one node, from the log-probabilities of what can follow (H, n)."""
    mass = allowed.logsumexp(-1).exp().tolist()
    allowed = allowed.log_softmax(-1)
    shares = allowed.exp()
    entropy = (-(shares * allowed.nan_to_num(neginf=0.0)).sum(-1)).tolist()
    middle = (shares @ node.middles).tolist()
    best = allowed.topk(min(width, allowed.shape[1]))
    likeliest = (list(zip(*one, strict=True)) for one in zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return map(_Choice, mass, entropy, middle, likeliest)


def _grow(grammar: AnswerGrammar, one: Hypothesis, branch: int, choice: _Choice, width: int) -> list[Hypothesis]:
    """``one`` with each of its ``width`` likeliest next tokens."""
    reach = math.exp(one.log_probability[one.axis])
    following = list(one.node.children.items())
    grown = []
    for place, added_log in choice.likeliest[:width]:
        token, child = following[place]
        added = _advance(grammar, one, token, child)
        added.branch = branch
        added.mass = min(one.mass, choice.mass)
        log_probability = one.log_probability[one.axis] + added_log
        expected = one.expected[one.axis] + reach * (choice.middle - math.exp(added_log) * child.middle)
        if added.axis > one.axis:
            expected += math.exp(log_probability) * child.middle
        added.log_probability = _set(one.log_probability, one.axis, log_probability)
        added.expected = _set(one.expected, one.axis, expected)
        added.entropy = _set(one.entropy, one.axis, one.entropy[one.axis] + reach * choice.entropy)
        grown.append(added)
    return grown


def _advance(grammar: AnswerGrammar, one: Hypothesis, token: int, node: Node) -> Hypothesis:
    """Follow a token and everything that is forced behind it, up to the next choice or the end."""
    pending, axis, numbers = [token], one.axis, one.numbers
    while True:
        while node.index is None and len(node.children) == 1:
            ((token, node),) = node.children.items()
            pending.append(token)
        if node.index is None:
            break
        numbers = (*numbers, node.index)
        axis += 1
        if axis == 2:
            break
        pending += grammar.between
        node = grammar.tries[1]
        if len(node.children) > 1:
            break
    return Hypothesis(one.query, one.branch, node, pending, axis, numbers)


def _set(values: tuple[float, float], axis: int, value: float) -> tuple[float, float]:
    return (value, values[1]) if axis == 0 else (values[0], value)
