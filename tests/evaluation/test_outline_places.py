from __future__ import annotations

import numpy as np
import pytest

from talking_points.evaluation.outline_places import find_places, score_places
from talking_points.grounding.outlines import Outlines


def test_points_of_outlines_are_in_the_frame_of_points() -> None:
    box = Outlines(((((0.1, 0.2), (0.3, 0.2), (0.3, 0.4), (0.1, 0.4)),),))
    # A U whose centroid is outside it.
    bent = Outlines(
        ((((0.0, 0.0), (0.2, 0.0), (0.2, 0.8), (0.8, 0.8), (0.8, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),),)
    )
    places = find_places([box, bent, Outlines()], [(100, 50), (100, 100), (10, 10)])
    np.testing.assert_allclose(places["centroid"][0], (19.5, 14.5))  # pixels 10 to 29, and 10 to 19
    assert 10 <= places["innermost"][0][0] <= 29
    assert places["centroid"][1][0] == pytest.approx(49.5)
    x, y = places["innermost"][1]
    assert x < 20 or x >= 80 or y >= 80
    assert np.isnan(places["centroid"][2]).all()
    assert np.isnan(places["innermost"][2]).all()


def test_an_answer_without_an_outline_is_never_right() -> None:
    places = {"centroid": np.array([[10.0, 10.0], [np.nan, np.nan]])}
    scores = score_places(places, np.array([[10.0, 11.0], [5.0, 5.0]]), [(100, 100), (100, 100)])
    assert scores["centroid"] == {"mPCK": 50.0, "PCK@0.05": 50.0, "PCK@0.1": 50.0, "PCK@0.2": 50.0}
