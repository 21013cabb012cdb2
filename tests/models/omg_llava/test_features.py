"""Vision features can be stored, selected, joined and stripped."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from talking_points.models.omg_llava.features import VisionFeatures


@pytest.fixture
def features(descriptor, images):
    return descriptor.encode_images(images)


def _equal(one: VisionFeatures, other: VisionFeatures) -> bool:
    a, b = one.tensors(), other.tensors()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("compact", [False, True])
def test_they_survive_a_file(features, tmp_path, compact):
    kept = features.compact() if compact else features
    save_file(kept.tensors(), tmp_path / "features.safetensors")
    loaded = VisionFeatures.from_tensors(load_file(tmp_path / "features.safetensors"))
    assert _equal(loaded, kept)
    assert loaded.frame == (128, 128)
    assert (loaded.memories is None) == compact


def test_selection_and_concatenation_are_inverse(features):
    parts = [features.select([index]) for index in range(3)]
    assert _equal(VisionFeatures.concatenate(parts), features)
    twice = features.select([2, 0, 2])
    assert torch.equal(twice.image_sizes, features.image_sizes[[2, 0, 2]])
    assert torch.equal(twice.levels[1][0], features.levels[1][2])


def test_compact_features_are_small_and_refuse_prompts(features, descriptor):
    compact = features.compact()
    sizes = [sum(tensor.nbytes for tensor in some.tensors().values()) for some in (compact, features)]
    assert sizes[0] * 4 < sizes[1]
    with pytest.raises(ValueError, match="compact features cannot answer prompts"):
        descriptor.encode_points(compact, [[1, 1]], torch.tensor([0]))


def test_frames_of_different_size_do_not_mix(features):
    other = VisionFeatures(**{**features.__dict__, "frame": (64, 64)})
    with pytest.raises(ValueError, match="one frame size"):
        VisionFeatures.concatenate([features, other])
