"""The declared schema is what ``datasets`` reads back, from the files and from the card."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import ClassLabel, Features, Image, List, Value, load_dataset

from talking_points.dataset_schema import COLUMNS, card_features, features, triplet_schema
from talking_points.records import SOURCES
from tests.publishing.small_dataset import ROWS, noise_jpeg, write_dataset


def test_features_are_those_of_the_published_table() -> None:
    declared = features()
    assert list(declared) == list(COLUMNS)
    assert declared["image"] == Image()
    assert declared["source"] == ClassLabel(names=list(SOURCES))
    assert declared["object_bbox"] == List(Value("float32"), length=4)
    assert declared["keypoint"] == List(Value("float32"), length=2)
    assert declared["flags"] == List(Value("string"))
    assert declared["provenance"]["refine"]["prompt_sha256"] == Value("string")
    assert declared["provenance"]["seed"] == Value("int64")


def test_schema_metadata_and_types_agree() -> None:
    schema = triplet_schema()
    assert features().arrow_schema.equals(schema, check_metadata=True)


def test_card_names_the_same_features() -> None:
    assert Features._from_yaml_list(card_features()) == features()


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_gives_rows_and_features(tmp_path: Path, streaming: bool) -> None:
    output = write_dataset(tmp_path / "dataset")
    dataset = load_dataset(str(output), streaming=streaming, cache_dir=str(tmp_path / "cache"))
    assert set(dataset) == set(ROWS)
    assert dataset["train"].features == features()
    rows = list(dataset["train"].cast_column("image", Image(decode=False)))
    assert [row["id"] for row in rows] == [f"{n:016x}" for n in range(ROWS["train"])]
    assert rows[3]["image"]["bytes"] == noise_jpeg(3)
