from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from talking_points.build_config import KeypointConfig
from talking_points.candidates.build import build_candidates, perceptual_hash
from talking_points.candidates.spatial import object_location, part_location, point_location
from talking_points.records import CANDIDATE_SCHEMA, AnnotatedObject, Candidate, ImageRecord
from talking_points.sources import open_source
from tests.candidates.scenes import blob, canvas, dog, part, record, rectangle, texture
from tests.shared_data import shared_path

PER_PART = KeypointConfig(per="part")


def dog_at(x: int, *, exact: bool = True, y: int = 40) -> AnnotatedObject:
    head = part("head", rectangle(x, y, 30, 30))
    return dog(head, box=(float(x), float(y), 30.0, 80.0), exact=exact)


def build(scene: ImageRecord, config: KeypointConfig = PER_PART) -> list[Candidate]:
    return build_candidates(scene, "0" * 64, config)[0]


def test_a_candidate_says_what_and_where():
    pixels = canvas()
    blob(pixels, 60, 80)
    head = part("head", rectangle(40, 50, 40, 40))
    (candidate,) = build(record(pixels, dog(head, box=(20.0, 40.0, 100.0, 80.0))))
    assert candidate.keypoint == pytest.approx((60, 80), abs=0.5)
    assert (candidate.object, candidate.part) == ("dog", "head")
    assert (candidate.instance_index, candidate.instance_count, candidate.instance_exact) == (0, 1, True)
    assert candidate.image_path == "images/image-1.jpg"
    assert candidate.object_location == "is toward the left of the image and vertically centered"
    assert candidate.part_location == "slightly left of and above the center of the dog"
    assert candidate.point_location == "toward the bottom and horizontally centered"
    assert candidate.flags == ()


def test_rows_keep_everything_and_phrases_follow_from_the_stored_row():
    head = part("head", rectangle(60, 50, 40, 40), box=(60.1, 50.2, 40.3, 39.9))
    (candidate,) = build(record(texture(), dog(head, box=(30.7, 20.1, 150.3, 100.9))))
    (row,) = pa.Table.from_pylist([asdict(candidate)], schema=CANDIDATE_SCHEMA).to_pylist()
    assert Candidate.from_row(row) == candidate
    box, part_box = tuple(row["object_bbox"]), tuple(row["part_bbox"])
    assert row["object_location"] == object_location(box, row["image_width"], row["image_height"])
    assert row["part_location"] == part_location(part_box, box, row["object"])
    assert row["point_location"] == point_location(tuple(row["keypoint"]), part_box)


def test_instances_rank_from_the_left():
    candidates = build(record(texture(), dog_at(180), dog_at(20), dog_at(100)))
    assert [(c.instance_index, c.instance_count, c.instance_exact) for c in candidates] == [
        (2, 3, True),
        (0, 3, True),
        (1, 3, True),
    ]


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param([dog_at(20, exact=False), dog_at(120)], id="one of them is a guess of the source"),
        pytest.param([dog_at(100, y=0), dog_at(102, y=100)], id="one above the other"),
    ],
)
def test_no_ordinal_where_the_order_is_not_known_or_not_seen(objects: list[AnnotatedObject]):
    candidates = build(record(texture(), *objects))
    assert [candidate.instance_exact for candidate in candidates] == [False, False]


def test_ids_are_distinct_and_stable():
    feet = part("foot", rectangle(20, 90, 30, 30)), part("foot", rectangle(90, 90, 30, 30))
    scene = record(texture(), dog(*feet), dog_at(150))
    first, second = build(scene), build(scene)
    assert first == second
    assert len({candidate.id for candidate in first}) == len(first) == 3
    other = record(texture(), dog(*feet), dog_at(150), image_id="image-2")
    assert not {candidate.id for candidate in first} & {candidate.id for candidate in build(other)}


def test_flags():
    pixels = canvas()
    blob(pixels, 60, 80, contrast=4)
    (candidate,) = build(record(pixels, dog(part("head", rectangle(40, 60, 40, 40), mask_exact=False))))
    assert candidate.flags == ("low_contrast_keypoint", "approximate_mask")


def test_an_image_without_a_point_says_why():
    candidates, reasons = build_candidates(record(canvas(), dog_at(20)), "0" * 64, KeypointConfig())
    assert candidates == []
    assert reasons == {"image_without_keypoint": 1}


def test_the_perceptual_hash_survives_rescaling_and_not_another_image():
    pixels = texture(1)
    brighter = np.clip(pixels.astype(np.int16) + 10, 0, 255).astype(np.uint8)
    assert 0 < perceptual_hash(pixels) < 2**64
    assert (perceptual_hash(pixels) ^ perceptual_hash(brighter)).bit_count() <= 4
    assert (perceptual_hash(pixels) ^ perceptual_hash(texture(2))).bit_count() > 12


@pytest.mark.parametrize(
    ("source", "root"),
    [
        ("pascal_part116", "pascal_part116/PascalPart116"),
        ("ade20k_part234", "ade20k_part234/ADE20KPart234"),
        ("partimagenet", "partimagenet/PartImageNet_OOD"),
    ],
)
def test_photographs(source: str, root: str):
    """Every point lies in its part's mask, and no phrase leaves an axis open."""
    for scene in open_source(source, shared_path("samples", root)):
        candidates, _ = build_candidates(scene, "0" * 64, PER_PART)
        best, _ = build_candidates(scene, "0" * 64, KeypointConfig())
        assert len(best) == 1
        assert {candidate.id for candidate in best} <= {candidate.id for candidate in candidates}
        for candidate in candidates:
            column, row = round(candidate.keypoint[0]), round(candidate.keypoint[1])
            masks = [
                piece.mask[row, column]
                for owner in scene.objects
                for piece in owner.parts
                if piece.mask is not None and (owner.name, piece.name) == (candidate.object, candidate.part)
            ]
            assert any(masks)


def test_places_are_worded_as_finely_as_configured():
    head = part("head", rectangle(40, 50, 40, 40))
    scene = record(texture(), dog(head, box=(20.0, 40.0, 100.0, 80.0)))
    fine, coarse = (build(scene, KeypointConfig(per="part", places=places))[0] for places in ("fine", "coarse"))
    assert fine.part_location == "slightly left of and above the center of the dog"
    assert coarse.part_location == "in the center of the dog"
    assert (fine.id, fine.keypoint) == (coarse.id, coarse.keypoint)
