"""The figure of a point and its description."""

from __future__ import annotations

import numpy as np
import pytest

from talking_points.models.figure import KEYPOINT_COLOUR, LOCALIZED_COLOUR, draw_point_figure


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
