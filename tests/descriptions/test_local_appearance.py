from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_points.build_config import CropConfig
from talking_points.descriptions.gaussian_crop import gaussian_crop
from talking_points.descriptions.local_appearance import LocalAppearance, colour_name, measure

TAN, DARK = (200, 180, 150), (38, 28, 20)
SIDE = 336


def _page(colour: tuple[int, int, int] = TAN) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), colour, np.uint8)


def _half(direction: str) -> np.ndarray:
    page = _page()
    rows, columns = np.indices((SIDE, SIDE))
    dark = {"vertical": columns >= 168, "horizontal": rows >= 168, "diagonal": rows > columns}[direction]
    page[dark] = DARK
    return page


def _noise(cell: int, spread: float) -> np.ndarray:
    small = np.random.default_rng(3).normal(0, spread, (SIDE // cell, SIDE // cell)).astype(np.float32)
    details = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)[..., None]
    return np.clip(_page().astype(np.float32) + details, 0, 255).astype(np.uint8)


def _measure(page: np.ndarray, **config: object) -> LocalAppearance:
    return measure(page, CropConfig(**config))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0, 0, 0), "black"),
        ((255, 255, 255), "white"),
        ((128, 128, 128), "gray"),
        ((70, 70, 70), "dark gray"),
        ((200, 200, 200), "light gray"),
        ((220, 30, 30), "red"),
        ((30, 60, 190), "blue"),
        ((50, 140, 60), "green"),
        ((250, 220, 40), "yellow"),
        ((235, 130, 35), "orange"),
        ((110, 70, 40), "brown"),
        ((55, 38, 25), "dark brown"),
        ((245, 175, 190), "pink"),
        ((120, 60, 160), "purple"),
    ],
)
def test_basic_colours_have_their_names(rgb, name):
    lab = cv2.cvtColor(np.array([[rgb]], np.float32) / 255, cv2.COLOR_RGB2LAB)[0, 0]
    assert colour_name(lab) == name


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_every_plain_colour_is_a_smooth_plain_surface(rgb):
    found = _measure(_page(rgb))
    assert (found.shape, found.texture, found.colour) == ("plain", "smooth", found.surround)


@pytest.mark.parametrize(("radius", "small"), [(14, True), (34, False)])
def test_a_disc_is_a_round_spot_of_its_size(radius, small):
    found = _measure(cv2.circle(_page(), (168, 168), radius, DARK, -1))
    assert found.shape == "round spot"
    assert found.size == pytest.approx(radius / 4, rel=0.25)
    assert (found.colour, found.surround, found.lighter) == ("dark brown", "tan", False)
    assert found.difference > 40


def test_a_bright_spot_is_lighter_than_its_surroundings():
    found = _measure(cv2.circle(_page(DARK), (168, 168), 16, (240, 240, 240), -1))
    assert (found.shape, found.colour, found.lighter) == ("round spot", "white", True)


def test_an_ellipse_is_an_oval_spot():
    assert _measure(cv2.ellipse(_page(), (168, 168), (40, 20), 30, 0, 360, DARK, -1)).shape == "oval spot"


@pytest.mark.parametrize(
    ("start", "end", "direction"),
    [
        ((168, 0), (168, 336), "vertical"),
        ((0, 168), (336, 168), "horizontal"),
        ((0, 0), (336, 336), "diagonal"),
        ((0, 336), (336, 0), "diagonal"),
    ],
)
def test_a_stroke_is_a_line_with_its_direction(start, end, direction):
    found = _measure(cv2.line(_page(), start, end, DARK, 14))
    assert (found.shape, found.direction, found.colour) == ("line", direction, "dark brown")


@pytest.mark.parametrize("direction", ["vertical", "horizontal", "diagonal"])
def test_two_halves_meet_at_an_edge_with_both_colours(direction):
    found = _measure(_half(direction))
    assert (found.shape, found.direction, found.sides) == ("edge", direction, ("dark brown", "tan"))


def test_a_quadrant_has_two_directions():
    page = _page()
    page[168:, 168:] = DARK
    assert _measure(page).shape == "corner"


@pytest.mark.parametrize(
    ("page", "texture"),
    [(_noise(4, 22), "fine"), (_noise(14, 26), "coarse"), (_noise(14, 2), "smooth")],
)
def test_noise_is_a_texture_of_its_grain(page, texture):
    assert _measure(page).texture == texture


def test_stripes_have_a_direction():
    waves = 0.75 + 0.25 * np.sin(np.arange(SIDE) / 5)
    page = (_page() * waves[None, :, None]).astype(np.uint8)
    found = _measure(page)
    assert (found.texture, found.direction) == ("striped", "vertical")
    turned = _measure(np.ascontiguousarray(page.transpose(1, 0, 2)))
    assert (turned.texture, turned.direction) == ("striped", "horizontal")


@pytest.mark.parametrize("surround", ["black", "grey", "blur"])
def test_the_surround_of_the_crop_does_not_change_what_is_seen(surround):
    config = CropConfig(surround=surround)
    page = _page()
    cv2.circle(page, (168, 168), 14, DARK, -1)
    crop = gaussian_crop(page, (168, 168), (0, 0, 336, 336), config)
    found = measure(crop, config)
    assert (found.shape, found.colour, found.surround) == ("round spot", "dark brown", "tan")


def test_mirroring_keeps_everything():
    page = _half("diagonal")
    assert _measure(np.ascontiguousarray(page[:, ::-1])).sides == _measure(page).sides
