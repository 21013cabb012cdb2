"""The feature cache: same values, decoded once, bounded, safe to share."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from talking_points.config import ConfigError
from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import ABANDONED_SECONDS, FeatureStore, PointFeatures, vision_fingerprint
from talking_points.examples.inference import localize_points
from talking_points.models.localizer import PointLocalizer
from talking_points.training.config import LocalizerConfig
from talking_points.training.localizer import train_localizer
from tests.training.conftest import points, small


def test_cached_features_are_those_of_the_model(descriptor, features) -> None:
    data = points()
    known = PointFeatures(descriptor, data, features)
    assert known.prepare() == 3
    found, index, point_features = known.batch(data.examples)
    images = [image for _, image in data.images({example.image for example in data.examples})]
    fresh = descriptor.encode_images(images)
    torch.testing.assert_close(found.visual_tokens, fresh.visual_tokens, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        point_features, descriptor.encode_points(fresh, data.keypoints, index), rtol=1e-4, atol=1e-4
    )
    assert found.memories is None


def test_a_second_run_decodes_nothing(descriptor, features) -> None:
    data = points()
    PointFeatures(descriptor, data, features).prepare()
    assert PointFeatures(descriptor, data, features).prepare() == 0


def test_other_weights_other_masks_and_other_points_have_their_own_entries(descriptor, features) -> None:
    data = points()
    PointFeatures(descriptor, data, features).prepare()
    assert PointFeatures(descriptor, data.subset(range(8)), features).prepare() == 1  # one image lost a point
    descriptor.config.gaussian_sigma *= 2
    assert PointFeatures(descriptor, data, features).prepare() == 3
    before = vision_fingerprint(descriptor, "float32")
    with torch.no_grad():
        descriptor.vision.pos_linear.bias[0] += 1e-3
    assert vision_fingerprint(descriptor, "float32") != before


def test_a_localizer_needs_no_point_features(features) -> None:
    data = points(1, 2)
    known = PointFeatures(small(PointLocalizer), data, features)
    known.prepare()
    assert known.batch(data.examples)[2] is None


def test_a_removed_or_damaged_entry_is_computed_again(descriptor, features) -> None:
    data = points(1, 1)
    known = PointFeatures(descriptor, data, features)
    known.prepare()
    first = known.batch(data.examples)[0]
    for path in Path(features.folder).rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    torch.testing.assert_close(known.batch(data.examples)[0].visual_tokens, first.visual_tokens)


@pytest.mark.parametrize("planted", ["a", "exchanged", "wide", "pipe", "sizes"])
def test_an_entry_of_another_form_is_computed_again(descriptor, features, planted: str) -> None:
    store = PointFeatures(descriptor, points(1, 2), features)
    store.prepare()
    example, expected = store.points.examples[0], store.batch(store.points.examples)
    again = PointFeatures(descriptor, points(1, 2), features)
    paths = [store.store._path(key) for key in store._keys(example.image)]
    entries = [load_file(path) for path in paths]
    for path, entry, other in zip(paths, entries, reversed(entries), strict=True):
        path.unlink()
        if planted == "pipe":
            os.mkfifo(path)
        elif planted == "sizes":
            sizes = "image_sizes" in entry
            changed = {"image_sizes": entry["image_sizes"] + 1} if sizes else {"points": entry["points"][:1]}
            save_file({**entry, **changed}, path)
        else:
            wide = {name: value.double() if value.is_floating_point() else value for name, value in entry.items()}
            save_file({"a": {"a": torch.ones(1)}, "exchanged": other, "wide": wide}[planted], path)
    found = again.batch(store.points.examples)
    assert found[0].visual_tokens.equal(expected[0].visual_tokens)
    assert found[2] is not None
    assert expected[2] is not None
    assert found[2].equal(expected[2])


def test_a_bound_below_one_image_is_an_error_that_names_the_setting(descriptor, features) -> None:
    known = PointFeatures(descriptor, points(2, 1), features.model_copy(update={"limit_gb": 1e-9}))
    known.prepare()
    with pytest.raises(ConfigError, match="limit_gb"):
        known.batch(points(2, 1).examples)


def test_a_vision_path_in_training_is_refused(features) -> None:
    with pytest.raises(ConfigError, match="train_vision"):
        PointFeatures(small(PointLocalizer, train_vision=True), points(1, 1), features)


def test_the_oldest_entries_go_first_and_reading_keeps_one_young(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, limit_bytes=10 * 4100)
    for number in range(10):
        store.write(f"m/{number}", {"x": torch.zeros(1000)})
        path = next(tmp_path.rglob(f"{number}.safetensors"))

        os.utime(path, (number, number))
    store.read("m/0")
    store.limit_bytes = 5 * 4100
    assert store.evict() <= store.limit_bytes
    assert store.read("m/0") is not None
    assert store.read("m/1") is None
    assert store.read("m/9") is not None


def test_evaluation_reads_the_features_that_were_trained_on_and_keeps_them(localizer, tmp_path: Path) -> None:
    train, test = points(8).hold_out(1 / 2)
    folder = tmp_path / "features"
    features = FeatureConfig(folder=folder, dtype="bfloat16", limit_gb=1.0)
    config = LocalizerConfig(max_steps=1, batch_size=2, eval_points=1, save_steps=1, eval_steps=1)
    train_localizer(localizer, train, test.subset([0]), config, features, tmp_path / "model")
    trained = set(folder.rglob("*.safetensors"))
    assert len(trained) == 5
    # A configuration of its own, whose defaults are another precision and a bound that is far too small.
    own = FeatureConfig(folder=folder, limit_gb=1e-6)
    localize_points(PointLocalizer.from_pretrained(tmp_path / "model"), test, own)
    assert set(folder.rglob("*.safetensors")) > trained
    assert len({path.parent.parent for path in folder.rglob("*.safetensors")}) == 1, "features of one kind"


def test_a_torn_bound_counts_as_none(tmp_path: Path) -> None:
    FeatureStore(tmp_path, 100).remember_bound()
    assert FeatureStore(tmp_path, 10).bound() == 100
    assert FeatureStore(tmp_path, 1000).bound() == 1000
    (tmp_path / "bound.json").write_text('{"limit_')
    assert FeatureStore(tmp_path, 10).bound() == 10


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def test_many_small_runs_leave_a_folder_within_its_bound(localizer, features) -> None:
    data, folder = points(1, 1), Path(features.folder)
    PointFeatures(localizer, data, features).prepare()
    own = stored_bytes(folder)
    # Each run writes less than a twentieth of the bound, after which the store looks at its size by itself.
    bounded = features.model_copy(update={"limit_gb": 20.5 * own / 1e9})
    for _ in range(30):
        with torch.no_grad():  # as of another training: nothing that is there is of use to it
            localizer.vision.pos_linear.bias += 1e-3
        assert PointFeatures(localizer, data, bounded).prepare() == 1
        assert PointFeatures(localizer, data, bounded).prepare() == 0
        assert stored_bytes(folder) <= 20.5 * own
    assert stored_bytes(folder) == 20 * own


def test_what_a_run_has_found_outlives_what_others_left_later(localizer, features) -> None:
    data, folder = points(3, 1), Path(features.folder)
    PointFeatures(localizer, data.subset([0, 1]), features).prepare()
    found = set(folder.rglob("*.safetensors"))
    # Of no use to the run below, and written later.
    PointFeatures(small(PointLocalizer, seed=2), data, features).prepare()
    others = set(folder.rglob("*.safetensors")) - found
    for age, paths in ((2000, found), (1000, others)):
        for path in paths:
            os.utime(path, (path.stat().st_mtime - age,) * 2)
    three = stored_bytes(folder) * 3.1 / 5
    known = PointFeatures(localizer, data, features.model_copy(update={"limit_gb": three / 1e9}))
    assert known.prepare() == 1
    assert found < set(folder.rglob("*.safetensors"))
    assert stored_bytes(folder) <= three
    assert known.prepare() == 0, "all that the run needs is still there"


def test_half_files_of_killed_processes_do_not_stay(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, limit_bytes=1e6)
    store.write("m/0", {"x": torch.zeros(10)})
    folder = next(tmp_path.rglob("0.safetensors")).parent
    dead, alive = folder / ".partial-dead", folder / ".partial-alive"
    for path in (dead, alive):
        path.write_bytes(b"half")
    os.utime(dead, (dead.stat().st_mtime - ABANDONED_SECONDS - 1,) * 2)
    store.evict()
    assert alive.exists()
    assert not dead.exists()
    assert store.read("m/0") is not None


def use_together(folder: Path, process: int, limit: float) -> list[str]:
    """Reads, writes and evicts what all processes share; returns what went wrong."""
    random, wrong = np.random.default_rng(process), []
    store = FeatureStore(folder, limit, memory_bytes=4 * 4000)
    for _ in range(150):
        number = int(random.integers(40))
        entry = store.read(f"m/{number:02d}")
        if entry is None:
            store.write(f"m/{number:02d}", {"x": torch.full((1000,), float(number))})
        elif not torch.equal(entry["x"], torch.full((1000,), float(number))):
            wrong.append(f"process {process} read {entry['x'][:3].tolist()} of {number}")
        if random.random() < 0.1:
            store.evict()
    store.evict()
    return wrong


def test_processes_that_share_a_folder_read_right_values_and_keep_its_bound(tmp_path: Path) -> None:
    limit = 15 * 4100.0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(4, context) as pool:
        found = pool.map(use_together, [tmp_path] * 4, range(4), [limit] * 4)
        assert list(found) == [[]] * 4
    assert 0 < stored_bytes(tmp_path) <= limit
    assert {path.name for path in tmp_path.rglob(".*")} == {".lock"}


def test_what_was_read_stays_in_memory_up_to_its_bound(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 1e9, memory_bytes=2 * 400)
    for number in range(3):
        store.write(f"m/{number}0", {"x": torch.full((100,), float(number))})
    read = [store.read(f"m/{number}0") for number in range(3)]
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    assert store.read("m/00") is None  # the first of three, of which two fit
    assert store.read("m/10") is read[1]
    assert store.read("m/20") is read[2]


def test_many_writers_of_one_entry_leave_a_whole_one(tmp_path: Path) -> None:
    def work(_: int) -> float:
        store = FeatureStore(tmp_path, limit_bytes=20_000)
        store.write("m/same", {"x": torch.ones(1000)})
        entry = store.read("m/same")
        return 1.0 if entry is None else float(entry["x"].mean())

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(40))) == {1.0}
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".lock"]


def test_a_blind_model_sees_the_same_of_every_image(localizer, features) -> None:
    data = points()
    known = PointFeatures(localizer, data, features, blind=True)
    assert known.prepare() == 1  # of one image, which stands for all
    seen = known.batch(data.examples)[0]
    assert seen.visual_tokens.abs().max() == seen.object_queries.abs().max() == 0
    assert seen.object_valid.sum(1).tolist() == [1, 1, 1]
    sighted = PointFeatures(localizer, data, features)
    sighted.prepare()
    assert torch.equal(seen.image_sizes, sighted.batch(data.examples)[0].image_sizes)
