"""The Point Descriptor: where it looks, what it trains, what it writes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.presets import tiny_config
from tests.models.conftest import TEXTS

POINTS = np.array([[3.0, 4.0], [100.0, 60.0], [63.0, 63.0]])
IMAGES = torch.tensor([0, 0, 2])


@pytest.fixture(scope="module")
def features(descriptor, images):
    return descriptor.encode_images(images)


def _changed(model: PointDescriptor, **fields) -> PointDescriptor:
    """The same weights under a configuration with other choices."""
    other = copy.copy(model)
    other.config = copy.deepcopy(model.config)
    for name, value in fields.items():
        setattr(other.config, name, value)
    return other


def test_the_gaussian_is_fixed_in_every_layer_and_holds_the_keypoints_cell(descriptor, features):
    model = _changed(descriptor, gaussian_sigma=1e-3)
    frame = model.frame_points(features, torch.from_numpy(POINTS), IMAGES)
    masks = model.keypoint_masks(features, frame, IMAGES)
    assert masks.fixed is not None
    assert masks.fixed_layers is None
    for mask, (height, width) in zip(masks.fixed, features.grids, strict=True):
        cells = (frame * torch.tensor([width, height]) / 128).floor().long().clamp(max=width - 1)
        assert mask.sum(1).tolist() == [1, 1, 1]
        assert mask[torch.arange(3), cells[:, 1] * width + cells[:, 0]].all()


def test_what_lies_outside_the_gaussian_does_not_reach_the_keypoint_features(descriptor, features):
    before = descriptor.encode_points(features, POINTS[:1], IMAGES[:1])
    memories = [memory.clone() for memory in features.levels]
    for memory in memories:
        memory[:, :, :, memory.shape[3] // 2 :] += 3.0
    altered = VisionFeatures(**{**features.__dict__, "memories": tuple(memories)})
    after = descriptor.encode_points(altered, POINTS[:1], IMAGES[:1])
    torch.testing.assert_close(after, before)
    predicted = _changed(descriptor, keypoint_mask="predicted")
    change = predicted.encode_points(altered, POINTS[:1], IMAGES[:1]) - predicted.encode_points(
        features, POINTS[:1], IMAGES[:1]
    )
    assert change.abs().max() > 1e-2


def test_sigma_may_count_original_pixels(descriptor, features):
    """Image 0 is 120 pixels long and its frame 128: the same Gaussian is 128 / 120 larger in the frame."""
    padded = _changed(descriptor, gaussian_sigma=16.0 * 128 / 120)
    original = _changed(descriptor, gaussian_sigma=16.0, gaussian_frame="original")
    points = POINTS[:2]
    assert torch.equal(
        padded.encode_points(features, points, IMAGES[:2]), original.encode_points(features, points, IMAGES[:2])
    )


def test_one_token_or_two_for_the_keypoint(descriptor, features):
    points = descriptor.encode_points(features, POINTS, IMAGES)
    for tokens, token in ((1, "<mark>"), (2, "<region>")):
        model = _changed(descriptor, keypoint_tokens=tokens, keypoint_token=token)
        inputs = model.language_inputs(features, IMAGES, points, model.turns(3))
        prompts = inputs.marks if token == "<mark>" else inputs.regions
        assert prompts is not None
        assert len(prompts) == 3 * tokens
        assert len(model.decode(model.generate(inputs, max_new_tokens=2))) == 3


def test_describe_orders_dedupes_and_batches_without_changing_a_word(descriptor, images):
    images = [images[1], images[0], Image.fromarray(images[1]), images[2], images[0]]
    points = [[5, 100], [3, 4], [60, 20], [63, 63], [100, 60]]
    expected = [
        descriptor.describe([image], [point], max_new_tokens=8)[0] for image, point in zip(images, points, strict=True)
    ]
    assert len(set(expected)) > 1
    for batch_size, image_batch_size in ((32, 8), (2, 1)):
        texts = descriptor.describe(
            images, points, max_new_tokens=8, batch_size=batch_size, image_batch_size=image_batch_size
        )
        assert texts == expected


def test_describe_takes_stored_features(descriptor, images, features):
    expected = descriptor.describe([images[index] for index in IMAGES], POINTS, max_new_tokens=6)
    assert descriptor.describe(None, POINTS, features=features, image_index=IMAGES, max_new_tokens=6) == expected
    stored = descriptor.encode_points(features, POINTS, IMAGES)
    texts = descriptor.describe(
        None, None, features=features.compact(), image_index=IMAGES, point_features=stored, max_new_tokens=6
    )
    assert texts == expected


def test_nothing_to_describe_is_no_error(descriptor):
    assert descriptor.describe([], []) == []


def test_sampling_follows_the_seed(descriptor, features):
    options = {"features": features, "image_index": IMAGES, "max_new_tokens": 8, "do_sample": True}
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(descriptor.describe(None, POINTS, **options))
    assert runs[0] == runs[1] != runs[2]


def test_loss_is_the_mean_over_the_descriptions_tokens_alone(descriptor, features):
    texts = list(TEXTS)
    output = descriptor(features=features, image_index=IMAGES, points=POINTS, descriptions=texts)
    turns = descriptor.turns(3, texts)
    answers = [turn.ids[turn.labels != -100] for turn in turns]
    assert output.logits.shape == (sum(map(len, answers)), descriptor.config.text_config.vocab_size)
    total = 0.0
    for index, (turn, answer) in enumerate(zip(turns, answers, strict=True)):
        points = descriptor.encode_points(features, POINTS[[index]], IMAGES[[index]])
        batch = descriptor.splice(descriptor.language_inputs(features, IMAGES[[index]], points, [turn]))
        logits = descriptor.language_model(inputs_embeds=batch.inputs_embeds).logits[0]
        labels = batch.labels[0]
        chosen = (labels != -100).nonzero()[:, 0]
        assert labels[chosen].tolist() == answer.tolist()
        total += torch.nn.functional.cross_entropy(logits[chosen - 1], labels[chosen], reduction="sum").item()
    assert output.loss.item() == pytest.approx(total / len(output.logits), rel=1e-4)
    scaled = descriptor(features=features, image_index=IMAGES, points=POINTS, descriptions=texts, num_items_in_batch=7)
    assert scaled.loss.item() == pytest.approx(total / 7, rel=1e-4)


def test_forward_takes_pixels_too(descriptor, images, features):
    pixel_values = torch.from_numpy(descriptor.image_processor(images))
    arguments = {"points": [[1, 2], [3, 4], [5, 6]], "descriptions": list(TEXTS)}
    from_pixels = descriptor(pixel_values=pixel_values, image_sizes=features.image_sizes, **arguments)
    assert from_pixels.loss.item() == pytest.approx(descriptor(features=features, **arguments).loss.item(), rel=1e-4)


VOCABULARY = {"language_model.model.embed_tokens.", "language_model.lm_head."}
EVERYTHING = {"vision.", "projector.", "language_model.model.layers.", "language_model.model.norm.",
              "language_model.model.embed_tokens.", "language_model.lm_head.", "lora"}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "trained"),
    [
        ({"train_lora": True}, {"projector.", "lora"}),
        ({"train_lora": True, "train_projector": False}, {"lora"}),
        ({"train_lora": True, "train_vocabulary": True}, {"projector.", "lora", *VOCABULARY}),
        ({"train_lora": True, "lora_on_head": True, "train_projector": False}, {"lora"}),
        ({"train_lora": False, "train_language_model": True}, EVERYTHING - {"vision.", "lora"}),
        ({"train_lora": False, "train_language_model": True, "train_vision": True}, EVERYTHING - {"lora"}),
        ({"train_lora": True, "lora_last_blocks": 2, "train_projector": False}, {"lora"}),
    ],
)  # fmt: skip
def test_gradients_reach_exactly_what_the_configuration_trains(tokenizer, images, fields, trained):
    torch.manual_seed(7)
    choices = {"train_language_model": False, "train_vocabulary": False, "train_vision": False, **fields}
    config = tiny_config(tokenizer)
    for name, value in choices.items():
        setattr(config, name, value)
    model = PointDescriptor(config)
    model.tokenizer = tokenizer
    names = model.prepare_training()
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:  # zero in a fresh adapter, which would hide the gradient of A
            torch.nn.init.normal_(parameter, std=0.02)
    pixel_values = torch.from_numpy(model.image_processor(images))
    model(
        pixel_values=pixel_values,
        image_sizes=torch.tensor([[p.shape[1], p.shape[0]] for p in images]),
        points=[[1, 2], [3, 4], [5, 6]],
        descriptions=list(TEXTS),
    ).loss.backward()
    reached = {
        name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    assert reached <= set(names)
    kinds = {"lora" if ".lora_" in name else next(k for k in EVERYTHING if name.startswith(k)) for name in names}
    assert kinds == trained
    if "lora_last_blocks" in fields:
        assert all(".layers.2." in name or ".layers.3." in name for name in names)
    # Masks are cut by thresholds, so the heads that only feed them, and unchosen object queries, get no gradient.
    silent = set(names) - reached
    assert all(name.startswith("vision.") for name in silent), silent


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, f, p: m.describe([p[0]], [[120, 5]]), r"found \[120.0, 5.0\] in one of \[120, 90\]"),
        (lambda m, f, p: m.describe([p[0]], [[-0.6, 5]]), "expected points inside"),
        (lambda m, f, p: m.describe([p[0]], [[1, 2], [3, 4]]), "one entry per sample"),
        (lambda m, f, p: m.describe(None, [[1, 2]]), "either images, or features"),
        (
            lambda m, f, p: m.describe([p[0]], [[1, 2]], features=f, image_index=IMAGES[:1]),
            "either images, or features",
        ),
        (lambda m, f, p: m(descriptions=["x"]), "expected features or pixel_values"),
        (lambda m, f, p: m(features=f, descriptions=["x"]), "expected points or point_features"),
        (lambda m, f, p: m(features=f, points=[[1, 1]] * 3), "expected descriptions or answered turns"),
    ],
)
def test_wrong_arguments_are_named(descriptor, features, images, call, message):
    with pytest.raises(ValueError, match=message):
        call(descriptor, features, images)


def test_points_on_the_last_half_pixel_are_inside(descriptor, images):
    assert len(descriptor.describe([images[0]] * 2, [[-0.4, -0.4], [119.4, 89.4]], max_new_tokens=1)) == 2


def test_a_model_without_tokenizer_says_so(tokenizer, images):
    model = PointDescriptor(tiny_config(tokenizer))
    with pytest.raises(ValueError, match="no tokenizer"):
        model.describe(images[:1], [[1, 2]])
