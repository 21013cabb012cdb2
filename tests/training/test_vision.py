"""Pretraining of the vision path on part masks."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from talking_points.config import ConfigError
from talking_points.errors import TrainingStoppedError
from talking_points.examples.labelled_images import (
    LabelledImages,
    load_labelled_images,
    mirror_boxes,
    relative_places,
)
from talking_points.models.descriptor import PointDescriptor
from talking_points.sources import open_source
from talking_points.training import pretraining_state
from talking_points.training.backbone import DenseLabels, pretrain_backbone
from talking_points.training.config import VisionConfig
from talking_points.training.optimizers import OneCycle
from talking_points.training.start import save_vision
from talking_points.training.vision import pretrain_vision, spread_positions
from tests.training.conftest import small


def squares(count: int = 24, size: int = 64) -> LabelledImages:
    """Red, green and blue squares on grey: three parts of two objects."""
    random = np.random.default_rng(0)
    pixels = np.full((count, size, size, 3), 90, np.uint8)
    regions = np.zeros((count, size, size), np.int32)
    boxes = [np.zeros(8)]
    for image in range(count):
        for part in range(1, 4):
            x, y = random.integers(0, size - 24, 2)
            pixels[image, y : y + 24, x : x + 24] = np.eye(3, dtype=np.uint8)[part - 1] * 220
            regions[image, y : y + 24, x : x + 24] = len(boxes)
            boxes.append(np.tile([x, y, x + 24, y + 24], 2) / size)
    kinds = torch.tensor([0, *[1, 2, 3] * count])
    return LabelledImages(
        pixels, regions, kinds, kinds.clamp(max=2), kinds, torch.tensor(np.array(boxes), dtype=torch.float32)
    )


def test_labels_lie_where_the_model_sees_the_parts(drawn: dict[str, Path]) -> None:
    records = list(islice(open_source("pascal_part116", drawn["pascal_part116"]), 3))
    data = load_labelled_images(records, 100)
    assert data.pixels.shape == (3, 100, 100, 3)
    record = records[0]
    side = max(record.width, record.height)
    for annotated in record.objects:
        for part in annotated.parts:
            assert part.mask is not None
            ys, xs = np.nonzero(part.mask)
            middle = len(ys) // 2
            x = int((xs[middle] + (side - record.width) // 2 + 0.5) * 100 / side)
            y = int((ys[middle] + (side - record.height) // 2 + 0.5) * 100 / side)
            near = data.regions[0, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            assert near.any()
            left, top, right, bottom = data.boxes[int(near.max()), 4:] * 100
            assert left - 2 <= x <= right + 2
            assert top - 2 <= y <= bottom + 2
    assert ((data.part > 0) == (data.object > 0)).all()
    with pytest.raises(ConfigError, match="part masks"):
        load_labelled_images([], 100)


def test_only_the_vision_path_is_trained_and_it_is_frozen_again(tmp_path: Path) -> None:
    model = small(PointDescriptor)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pretrain_vision(model, squares(4), VisionConfig(steps=2, batch_size=2))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("vision.") for name in changed)
    assert not any(parameter.requires_grad for parameter in model.vision.parameters())
    save_vision(model, tmp_path / "vision.safetensors")
    other = small(PointDescriptor, seed=4)
    from safetensors.torch import load_file

    other.vision.load_state_dict(load_file(tmp_path / "vision.safetensors"))
    assert torch.equal(other.vision.pos_linear.weight, model.vision.pos_linear.weight)


@pytest.mark.parametrize("backbone_steps", [0, 3])
@pytest.mark.parametrize(("what", "spoilt"), [("loss", "nan"), ("gradient", "inf")])
def test_what_is_no_number_stops_with_the_images(what: str, spoilt: str, backbone_steps: int) -> None:
    model, data = small(PointDescriptor), squares(4)
    weight = next(value for value in model.vision.backbone.parameters() if value.dim() > 1)
    if what == "loss":
        data = replace(data, boxes=data.boxes * float(spoilt))
    else:
        weight.register_hook(lambda gradient: gradient * float(spoilt))
    config = VisionConfig(steps=2, batch_size=2, backbone_steps=backbone_steps, backbone_batch_size=2)
    with pytest.raises(TrainingStoppedError, match=rf"the {what} .* step 1, in the batch of images \d, \d .*look at"):
        pretrain_vision(model, data, config)
    assert all(value.isfinite().all() for value in model.vision.parameters())


@pytest.mark.parametrize("bf16", [False, True])
def test_the_backbone_alone_learns_what_lies_where_mirrored_or_not(bf16: bool) -> None:
    model = small(PointDescriptor)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = VisionConfig(backbone_steps=60, backbone_batch_size=8, backbone_bf16=bf16)
    found = pretrain_backbone(model, squares(), config, np.random.default_rng(0), np.arange(20), np.arange(20, 24))
    assert found["backbone part"] > 60
    assert found["backbone object"] > 80
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("vision.backbone.") for name in changed)
    data = squares(2)
    task = DenseLabels(model, data)
    flipped = {name: getattr(data, name)[:, :, ::-1].copy() for name in ("pixels", "regions")}
    mirrored = replace(data, **flipped, boxes=mirror_boxes(data.boxes))
    everything, nothing = np.ones(2, bool), np.zeros(2, bool)
    with torch.no_grad():
        loss = task(np.arange(2), everything)[0]
        task.data, task.boxes = mirrored, task.boxes.flip(0)
        torch.testing.assert_close(task(np.arange(2), nothing)[0], loss)


class _Interrupted(Exception):
    pass


SHORT = VisionConfig(steps=4, batch_size=2, backbone_steps=4, backbone_batch_size=2)


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    torch.set_num_threads(1)  # as in every test
    whole = small(PointDescriptor)
    found = pretrain_vision(whole, squares(4), SHORT)
    return whole.state_dict(), found


@pytest.mark.parametrize("at", [3, 4, 7], ids=lambda at: f"step {at}")
def test_an_interrupted_vision_path_ends_with_the_same_weights(
    uninterrupted: tuple[dict[str, torch.Tensor], dict[str, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    """Four steps of the backbone and four of all of it; checkpoints every other step."""
    monkeypatch.setattr(pretraining_state, "CHECKPOINT_STEPS", 2)
    weights, expected = uninterrupted
    steps, step = iter(range(100)), OneCycle.step

    def interrupted(cycle: OneCycle, loss: torch.Tensor, batch: Any) -> None:
        if next(steps) == at:
            raise _Interrupted
        step(cycle, loss, batch)

    monkeypatch.setattr(OneCycle, "step", interrupted)
    with pytest.raises(_Interrupted):
        pretrain_vision(small(PointDescriptor), squares(4), SHORT, folder=tmp_path)
    made = at // 2 * 2
    again = small(PointDescriptor)
    assert pretrain_vision(again, squares(4), SHORT, folder=tmp_path) == expected
    assert next(steps) == at + 1 + 8 - made, "only what was lost is made again"
    for name, value in weights.items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_positions_start_as_different_as_the_places_are() -> None:
    model = small(PointDescriptor)
    spread_positions(model)
    size = model.config.image_size
    places = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) * size
    _, positions = model.vision.prompt_queries(places, (size, size))
    spread = positions.std(0)
    seen = spread > 1e-3
    assert seen.sum() >= 8
    assert 0.6 < spread[seen].mean() < 1.6
    assert positions.mean(0).abs().max() < 0.6


@pytest.mark.slow
def test_it_learns_what_lies_where() -> None:
    found = pretrain_vision(
        small(PointDescriptor), squares(120), VisionConfig(steps=120, batch_size=4, learning_rate=3e-3)
    )
    assert found["pixel part"] > 80
    assert found["point part"] > 80


def test_relative_places_are_what_words_say_of_a_point() -> None:
    # An object from 0.2 to 0.6 and its part from 0.4 to 0.5, along both axes.
    boxes = torch.tensor([[0.2, 0.2, 0.6, 0.6, 0.4, 0.4, 0.5, 0.5]]).repeat(3, 1)
    points = torch.tensor([[0.45, 0.4], [0.5, 0.475], [0.51, 0.45]])
    in_part = torch.tensor([[0.0, -1.0], [1.0, 0.5], [1.0, 0.0]])
    expected = torch.cat((in_part, torch.full((3, 4), 0.25)), 1)
    torch.testing.assert_close(relative_places(points, boxes), expected, atol=1e-6, rtol=0)


def test_a_mirror_moves_boxes_and_seen_twice_nothing() -> None:
    boxes = torch.rand(5, 8, generator=torch.Generator().manual_seed(0)).view(5, 2, 2, 2).sort(2).values.view(5, 8)
    flipped = mirror_boxes(boxes)
    torch.testing.assert_close(mirror_boxes(flipped), boxes)
    torch.testing.assert_close(flipped[:, 0] + boxes[:, 2], torch.ones(5))
    assert (flipped[:, 0::4] <= flipped[:, 2::4]).all()
