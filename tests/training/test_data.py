"""Reading triplets and keypoints, and the order of batches."""

from __future__ import annotations

import io
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from talking_points.config import ConfigError
from talking_points.sources.ap10k import Ap10k
from talking_points.sources.labels import ap10k_families, load_labels
from talking_points.training.data import LengthBuckets, ap10k_points, derangement, load_points

SPECIES = {item["id"]: item["name"] for item in load_labels("ap10k")["species"]}


def write_dataset(folder: Path, rows: int = 6, **changed: object) -> Path:
    """A dataset with the columns that training reads: two points per image."""
    table = []
    for number in range(rows):
        buffer = io.BytesIO()
        Image.fromarray(np.full((40, 50, 3), number // 2, np.uint8)).save(buffer, "PNG")
        row = {
            "id": f"{number:016x}", "image": {"bytes": buffer.getvalue(), "path": None},
            "image_sha256": f"d{number // 2}", "image_width": 50, "image_height": 40, "source": 0,
            "object": "dog", "part": "head",
            "object_bbox": [0.0, 0, 30, 30], "part_bbox": [0.0, 0, 10, 10], "instance_index": 0, "instance_count": 1,
            "keypoint": [float(number), 3.0], "object_location": "is in the center of the image",
            "part_location": "toward the top of the dog", "point_location": "in the center",
            "description": f"text {number}",
        }  # fmt: skip
        table.append({**row, **changed})
    features = datasets.Features(
        {
            **{name: datasets.Value("string") for name in ("id", "image_sha256", "object", "part", "object_location",
               "part_location", "point_location", "description")},
            **{name: datasets.Value("int32") for name in ("image_width", "image_height", "instance_index",
               "instance_count")},
            **{name: datasets.List(datasets.Value("float32")) for name in ("object_bbox", "part_bbox", "keypoint")},
            "source": datasets.ClassLabel(names=["pascal_part116"]), "image": datasets.Image(),
        }
    )  # fmt: skip
    (folder / "data").mkdir(parents=True)
    datasets.Dataset.from_list(table, features=features).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_become_points_and_pictures_are_decoded_once(tmp_path: Path, streaming: bool) -> None:
    points = load_points(write_dataset(tmp_path), "train", streaming=streaming)
    assert [example.text for example in points.examples] == [f"text {number}" for number in range(6)]
    assert points.examples[1].keypoint == (1.0, 3.0)
    assert points.examples[0].source == "pascal_part116"
    decoded = list(points.pictures(["d2", "d0"]))
    assert [digest for digest, _ in decoded] == ["d0", "d2"]
    assert [int(np.asarray(picture).mean()) for _, picture in decoded] == [0, 2]
    assert points.sizes.tolist() == [[50, 40]] * 6


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"description": ""}, "texts"),
        ({"keypoint": [50.0, 3.0]}, "outside its image of 50x40"),
        ({"keypoint": [-0.6, 3.0]}, "outside"),
    ],
)
def test_bad_datasets_are_refused_with_the_reason(tmp_path: Path, changed, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_points(write_dataset(tmp_path, **changed), "train")


def test_missing_splits_columns_and_pictures_are_named(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, image=None)
    with pytest.raises(ConfigError, match="validation"):
        load_points(folder, "validation")
    with pytest.raises(ConfigError, match="draft"):
        load_points(folder, "train", "draft")
    with pytest.raises(ConfigError, match="references"):
        list(load_points(folder, "train").pictures(["d0"]))
    with pytest.raises(ConfigError, match="cannot read"):
        load_points(tmp_path / "nowhere", "train")


def test_a_limit_draws_the_same_points_whatever_their_order(tmp_path: Path) -> None:
    points = load_points(write_dataset(tmp_path), "train")
    drawn = {example.id for example in points.sample(3, 7).examples}
    assert drawn == {example.id for example in points.subset([5, 4, 3, 2, 1, 0]).sample(3, 7).examples}
    assert len(drawn) == 3
    assert drawn != {example.id for example in points.sample(3, 8).examples}


def test_exchanged_texts_are_all_wrong(tmp_path: Path) -> None:
    points = load_points(write_dataset(tmp_path), "train")
    exchanged = points.shuffled_texts(0)
    assert all(a.text != b.text for a, b in zip(points.examples, exchanged.examples, strict=True))
    assert sorted(e.text for e in exchanged.examples) == sorted(e.text for e in points.examples)


@given(st.integers(2, 60), st.integers(0, 100))
def test_a_derangement_keeps_nothing_in_place(count: int, seed: int) -> None:
    order = derangement(count, seed)
    assert sorted(order) == list(range(count))
    assert (order != np.arange(count)).all()


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 16), st.integers(0, 5))
def test_every_epoch_holds_every_sample_once_and_never_depends_on_the_past(lengths, size: int, epoch: int) -> None:
    batches = LengthBuckets(lengths, size, seed=3)
    list(batches)
    batches.set_epoch(epoch)
    found = list(batches)
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    assert len(found) == len(batches)
    again = LengthBuckets(lengths, size, seed=3)
    again.set_epoch(epoch)
    assert list(again) == found


def test_batches_hold_texts_of_like_length_in_a_new_order_every_epoch() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, 2000)
    batches = LengthBuckets(lengths.tolist(), 8)
    first = list(batches)
    spread = np.mean([np.ptp(lengths[batch]) for batch in first])
    assert spread < 20  # 150 for batches at random
    batches.set_epoch(1)
    assert list(batches) != first
    assert json.dumps(first)  # plain integers


def test_points_of_an_image_stand_side_by_side() -> None:
    images = [str(index % 50) for index in range(400)]
    batches = LengthBuckets([10] * 400, 16, images=images, per_image=4)
    found = list(batches)
    assert sorted(index for batch in found for index in batch) == list(range(400))
    assert all(len(batch) == 16 and len({images[index] for index in batch}) <= 4 for batch in found)
    batches.set_epoch(1)
    assert {frozenset(batch) for batch in batches} != {frozenset(batch) for batch in found}


def test_keypoints_of_a_family_become_points_without_texts(drawn: dict[str, Path]) -> None:
    source = Ap10k(drawn["ap10k"], families=["Bovidae"])
    points = ap10k_points(source, "Bovidae")
    assert len(points) == source.labelled_pairs()["Bovidae"] > 0
    assert len({example.id for example in points.examples}) == len(points)
    families = {name: ap10k_families()[number] for number, name in SPECIES.items()}
    assert {families[example.facts.object] for example in points.examples} == {"Bovidae"}
    assert all(example.text == "" and example.part_bbox is None for example in points.examples)
    assert all("image" in example.facts.object_location for example in points.examples)
    digest, picture = next(points.pictures([points.examples[0].image]))
    assert digest == points.examples[0].image
    assert picture.size == points.examples[0].size
    assert len(ap10k_points(source, "Bovidae", limit=3)) == 3
    with pytest.raises(ConfigError, match="Canidae"):
        ap10k_points(source, "Canidae")
