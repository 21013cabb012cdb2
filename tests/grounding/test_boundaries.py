"""The agreement of boundaries against what it is by hand."""

from __future__ import annotations

import numpy as np
import pytest

from talking_points.grounding.boundaries import boundary_f
from talking_points.grounding.rasters import encode_mask
from talking_points.records import Mask


def square(x: int, y: int, side: int, shape: tuple[int, int] = (100, 100)) -> Mask:
    mask = np.zeros(shape, np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def test_boundaries_agree_within_the_tolerance() -> None:
    truth = encode_mask(square(20, 20, 40))
    assert boundary_f(truth, truth) == 1
    assert boundary_f(truth, encode_mask(square(21, 20, 40))) == 1  # one pixel in a diagonal of 141
    assert 0 < boundary_f(truth, encode_mask(square(25, 20, 40))) < 0.8
    assert boundary_f(truth, encode_mask(square(80, 80, 10))) == 0
    ring = square(20, 20, 40) & ~square(30, 30, 20)
    assert 0.6 < boundary_f(truth, encode_mask(ring)) < 0.9  # all of the true boundary, and as much beside it


def test_boundaries_of_nothing() -> None:
    empty, truth = encode_mask(square(0, 0, 0)), encode_mask(square(20, 20, 40))
    assert boundary_f(empty, empty) == boundary_f(empty, None) == 1
    assert boundary_f(truth, empty) == boundary_f(empty, truth) == boundary_f(truth, None) == 0
    with pytest.raises(ValueError, match="one size"):
        boundary_f(truth, encode_mask(square(0, 0, 5, (50, 50))))
