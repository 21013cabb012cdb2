from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.candidates.counting import composition, label_availability
from talking_points.candidates.sampling import choose, fill_up
from talking_points.candidates.splitting import near_duplicate_groups, split
from talking_points.records import SOURCES

COLUMNS = ("id", "source", "object", "part", "image_id")
Row = tuple[str, str, str, str, str]


def table(rows: list[Row]) -> pa.Table:
    return pa.table(dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))


def rows_of(source: str, counts: dict[tuple[str, str], int]) -> list[Row]:
    """``counts`` rows of each (object, part), each in an image of its own."""
    return [
        (f"{source}/{name}/{part}/{n}", source, name, part, f"{name}-{part}-{n}")
        for (name, part), count in counts.items()
        for n in range(count)
    ]


PASCAL = rows_of("pascal_part116", {("dog", "head"): 50, ("dog", "tail"): 3, ("cat", "head"): 10})
ADE = rows_of("ade20k_part234", {("chair", "leg"): 20, ("chair", "seat"): 4})
EQUAL: dict[str, int | None] = {"pascal_part116": None, "ade20k_part234": None}


def in_turn(rows: list[Row], points: dict[str, int | None], **options) -> dict[str, list[str]]:
    """The ids of each source in the order in which they are taken."""
    found, ids = choose(table(rows), points, **options), table(rows)["id"]
    return {source: ids.take(own).to_pylist() for source, own in found.rows.items()}


def chosen(rows: list[Row], points: dict[str, int | None], **options) -> list[str]:
    return [id_ for ids in in_turn(rows, points, **options).values() for id_ in ids]


def filled_up(
    rows: list[Row], points: dict[str, int | None], accepted: set[str], **options
) -> tuple[dict[str, list[str]], list[str]]:
    """The ids of each source in turn, and those of the dataset when only the accepted ones are left."""
    shares, ranked = choose(table(rows), points, **options).shares, in_turn(rows, points, **options)
    reserves = [id_ for source, ids in ranked.items() for id_ in ids[shares[source] :]]
    drawn = accepted.intersection(id_ for ids in ranked.values() for id_ in ids)
    left = table([row for row in rows if row[0] in drawn])
    kept = fill_up(left, shares, pa.array(reserves, pa.string()))
    return ranked, left["id"].filter(pa.array(kept)).to_pylist()


def sampled(ids: list[str]) -> Counter[str]:
    return Counter(id_.split("/")[0] for id_ in ids)


@pytest.mark.parametrize(
    ("points", "equal_shares", "limit", "expected"),
    [
        (EQUAL, True, None, {"pascal_part116": 24, "ade20k_part234": 24}),
        (EQUAL, False, None, {"pascal_part116": 63, "ade20k_part234": 24}),
        (EQUAL | {"ade20k_part234": 7}, True, None, {"pascal_part116": 7, "ade20k_part234": 7}),
        (EQUAL | {"pascal_part116": 40}, True, None, {"pascal_part116": 24, "ade20k_part234": 24}),
        (EQUAL | {"pascal_part116": 40}, False, None, {"pascal_part116": 40, "ade20k_part234": 24}),
        (EQUAL | {"pascal_part116": 400}, True, None, {"pascal_part116": 24, "ade20k_part234": 24}),
        ({"pascal_part116": 20, "ade20k_part234": 20}, True, None, {"pascal_part116": 20, "ade20k_part234": 20}),
        ({"pascal_part116": 30, "ade20k_part234": 30}, True, None, {"pascal_part116": 24, "ade20k_part234": 24}),
        ({"pascal_part116": 30, "ade20k_part234": 10}, False, None, {"pascal_part116": 30, "ade20k_part234": 10}),
        (EQUAL, True, 11, {"pascal_part116": 6, "ade20k_part234": 5}),
        (EQUAL, False, 60, {"pascal_part116": 36, "ade20k_part234": 24}),
        (EQUAL, True, 1000, {"pascal_part116": 24, "ade20k_part234": 24}),
    ],
)
def test_shares(points: dict[str, int | None], equal_shares: bool, limit: int | None, expected: dict[str, int]):
    ids = chosen(PASCAL + ADE, points, equal_shares=equal_shares, limit=limit)
    assert sampled(ids) == expected
    assert len(set(ids)) == len(ids)


def test_the_least_represented_pairs_are_served_first():
    ids = chosen(PASCAL, {"pascal_part116": 20})
    assert Counter(id_.rsplit("/", 1)[0] for id_ in ids) in (
        {"pascal_part116/dog/head": 9, "pascal_part116/dog/tail": 3, "pascal_part116/cat/head": 8},
        {"pascal_part116/dog/head": 8, "pascal_part116/dog/tail": 3, "pascal_part116/cat/head": 9},
    )


