"""Choosing and splitting as arrays give what the plain rules say, row by row."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from talking_points.candidates.sampling import choose
from talking_points.candidates.splitting import split
from talking_points.records import derive_seed

SOURCES = ("pascal_part116", "partimagenet")
# Ids that share a beginning, repeat, or sort by more than their bytes; of one seed in 2^32 two may be equal.
IDS = st.one_of(st.text("aé𝄞", max_size=3), st.integers(0, 99).map(str))
ROWS = st.lists(st.tuples(IDS, st.sampled_from(SOURCES), *[st.sampled_from("abc")] * 3), max_size=40)
EVERY = [("first", source, "a", "a", "a") for source in SOURCES]


def in_turn(rows: list[tuple[str, str, str, str, str]], seed: int) -> list[str]:
    """The rule in words: rows by lot; each image's pair once; the pair that was served least often is next."""
    by_lot = sorted(rows, key=lambda row: (derive_seed(seed, row[0], "balance"), row[0]))
    taken: set[tuple[str, ...]] = set()
    served: Counter[tuple[str, ...]] = Counter()
    turns = []
    for row in by_lot:
        if row[2:] not in taken:
            taken.add(row[2:])
            served[row[2:4]] += 1
            turns.append((served[row[2:4]], row[0]))
    return [id_ for _, id_ in sorted(turns, key=lambda turn: turn[0])]


@given(ROWS, st.integers(0, 5), st.integers(1, 7))
def test_the_order_in_which_points_are_taken(rows: list[tuple[str, str, str, str, str]], seed: int, size: int) -> None:
    rows = EVERY + rows
    names = ("id", "source", "object", "part", "image_id")
    table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    in_shards = pa.concat_tables([table.slice(start, size) for start in range(0, len(rows), size)])
    found = choose(in_shards, dict.fromkeys(SOURCES), equal_shares=False, seed=seed)
    ranked = {source: in_shards["id"].take(own).to_pylist() for source, own in found.rows.items()}
    assert ranked == {name: in_turn([row for row in rows if row[1] == name], seed) for name in SOURCES}


@given(st.lists(st.tuples(IDS, st.sampled_from(SOURCES), st.integers(0, 9)), max_size=40), st.integers(0, 5))
def test_the_sides_of_the_split(rows: list[tuple[str, str, int]], seed: int) -> None:
    ids, sources, groups = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    room = {name: round(count * 4 / 21) for name, count in Counter(sources).items()}
    least = {group: min(row[0] for row in rows if row[2] == group) for group in groups}
    sides = dict.fromkeys(groups, "train")
    order = sorted(sorted(least), key=lambda group: (derive_seed(seed, least[group], "split"), least[group]))
    for group in order:
        wanted = Counter(row[1] for row in rows if row[2] == group)
        if all(count <= room[name] for name, count in wanted.items()):
            sides[group] = "test"
            room = {name: left - wanted[name] for name, left in room.items()}
    assert split(ids, sources, groups, seed=seed) == [sides[group] for group in groups]
