"""Texts that say almost the same: MinHash (Broder 1997) and locality-sensitive hashing find them among many.

Two texts are near-duplicates when the Jaccard similarity of their word triples reaches a threshold. Hashing only
proposes pairs; every pair is checked on the triples themselves, so that nothing is called alike by chance.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

PERMUTATIONS = 128
"""Hash functions of a signature."""
SHINGLE = 3
"""Words in a row that count as one feature."""

_WORD = re.compile(r"\w+")


def near_duplicate_texts(texts: Sequence[str], threshold: float) -> list[list[int]]:
    """Groups of at least two numbers of texts, each in rising order, the groups by their first.

    Similarity is passed on: a text is in the group of any text that it is alike. ``threshold`` is in (0, 1]. The
    same texts give the same groups.
    """
    # Only this needs the package, whose import takes half a second.
    from datasketch import MinHash, MinHashLSH

    first: dict[frozenset[str], int] = {}
    parents = list(range(len(texts)))
    for number, text in enumerate(texts):
        shingles = shingles_of(text)
        _join(parents, first.setdefault(shingles, number), number)
    different = [(number, shingles) for shingles, number in first.items() if shingles]
    if threshold < 1 and len(different) > 1:
        # A pair that is missed is worse than one that is looked at for nothing.
        index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=(0.02, 0.98))
        signatures = MinHash.generator(
            ([shingle.encode() for shingle in shingles] for _, shingles in different),
            num_perm=PERMUTATIONS,
            hashfunc=zlib.crc32,
        )
        by_number = dict(different)
        for (number, shingles), signature in zip(different, signatures, strict=True):
            for other in index.query(signature):
                if similarity(shingles, by_number[other]) >= threshold:
                    _join(parents, other, number)
            index.insert(number, signature, check_duplication=False)
    groups: dict[int, list[int]] = {}
    for number in range(len(texts)):
        groups.setdefault(_root(parents, number), []).append(number)
    return [group for group in groups.values() if len(group) > 1]


def shingles_of(text: str) -> frozenset[str]:
    """The word triples of a text, in lower case and without punctuation; all its words where there are fewer."""
    words = _WORD.findall(text.lower())
    if len(words) <= SHINGLE:
        return frozenset([" ".join(words)] if words else [])
    return frozenset(" ".join(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1))


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard similarity of two sets of shingles: shared ones among all, in [0, 1]."""
    return len(one & other) / max(len(one | other), 1)


def repeats(groups: Iterable[Sequence[int]]) -> set[int]:
    """All of the groups but the first of each: what would go where one text of a kind is to stay."""
    return {number for group in groups for number in group[1:]}


def summary(groups: Sequence[Sequence[int]], threshold: float) -> dict[str, Any]:
    """What manifests and reports say of the groups."""
    sizes = [len(group) for group in groups]
    return {"threshold": threshold, "groups": len(sizes), "rows": sum(sizes), "largest": max(sizes, default=0)}


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


def _join(parents: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first
