from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.build_config import CropConfig
from talking_points.descriptions.gaussian_crop import contact_sheet, crop_side, gaussian_crop, gaussian_weight

GRADIENT = np.broadcast_to(np.linspace(0, 255, 400).astype(np.uint8)[None, :, None], (300, 400, 3)).copy()


@pytest.mark.parametrize(
    ("box", "side"),
    [((0, 0, 10, 20), 96), ((0, 0, 150, 100), 150), ((0, 0, 80, 200), 200), ((0, 0, 900, 20), 336)],
)
def test_side_follows_the_longer_side_of_the_part_within_the_limits(box, side):
    assert crop_side(box, CropConfig()) == side


def test_side_scales_with_the_configured_factor():
    assert crop_side((0, 0, 100, 60), CropConfig(part_scale=1.5)) == 150


def test_weight_is_one_at_the_centre_and_symmetric():
    weight = gaussian_weight(101, 0.3)
    assert weight[50, 50] == 1.0
    np.testing.assert_allclose(weight, weight[::-1])
    np.testing.assert_allclose(weight, weight.T)
    assert weight[50, 50 + 30] == pytest.approx(np.exp(-0.5 * (30 / 101 / 0.3) ** 2), rel=1e-5)


@given(st.floats(0, 399), st.floats(0, 299), st.sampled_from(["black", "grey", "blur"]))
def test_the_keypoints_pixel_lands_in_the_middle(x, y, surround):
    config = CropConfig(min_side=97, max_side=97, size=97, surround=surround)
    crop = gaussian_crop(GRADIENT, (x, y), (0, 0, 10, 10), config)
    assert crop.shape == (97, 97, 3)
    assert crop.dtype == np.uint8
    assert abs(int(crop[48, 48, 0]) - int(GRADIENT[round(y), round(x), 0])) <= 1


@pytest.mark.parametrize(("surround", "value"), [("black", 0), ("grey", 128)])
def test_the_corners_fade_into_the_surround(surround, value):
    white = np.full((300, 400, 3), 255, np.uint8)
    crop = gaussian_crop(white, (200, 150), (0, 0, 100, 100), CropConfig(surround=surround, sigma=0.15))
    assert abs(int(crop[0, 0, 0]) - value) <= 2
    assert crop[168, 168, 0] >= 254


def test_blur_keeps_the_colours_and_loses_the_details():
    checkerboard = ((np.indices((300, 400)).sum(axis=0) // 4 % 2) * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    crop = gaussian_crop(checkerboard, (200, 150), (0, 0, 200, 200), CropConfig(sigma=0.12)).astype(float)
    assert crop[:40, :40].std() < 25 < crop[148:188, 148:188].std()
    assert abs(crop[:40, :40].mean() - 127) < 15


@pytest.mark.parametrize("keypoint", [(0, 0), (399, 0), (0, 299), (399, 299)])
def test_a_plain_image_stays_plain_beyond_its_border(keypoint):
    plain = np.full((300, 400, 3), (90, 140, 60), np.uint8)
    crop = gaussian_crop(plain, keypoint, (0, 0, 200, 200), CropConfig())
    assert np.abs(crop.astype(int) - (90, 140, 60)).max() <= 1


@pytest.mark.parametrize("keypoint", [(-1, 5), (400, 5), (5, 300), (5, -3)])
def test_a_keypoint_outside_the_image_is_refused(keypoint):
    with pytest.raises(ValueError, match="outside the 400x300 image"):
        gaussian_crop(GRADIENT, keypoint, (0, 0, 10, 10), CropConfig())


def test_the_image_is_left_as_it_was():
    before = GRADIENT.copy()
    gaussian_crop(GRADIENT, (5, 5), (0, 0, 300, 300), CropConfig())
    np.testing.assert_array_equal(GRADIENT, before)


def test_large_crops_are_resized():
    config = CropConfig(max_side=280, size=64)
    assert gaussian_crop(GRADIENT, (200, 150), (0, 0, 280, 100), config).shape == (64, 64, 3)


def test_contact_sheet_places_every_crop_and_marks_its_centre():
    crops = [np.full((50, 50, 3), value, np.uint8) for value in (10, 90, 170)]
    sheet = contact_sheet(crops, ["one", "two", "three"], columns=2, tile=100)
    assert sheet.shape == (2 * 118, 200, 3)
    assert [int(sheet[y, x, 1]) for y, x in ((20, 20), (20, 120), (138, 20))] == [10, 90, 170]
    assert (sheet[138:, 105:] == 255).all()
    assert (sheet[40:60, 40:60, 0] > 200).any()


def test_an_empty_contact_sheet_is_refused():
    with pytest.raises(ValueError, match="at least one crop"):
        contact_sheet([])
