"""Crops there and back, and boxes that show nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.models.capellm.crops import BoxError, Crop, clip_box, normalise

SIDES = st.floats(1, 2000)
PLACES = st.floats(-500, 3000)


@given(PLACES, PLACES, SIDES, SIDES, st.floats(1, 1.5), st.floats(0.7, 1.3), st.floats(-180, 180), st.integers(14, 448))
def test_points_come_back(
    x: float, y: float, width: float, height: float, padding: float, scale: float, rotation: float, size: int
) -> None:
    crop = Crop.of_box((x, y, width, height), size, padding, scale, rotation)
    corners = np.array([(x, y), (x + width, y), (x, y + height), (x + width, y + height), (0, 0)])
    np.testing.assert_allclose(crop.inverse(crop.forward(corners)), corners, atol=1e-3)
    np.testing.assert_allclose(crop.forward(corners), corners @ crop.matrix[:, :2].T + crop.matrix[:, 2], atol=1e-3)
    np.testing.assert_allclose(crop.forward([crop.centre]), [[size / 2, size / 2]], atol=1e-9)


def test_padding_keeps_points_on_the_border_and_none_loses_them() -> None:
    box = (10.0, 20.0, 100.0, 60.0)
    border = [[10.0, 50.0], [110.0, 50.0], [60.0, 20.0], [60.0, 80.0]]
    assert Crop.of_box(box, 224, padding=1.1).contains(border).all()
    assert not Crop.of_box(box, 224, padding=1.0).contains(border).all()


def test_rotation_turns_as_the_official_augmentation_does() -> None:
    crop = Crop((622.0, 367.0), 428.0, 56, 30.0)
    np.testing.assert_allclose(
        crop.matrix, [[0.113311718, 0.065420548, -66.489232], [-0.065420548, 0.113311718, 27.106178]], rtol=1e-5
    )


def test_pixels_are_black_outside_and_in_their_places() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[5, 10] = 200
    crop = Crop.of_box((0, 0, 20, 20), 40, padding=1.0)
    warped = crop.warp(image)
    assert warped.shape == (40, 40, 3)
    place = np.unravel_index(warped[..., 0].argmax(), (40, 40))
    np.testing.assert_allclose(place[::-1], crop.forward([[10, 5]])[0], atol=0.5)
    outside = Crop.of_box((25, 15, 20, 20), 20, padding=1.0).warp(np.full_like(image, 90))
    assert outside[0, 0, 0] == 90
    assert outside[-1, -1, 0] == 0


def test_normalising() -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    pixels = normalise([white], (0.5, 0.25, 0.0), (0.5, 0.5, 2.0))
    assert (pixels.shape, pixels.dtype) == ((1, 3, 4, 4), np.float32)
    np.testing.assert_allclose(pixels[0, :, 0, 0], [1.0, 1.5, 0.5])


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        (None, (0, 0, 30, 20)),
        ((-5, -5, 10, 10), (0, 0, 5, 5)),
        ((25, 15, 10, 10), (25, 15, 5, 5)),
        ([1, 2, 3, 4], (1, 2, 3, 4)),
    ],
)
def test_boxes_are_cut_to_the_image(box: tuple[float, ...] | None, clipped: tuple[float, ...]) -> None:
    assert clip_box(box, 30, 20) == clipped


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 5), (0, 0, 5, -1), (30, 0, 5, 5), (-9, 0, 5, 5), (0, 0, math.inf, 5), (math.nan, 0, 1, 1), (1, 2)]
)
def test_boxes_that_show_nothing_are_refused_with_the_image_size(box: tuple[float, ...]) -> None:
    with pytest.raises(BoxError, match=r"30 x 20|four numbers"):
        clip_box(box, 30, 20)
