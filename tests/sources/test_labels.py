from __future__ import annotations

import pytest

from talking_points.sources.labels import ap10k_families, clean_name, split_label, vocabulary

SIZES = {"pascal_part116": (20, 116), "ade20k_part234": (44, 234), "partimagenet": (11, 40)}


@pytest.mark.parametrize("source", SIZES)
def test_ids_index_the_published_lists(source: str) -> None:
    words = vocabulary(source)
    assert (len(words.objects), len(words.parts)) == SIZES[source]
    assert [item.id for item in words.objects] == list(range(len(words.objects)))
    assert [item.id for item in words.parts] == list(range(len(words.parts)))
    assert sum(map(len, words.part_ids.values())) == len(words.parts)
    for part in words.parts:
        assert part.object == words.objects[part.object_id].name, part
        assert part.part == part.part.lower()


def test_names_available_over_the_three_sources() -> None:
    objects = {item.name for source in SIZES for item in vocabulary(source).objects}
    pairs = {(part.object, part.part) for source in SIZES for part in vocabulary(source).parts}
    assert (len(objects), len(pairs)) == (64, 363)


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("dog's head", ("dog", "head")),
        ("pottedplant's plant", ("potted plant", "plant")),
        ("tvmonitor's screen", ("tv monitor", "screen")),
        ("aeroplane's stern", ("aeroplane", "stern")),
        ("chest of drawers's apron", ("chest of drawers", "apron")),
        ("computer's computer case", ("computer", "computer case")),
        ("shelf's shelf", ("shelf", "shelf")),
        ("traffic light's housing", ("traffic light", "housing")),
        ("Quadruped Head", ("quadruped", "head")),
        ("Car Side Mirror", ("car", "side mirror")),
        ("Car Tier", ("car", "tire")),
        ("Bicycle Tier", ("bicycle", "tire")),
    ],
)
def test_labels_split_once_and_read_well(label: str, names: tuple[str, str]) -> None:
    assert split_label(label) == names


def test_a_label_without_a_part_is_an_error() -> None:
    with pytest.raises(ValueError, match="dog"):
        split_label("dog")


def test_clean_name_joins_and_separates_words() -> None:
    assert [clean_name(name) for name in ("diningtable", "human_body", "Woodpecker", "sofa")] == [
        "dining table",
        "human body",
        "woodpecker",
        "sofa",
    ]


def test_families_of_the_different_order_setting() -> None:
    families = ap10k_families()
    assert len(families) == 54
    assert [key for key, family in families.items() if family == "Bovidae"] == [1, 2, 3, 4, 5, 6]
    assert [key for key, family in families.items() if family == "Canidae"] == [7, 8, 9, 10]
