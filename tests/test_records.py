from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from talking_points.records import CANDIDATE_SCHEMA, Candidate, MaskCrop, Region, derive_seed, stable_id

CANDIDATE = Candidate(
    id="a",
    source="partimagenet",
    image_id="train/x",
    image_path="images/x.jpg",
    image_sha256="0" * 64,
    image_phash=2**63 + 1,
    image_width=40,
    image_height=30,
    object="dog",
    part="head",
    object_bbox=(1.0, 2.0, 30.0, 20.0),
    part_bbox=(2.0, 3.0, 10.0, 10.0),
    instance_index=0,
    instance_count=1,
    instance_exact=True,
    keypoint=(4.5, 6.25),
    sift_response=0.5,
    sift_size=2.0,
    sift_angle=90.0,
    object_location="spans most of the image",
    part_location="toward the upper left of the dog",
    point_location="in the center",
    flags=("low_contrast_keypoint",),
)


def test_candidates_survive_their_table() -> None:
    table = pa.Table.from_pylist([CANDIDATE.__dict__], schema=CANDIDATE_SCHEMA)
    assert Candidate.from_row(table.to_pylist()[0]) == CANDIDATE
    assert list(Candidate.__dataclass_fields__) == CANDIDATE_SCHEMA.names


def test_masks_are_made_once_and_only_when_asked_for() -> None:
    made = []

    def mask() -> np.ndarray:
        made.append(1)
        return np.ones((2, 2), bool)

    region = Region("dog", "dog", 11, (0, 0, 2, 2), load_mask=mask)
    assert made == []
    assert region.mask is region.mask
    assert made == [1]
    bare = Region("dog", "dog", 11, (0, 0, 2, 2))
    assert bare.mask is None
    assert bare.crop is None


def test_a_region_has_its_mask_and_its_crop_whichever_the_source_loads() -> None:
    whole = np.zeros((4, 5), bool)
    whole[1:3, 2:4] = [[True, False], [True, True]]
    crop = MaskCrop((4, 5), slice(1, 3), slice(2, 4), whole[1:3, 2:4])
    cropped, full = (Region("dog", "dog", 11, (2, 1, 2, 2), load_mask=load) for load in (lambda: crop, lambda: whole))
    assert cropped.crop is crop
    for region in (cropped, full):
        assert region.crop is not None
        assert region.mask is not None
        assert np.array_equal(region.mask, whole)
        assert np.array_equal(whole[region.crop.rows, region.crop.columns], region.crop.mask)
        assert region.crop.shape == whole.shape


@given(st.lists(st.text(), min_size=2, max_size=4), st.integers(0, 2**31))
def test_hashes_tell_fields_apart(fields: list[str], seed: int) -> None:
    assert stable_id(*fields) == stable_id(*fields)
    assert stable_id(*fields) != stable_id(*fields, "")
    assert 0 <= derive_seed(seed, *fields) < 2**32
    assert derive_seed(seed, *fields) != derive_seed(seed + 1, *fields)
