"""Grouping, augmentation and the tokens of conversations about keypoints."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.examples.conversations import (
    Conversation,
    ConversationSettings,
    batch,
    converse,
    draw_crop,
    encode_conversation,
    groups_of,
)
from talking_points.examples.keypoints import PoseExample, load_poses, mirror_example
from talking_points.models.capellm.conversation import IGNORED_LABEL, Template
from talking_points.models.capellm.coordinates import parse_point
from talking_points.models.capellm.crops import Crop
from talking_points.sources import open_source
from talking_points.sources.keypoint_sets import KeypointSet, keypoint_sets, set_of
from tests.models.capellm.tokenizers import tokenizer_of
from tests.shared_data import shared_path

BODY = keypoint_sets()["quadruped_body"]


def conversations_of(
    example: PoseExample,
    settings: ConversationSettings,
    texts: Mapping[tuple[str, str], str],
    epoch: int,
    dropped: Counter[str],
    share_crop: bool = False,
) -> list[Conversation]:
    """All conversations about an object in an epoch; those without a keypoint to ask for are counted as dropped.

    ``share_crop``: one crop for all of them, which can then be read once.
    """
    found = []
    for number, chosen in enumerate(groups_of(example, settings, epoch)):
        crop, flip = draw_crop(example, settings, epoch, -1 if share_crop else number)
        one = converse(example, chosen, crop, flip, texts, settings.decimals)
        if one is None:
            dropped["nothing_to_ask"] += 1
        else:
            found.append(one)
    return found


def example(count: int = 17, seed: int = 0) -> PoseExample:
    generator = np.random.default_rng(seed)
    keypoints = BODY if count == 17 else KeypointSet.from_names("own", [f"spot {chr(65 + n)}x" for n in range(count)])
    points = generator.uniform((20, 30), (120, 90), (count, 2))
    visible = generator.random(count) < 0.9
    visible[0] = True
    low, high = points.min(0), points.max(0)
    box = (*low.tolist(), *(high - low).tolist())
    return PoseExample(f"id{seed}", "image", 2, "horse", keypoints, (160, 120), box, points, visible)


@given(st.integers(1, 26), st.integers(1, 8), st.integers(0, 1000))
def test_every_keypoint_occurs_and_epochs_differ_but_repeat(count: int, k: int, seed: int) -> None:
    one, settings = example(count, seed), ConversationSettings(k=k, seed=seed)
    groups = groups_of(one, settings, epoch=3)
    assert {index for chosen in groups for index in chosen} == set(range(count))
    assert groups == groups_of(one, settings, epoch=3)
    if count > 6:
        assert groups != groups_of(one, settings, epoch=4)


def test_order_and_sharding_change_nothing() -> None:
    """Ten objects in any order and in any cut give the same conversations, whatever was drawn before."""
    settings = ConversationSettings(flip=True)
    people = [example(seed=seed) for seed in range(10)]

    def drawn(some: list[PoseExample]) -> dict[str, str]:
        return {one.id: repr(conversations_of(one, settings, {}, 1, Counter())) for one in some}

    whole = drawn(people)
    shuffled = random.Random(0).sample(people, 10)
    assert drawn(shuffled) == whole
    assert drawn(people[:4]) | drawn(people[4:]) == whole
    drawings = [(one, draw_crop(one, settings, 1, number)) for one in people for number in range(5)]
    crops = [drawing for _, drawing in drawings]
    scales = {round(crop.side / max(one.box[2:]) / 1.25, 6) for one, (crop, _) in drawings}
    assert len(scales) > 20
    assert (min(scales), max(scales)) == (0.7, 1.3)
    turned = [crop.rotation for crop, _ in crops]
    assert 0.2 < np.mean([turn != 0 for turn in turned]) < 0.8
    assert max(map(abs, turned)) <= 40
    assert 0.2 < np.mean([flip for _, flip in crops]) < 0.8


def test_answers_are_the_places_in_the_crop_and_invisible_ones_are_not_asked() -> None:
    one = example()
    texts = {(BODY.key, "nose"): "It is the tip of the muzzle."}
    crop = Crop.of_box(one.box, 224, 1.25, rotation=20)
    found = converse(one, range(17), crop, False, texts)
    assert found is not None
    assert found.keypoints == tuple(np.flatnonzero(one.visible & crop.contains(one.points)))
    for index, item in zip(found.keypoints, found.rounds, strict=True):
        assert item.query.name == BODY.names[index]
        assert item.query.description == texts.get((BODY.key, item.query.name))
        assert item.answer is not None
        point = parse_point(item.answer)
        assert point is not None
        back = crop.inverse(np.array([point]) * crop.size)[0]
        np.testing.assert_allclose(back, one.points[index], atol=crop.side * 0.0006 * 1.5)


def test_points_outside_the_crop_are_left_out_and_empty_conversations_counted() -> None:
    one = example()
    small = replace(one, box=(*one.points[0] - 1, 2.0, 2.0))
    settings = ConversationSettings(k=4, scale=0.0, rotation_share=0.0, padding=1.0)
    dropped: Counter[str] = Counter()
    found = conversations_of(small, settings, {}, 0, dropped)
    assert [item.keypoints for item in found] == [(0,)] * len(found)
    assert 1 <= len(found) <= 2
    assert dropped == {"nothing_to_ask": 5 - len(found)}
    nothing = replace(one, visible=np.zeros(17, bool))
    assert conversations_of(nothing, settings, {}, 0, dropped) == []


def test_all_groups_can_share_a_crop() -> None:
    found = conversations_of(example(), ConversationSettings(), {}, 0, Counter(), share_crop=True)
    assert len({item.crop for item in found}) == 1
    apart = conversations_of(example(), ConversationSettings(), {}, 0, Counter())
    assert len({item.crop for item in apart}) == len(apart)


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="k = 0"):
        ConversationSettings(k=0)


def frontal(generator: np.random.Generator) -> PoseExample:
    """A body seen from the front: the own left side lies to the right in the image."""
    one = example(seed=int(generator.integers(1000)))
    points = one.points.copy()
    for left, right in BODY.flip_pairs:
        points[left, 0], points[right, 0] = sorted((points[left, 0], points[right, 0]), reverse=True)
    return replace(one, points=points, visible=np.ones(17, bool))


def test_mirroring_exchanges_places_and_names() -> None:
    """Whoever finds sides by looking is right on mirrored images too, and twice mirrored is the same."""
    for seed in range(5):
        one = frontal(np.random.default_rng(seed))
        other = mirror_example(one)
        for left, right in BODY.flip_pairs:
            assert one.points[left, 0] > one.points[right, 0]
            assert other.points[left, 0] > other.points[right, 0]
        twice = mirror_example(other)
        np.testing.assert_allclose(twice.points, one.points)
        np.testing.assert_allclose(twice.box, one.box)


def test_an_oracle_that_looks_at_pixels_finds_every_keypoint_of_a_mirrored_image() -> None:
    """Each keypoint is painted in the colour of its name; mirrored, left and right exchange their colours."""
    one = frontal(np.random.default_rng(1))
    generator = np.random.default_rng(2)
    points = np.column_stack([np.tile(np.arange(15, 155, 24), 3)[:17], np.repeat([20, 60, 100], 6)[:17]])
    points = points[generator.permutation(17)].astype(float)
    one = replace(one, points=points, box=(5.0, 5.0, 150.0, 110.0))
    image = np.zeros((120, 160, 3), np.uint8)
    for index, (x, y) in enumerate(points.astype(int)):
        image[y - 4 : y + 5, x - 4 : x + 5] = 10 + 14 * index
    order = BODY.mirror()
    for flip in (False, True):
        crop, _ = Crop.of_box((mirror_example(one) if flip else one).box, 224), flip
        found = converse(one, range(17), crop, flip, {})
        assert found is not None
        assert len(found.keypoints) == 17
        pixels = found.pixels(image)
        for index, (x, y) in zip(found.keypoints, found.places * 224, strict=True):
            painted = order[index] if flip else index
            assert abs(int(pixels[round(y), round(x), 0]) - (10 + 14 * painted)) <= 1


TEMPLATE = Template("Where is the {keypoint}?", "</s>")


def test_tokens_and_batches() -> None:
    tokenizer, head = tokenizer_of("llama3"), (0, 9999, 9999)
    conversations = conversations_of(example(), ConversationSettings(), {}, 0, Counter(), share_crop=True)
    tokens = [encode_conversation(one, TEMPLATE, tokenizer, image_tokens=2, max_length=2048) for one in conversations]
    apart = batch(tokens, head, padding=1)
    assert (apart.ids[:, :3] == head).all()
    for row, one in enumerate(tokens):
        end = 3 + len(one.ids)
        assert tuple(apart.ids[row, 3:end]) == one.ids
        assert tuple(apart.labels[row, 3:end]) == one.labels
        assert (apart.labels[row, end:] == IGNORED_LABEL).all()
        assert (apart.visible[row] == (np.arange(apart.ids.shape[1]) < end)).all()


def test_a_conversation_that_is_too_long_is_refused_with_both_numbers() -> None:
    (one, *_) = conversations_of(example(), ConversationSettings(), {}, 0, Counter())
    with pytest.raises(ValueError, match=r"at most 40 tokens, found \d+ .*never cut off"):
        encode_conversation(one, TEMPLATE, tokenizer_of("llama3"), image_tokens=16, max_length=40)


def test_real_annotations_become_poses() -> None:
    poses = load_poses(open_source("mp100", shared_path("samples", "mp100", "mp100")), lambda item: set_of(item.id))
    assert {one.category_name: len(one.keypoints) for one in poses.examples} == {
        "person": 17, "antelope body": 17, "fly": 32, "locust": 35,
    }  # fmt: skip
    assert len({one.id for one in poses.examples}) == len(poses)
    ((key, image),) = poses.decode([poses.examples[0].image])
    assert (key, image.size) == (poses.examples[0].image, poses.examples[0].size)
    for one in poses.examples:
        tight = Crop.of_box(one.box, 224, padding=1.1)
        assert tight.contains(one.points[one.visible]).all()
    assert poses.skipped == {}


def test_objects_of_another_set_are_counted() -> None:
    source = open_source("mp100", shared_path("samples", "mp100", "mp100"))
    poses = load_poses(source, lambda item: BODY)
    assert (len(poses), poses.skipped) == (1, {"keypoint_count": 3})
    assert poses.categories == {58: "antelope body"}
