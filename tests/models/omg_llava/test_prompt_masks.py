"""Where prompts may look: boxes, regions, Gaussian discs, and the centre of a region."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from talking_points.models.omg_llava.prompt_masks import box_cells, gaussian_cells, region_cells

FRAME, GRID = (64, 96), (4, 6)  # cells of 16 pixels


def _cells(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Allowed cells as (column, row)."""
    return [(int(x), int(y)) for y, x in mask.view(GRID).nonzero()]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 10, 10), [(0, 0)]),
        ((20, 20, 40, 31), [(1, 1), (2, 1)]),
        ((90, 60, 200, 200), [(5, 3)]),
        ((16, 0, 31, 15), [(1, 0)]),
    ],
)
def test_a_box_allows_the_cells_it_touches(box, expected):
    assert _cells(box_cells(torch.tensor([box], dtype=torch.float32), FRAME, GRID)[0]) == expected


def test_a_region_is_judged_at_each_cells_first_pixel():
    mask = torch.zeros(1, *FRAME)
    mask[0, 17:30, 33:40] = 1  # covers much of cell (2, 1), but not its first pixel (32, 16)
    assert _cells(region_cells(mask, GRID)[0]) == []
    mask[0, 16, 32] = 1
    assert _cells(region_cells(mask, GRID)[0]) == [(2, 1)]


@pytest.mark.parametrize("resize", ["center", "nearest", "maxpool"])
@given(
    x=st.floats(0, 95.9), y=st.floats(0, 63.9), sigma=st.floats(1e-3, 60), threshold=st.floats(0.05, 0.95)
)  # fmt: skip
def test_a_gaussian_is_never_empty_and_agrees_with_its_definition(resize, x, y, sigma, threshold):
    mask = gaussian_cells(torch.tensor([[x, y]]), torch.tensor([sigma]), threshold, FRAME, GRID, resize)[0].view(GRID)
    x, y = float(np.float32(x)), float(np.float32(y))
    own = (min(int(y // 16), 3), min(int(x // 16), 5))
    assert mask[own]
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            if resize == "center":
                pixels = [(column * 16 + 8, row * 16 + 8)]
            elif resize == "nearest":
                pixels = [(column * 16, row * 16)]
            else:
                pixels = [(column * 16 + i, row * 16 + j) for i in range(16) for j in range(16)]
            height = max(math.exp(-((px - x) ** 2 + (py - y) ** 2) / (2 * sigma**2)) for px, py in pixels)
            if abs(height - threshold) > 1e-3 and (row, column) != own:
                assert bool(mask[row, column]) == (height >= threshold), (row, column)


def test_a_sigma_too_small_for_any_cell_keeps_the_keypoints_own():
    mask = gaussian_cells(torch.tensor([[40.0, 20.0]]), torch.tensor([0.01]), 0.5, FRAME, GRID, "center")[0]
    assert _cells(mask) == [(2, 1)]