def test_one_point_for_each_part_of_an_image():
    rows = [(f"{n}", "partimagenet", "quadruped", "foot", "image-1") for n in range(4)]
    rows += [
        ("4", "partimagenet", "quadruped", "head", "image-1"),
        ("5", "partimagenet", "quadruped", "foot", "image-2"),
    ]
    ids = chosen(rows, {"partimagenet": None})
    assert len(ids) == 3
    assert {"4", "5"} < set(ids)  # the foot of the other image and the only head


@given(st.randoms(use_true_random=False), st.integers(0, 3))
def test_order_changes_nothing_and_the_seed_does(random, seed: int):
    shuffled = PASCAL + ADE
    random.shuffle(shuffled)
    assert in_turn(shuffled, EQUAL, seed=seed) == in_turn(PASCAL + ADE, EQUAL, seed=seed)
    twenty: dict[str, int | None] = {"pascal_part116": 20}
    assert in_turn(PASCAL, twenty, seed=seed) != in_turn(PASCAL, twenty, seed=seed + 1)


def test_a_source_without_candidates_is_an_error():
    with pytest.raises(ValueError, match="'partimagenet' gave no candidate"):
        choose(table(PASCAL), {"pascal_part116": None, "partimagenet": None})


@pytest.mark.parametrize(
    ("reserve", "rejected", "found"),
    [
        (0.0, 0, 10),
        (0.0, 3, 7),
        (0.5, 0, 10),
        (0.5, 3, 10),
        (0.5, 5, 10),
        (0.5, 7, 8),
        (0.01, 1, 10),  # a reserve is never less than one row
        (99.0, 53, 10),
        (99.0, 54, 9),  # the source has no more
    ],
)
def test_reserves_fill_the_gaps_of_rejected_rows(reserve: float, rejected: int, found: int):
    ten: dict[str, int | None] = {"pascal_part116": 10}
    accepted = in_turn(PASCAL, ten, reserve=reserve)["pascal_part116"][rejected:]
    _, ids = filled_up(PASCAL, ten, set(accepted), reserve=reserve)
    assert sorted(ids) == sorted(accepted[:10])
    assert len(ids) == found


def test_reserves_change_nothing_while_no_row_is_rejected():
    everything = {row[0] for row in PASCAL + ADE}
    ranked, ids = filled_up(PASCAL + ADE, EQUAL, everything, limit=20, reserve=0.3)
    assert sorted(ids) == sorted(chosen(PASCAL + ADE, EQUAL, limit=20))
    assert sum(map(len, ranked.values())) == 26


@given(st.sets(st.integers(0, 86)), st.floats(0, 3), st.booleans())
def test_filling_up_takes_accepted_rows_only_and_never_more_than_the_share(
    rejected: set[int], reserve: float, equal: bool
):
    points = EQUAL | {"pascal_part116": 30}
    options: dict[str, Any] = {"equal_shares": equal, "reserve": reserve}
    ordered = sorted(chosen(PASCAL + ADE, points, **options))
    accepted = {id_ for number, id_ in enumerate(ordered) if number not in rejected}
    shares = choose(table(PASCAL + ADE), points, **options).shares
    if not accepted:
        return
    ranked, ids = filled_up(PASCAL + ADE, points, accepted, **options)
    assert set(ids) <= accepted
    for source, share in shares.items():
        assert sampled(ids)[source] == min(share, len(accepted & set(ranked[source])))


def groups_of(hashes: list[int], bits: int = 6, **columns) -> list[int]:
    count = len(hashes)
    aspects = np.array(columns.get("aspects", [1.5] * count))
    contents = columns.get("contents", [str(n) for n in range(count)])
    return near_duplicate_groups(np.array(hashes, np.uint64), bits, aspects=aspects, contents=contents).tolist()


BASE = 0x0F0F_3333_5555_9999


@pytest.mark.parametrize(
    ("hashes", "columns", "expected"),
    [
        ([BASE, BASE ^ 0b111111, BASE ^ 0b1111111], {}, [0, 0, 0]),  # the third is near the second
        ([BASE, BASE ^ 0b1111111], {}, [0, 1]),
        ([BASE ^ 0b1111111, 2**64 - 1 - BASE, BASE], {}, [0, 1, 2]),
        ([BASE, BASE], {"aspects": [1.5, 1.52]}, [0, 0]),
        ([BASE, BASE], {"aspects": [1.5, 1.0]}, [0, 1]),
        ([0, 0, 1], {}, [0, 1, 2]),  # nearly blank images
        ([0, 0, 1], {"contents": ["a", "b", "a"]}, [0, 1, 0]),
        ([2**64 - 1, 2**64 - 1], {}, [0, 1]),
    ],
)
def test_near_duplicates(hashes: list[int], columns: dict, expected: list[int]):
    assert groups_of(hashes, **columns) == expected


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(0, 4))
def test_groups_are_the_connected_components(flips: list[int], bits: int):
    hashes = [BASE ^ ((1 << n) - 1) for n in flips]
    order = sorted(flips)
    component: dict[int, int] = {}
    for before, n in zip([None, *order], order, strict=False):
        component[n] = n if before is None or n - before > bits else component[before]
    expected = [component[n] for n in flips]
    found = groups_of(hashes, bits)
    assert [a == b for a in found for b in found] == [a == b for a in expected for b in expected]


