"""Reading triplets and keypoints, and the order of batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi
from hypothesis import given
from hypothesis import strategies as st

from talking_points.config import ConfigError
from talking_points.examples.points import LengthBuckets, derangement, load_points
from tests.publishing.conftest import Run
from tests.publishing.local_hub import LocalHub
from tests.training.conftest import write_dataset


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_become_points_and_images_are_decoded_once(tmp_path: Path, streaming: bool) -> None:
    points = load_points(write_dataset(tmp_path), "train", streaming=streaming)
    assert [example.text for example in points.examples] == [f"text {number}" for number in range(6)]
    assert points.examples[1].keypoint == (1.0, 3.0)
    assert points.examples[0].source == "pascal_part116"
    decoded = list(points.images(["d2", "d0"]))
    assert [digest for digest, _ in decoded] == ["d0", "d2"]
    assert [int(np.asarray(image).mean()) for _, image in decoded] == [0, 2]
    assert points.sizes.tolist() == [[50, 40]] * 6


READ = """
import json, sys
from talking_points.config import ConfigError
from talking_points.examples.points import load_points
found = {}
for revision in json.loads(sys.argv[1]):
    for streaming in (False, True):
        points = load_points("org/name", "train", revision=revision, streaming=streaming)
        images = {digest: image.getpixel((0, 0))[0] for digest, image in points.images(["d2", "d0"])}
        found[f"{revision} {streaming}"] = [[example.text for example in points.examples], images]
drawn = [load_points("org/name", "train", streaming=streaming, limit=2, seed=5) for streaming in (False, True)]
found["limited"] = [[example.id for example in points.examples] for points in drawn]
try:
    load_points("org/name", "train", revision="v9")
except ConfigError as error:
    found["absent"] = str(error)
print(json.dumps(found))
"""


def test_a_dataset_on_the_hub_is_that_of_the_revision_named(reached: LocalHub, run: Run, tmp_path: Path) -> None:
    repository = reached.create("org/name", private=True)
    for description in ("first", "second"):
        folder = write_dataset(tmp_path / description, description=description)
        HfApi().upload_folder(folder_path=folder, repo_id="org/name", repo_type="dataset")
    first = repository.commits[1].oid
    repository.tags["v1"] = first
    done = run(READ, json.dumps([first, "v1", None]))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for revision, text in ((first, "first"), ("v1", "first"), (None, "second")):
        for streaming in (False, True):
            assert found[f"{revision} {streaming}"] == [[text] * 6, {"d0": 0, "d2": 2}], (revision, streaming)
    everything = load_points(tmp_path / "second", "train")
    assert found["limited"] == [
        [example.id for example in everything.sample(2, 5).examples],
        [example.id for example in everything.examples[:2]],
    ]
    assert "org/name" in found["absent"]


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


def test_missing_splits_columns_and_images_are_named(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, image=None)
    with pytest.raises(ConfigError, match="validation"):
        load_points(folder, "validation")
    with pytest.raises(ConfigError, match="draft"):
        load_points(folder, "train", "draft")
    with pytest.raises(ConfigError, match="references"):
        list(load_points(folder, "train").images(["d0"]))
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
    exchanged = points.shuffle_texts(0)
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


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 16), st.integers(2, 5))
def test_processes_share_the_batches_of_an_epoch_and_have_the_same_number(lengths, size: int, processes: int) -> None:
    alone = list(LengthBuckets(lengths, size, seed=3))
    shares = [LengthBuckets(lengths, size, seed=3, process=own, processes=processes) for own in range(processes)]
    assert len({len(share) for share in shares}) == 1
    together = [batch for step in zip(*shares, strict=True) for batch in step]
    assert together[: len(alone)] == alone
    assert len(together) - len(alone) < processes


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
