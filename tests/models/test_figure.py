"""Figures of points and regions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from talking_points.grounding.grammar import read_strict
from talking_points.models.figure import KEYPOINT_COLOUR, LOCALIZED_COLOUR, draw_point_figure
from talking_points.models.pose_figure import draw_pose_figure, number_ranges
from talking_points.models.region_figure import draw_region_figure


def _where(figure, colour) -> np.ndarray:
    """Centre (x, y) of all pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(figure) == colour).all(-1))
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("width", [200, 640])
def test_marks_sit_on_their_points_and_text_below(width):
    image = np.full((50, 100, 3), 200, np.uint8)
    figure = draw_point_figure(image, "A long description " * 10, keypoint=(20, 10), localized=(79, 39), width=width)
    scale = width / 100
    assert figure.width == width
    assert _where(figure, KEYPOINT_COLOUR) == pytest.approx(np.array([20.5, 10.5]) * scale, abs=width / 60)
    assert _where(figure, LOCALIZED_COLOUR) == pytest.approx(np.array([79.5, 39.5]) * scale, abs=width / 60)
    below = np.asarray(figure)[round(50 * scale) :]
    assert (below < 100).any()
    assert (below[:, -2:] == 255).all()


def test_more_text_makes_a_taller_figure():
    image = np.zeros((10, 10, 3), np.uint8)
    heights = [draw_point_figure(image, "word " * count, width=300).height for count in (1, 60, 200)]
    assert heights[0] < heights[1] < heights[2]


def test_points_are_optional():
    figure = np.asarray(draw_point_figure(np.full((10, 10, 3), 128, np.uint8), "", width=100))
    assert (figure[:100, :, 0] == 128).all()


def test_points_that_hide_each_other_bear_both_their_numbers() -> None:
    image, names = Image.new("RGB", (200, 100), (90, 90, 90)), ["left eye", "right eye", "nose"]
    seen = [
        np.asarray(draw_pose_figure(image, names, [(20, 50), place, (199, 99)], width=200))[:100]
        for place in ((20, 50), (120, 50))
    ]
    # Two numbers take more room beside a point than one, and those of a point on the border stay inside.
    written = [(np.abs(one[:, :, 0].astype(int) - 90) > 40) for one in seen]
    assert written[0][40:60, 28:80].any(0).sum() > written[1][40:60, 28:80].any(0).sum() > 0
    assert written[0][80:, 170:190].any()
    assert number_ranges([1, 2, 4, 5, 6, 9]) == "1, 2, 4-6, 9"


@pytest.mark.parametrize("size", [(1, 10000), (10000, 1), (1, 1)])
def test_figures_of_narrow_images_stay_small(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    square = read_strict("[[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]").outlines
    assert square is not None
    for figure in (
        draw_point_figure(image, "a dog", keypoint=(0, 0), width=200),
        draw_region_figure(image, square, "a dog", box=(0, 0, *size), point=(0, 0), width=200),
        draw_pose_figure(image, ["nose"], [(0, 0)], width=200),
    ):
        assert figure.width == 200
        assert figure.height < 1000