@given(st.data(), st.integers(0, 32))
def test_bands_find_the_pairs_that_comparing_all_finds(data: st.DataObject, bits: int):
    flips = st.lists(st.integers(0, 63), max_size=bits + 2)
    hashes = [BASE]
    for changed in data.draw(st.lists(flips, max_size=8)):
        value = data.draw(st.sampled_from(hashes))
        for bit in changed:
            value ^= 1 << bit
        hashes.append(value)
    usable = [n for n, value in enumerate(hashes) if 8 <= value.bit_count() <= 56]
    expected = list(range(len(hashes)))
    for a in usable:
        for b in usable:
            if (hashes[a] ^ hashes[b]).bit_count() <= bits:
                low, high = sorted((expected[a], expected[b]))
                expected = [low if group == high else group for group in expected]
    found = groups_of(hashes, bits)
    assert [a == b for a in found for b in found] == [a == b for a in expected for b in expected]


def test_blocks_do_not_matter():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 1500, dtype=np.uint64)
    hashes[1400] = hashes[3] ^ np.uint64(1)
    found = near_duplicate_groups(hashes, 6, aspects=np.ones(1500), contents=[str(n) for n in range(1500)])
    assert found[1400] == found[3]
    assert len(set(found.tolist())) == 1499


@pytest.mark.slow
def test_a_paper_sized_dataset_is_grouped_in_seconds():
    hashes = np.random.default_rng(0).integers(0, 2**64, 21_000, dtype=np.uint64)
    found = near_duplicate_groups(hashes, 6, aspects=np.ones(21_000), contents=[str(n) for n in range(21_000)])
    assert len(set(found.tolist())) == 21_000


@st.composite
def grouped_rows(draw) -> tuple[list[str], list[str], list[int]]:
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=60))
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    sources = [SOURCES[group % 3] for group in groups]
    return [f"row-{n}" for n in range(len(groups))], sources, groups


@given(grouped_rows(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_split_is_proportional_by_source_and_group(rows, seed: int, random):
    ids, sources, groups = rows
    sides = split(ids, sources, groups, seed=seed)
    for group in set(groups):
        assert len({side for side, member in zip(sides, groups, strict=True) if member == group}) == 1
    for source, count in Counter(sources).items():
        chosen = [n for n, name in enumerate(sources) if name == source]
        test_rows = sum(sides[n] == "test" for n in chosen)
        largest = max(Counter(groups[n] for n in chosen).values())
        assert 0 <= round(count * 4 / 21) - test_rows < largest
    order = list(range(len(ids)))
    random.shuffle(order)
    shuffled = split([ids[n] for n in order], [sources[n] for n in order], [groups[n] for n in order], seed=seed)
    assert shuffled == [sides[n] for n in order]


def test_a_paper_sized_split_is_exact():
    sources = [source for source in SOURCES for _ in range(7000)]
    sides = split([str(n) for n in range(21_000)], sources, list(range(21_000)))
    assert Counter(zip(sources, sides, strict=True)) == {
        (source, side): count for source in SOURCES for side, count in (("train", 5667), ("test", 1333))
    }


def test_a_group_across_sources_stays_together():
    sources = ["partimagenet", "ade20k_part234"] * 21
    sides = split([str(n) for n in range(42)], sources, [n // 2 for n in range(42)])
    assert sides[::2] == sides[1::2]
    assert Counter(sides) == {"train": 34, "test": 8}


def test_availability_of_the_label_lists():
    objects, pairs = label_availability(SOURCES)
    assert len(objects) == 64
    assert len(pairs) == 363


def test_composition():
    found = composition(
        ["pascal_part116", "pascal_part116", "partimagenet", "ade20k_part234"],
        ["bird", "bird", "bird", "chair"],
        ["head", "wing", "head", "leg"],
        configured=SOURCES,
    )
    assert found.counts["pascal_part116"] == {"bird": {"head": 1, "wing": 1}}
    assert (found.points, found.objects_sampled, found.pairs_sampled) == (4, 2, 3)
    assert (found.objects_available, found.pairs_available) == (64, 363)
