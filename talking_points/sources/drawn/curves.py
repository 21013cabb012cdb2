"""Outlines from few points: Catmull-Rom curves (Catmull and Rom 1974) and what is built from them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


@lru_cache(maxsize=16)
def _basis(steps: int) -> Points:
    """Catmull-Rom weights of the four neighbours at ``steps`` places of a segment, (steps, 4)."""
    t = np.arange(steps) / steps
    powers = np.stack([np.ones_like(t), t, t**2, t**3], axis=1)
    matrix = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]], dtype=float)
    return powers @ matrix


def smooth_closed(points: ArrayLike, steps: int = 6) -> Points:
    """The closed curve through points (n, d), sampled ``steps`` times per segment: (n * steps, d)."""
    knots = np.asarray(points, dtype=np.float64)
    neighbours = knots[(np.arange(len(knots))[:, None] + (-1, 0, 1, 2)) % len(knots)]
    return (_basis(steps) @ neighbours).reshape(-1, knots.shape[1])


def smooth_open(points: ArrayLike, steps: int = 6) -> Points:
    """The open curve through points (n, d), n >= 2: ((n - 1) * steps + 1, d)."""
    knots = np.asarray(points, dtype=np.float64)
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    neighbours = padded[np.arange(len(knots) - 1)[:, None] + (0, 1, 2, 3)]
    curve = (_basis(steps) @ neighbours).reshape(-1, knots.shape[1])
    return np.concatenate([curve, knots[-1:]])


def ruffled(points: ArrayLike, amount: float, bumps: int, rng: np.random.Generator) -> Points:
    """A closed outline pushed in and out along its normals: ``bumps`` waves of random height up to ``amount``."""
    curve = smooth_closed(points, 10)
    tangent = np.roll(curve, -1, axis=0) - np.roll(curve, 1, axis=0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    heights = rng.uniform(0.35, 1.0, bumps)
    phase = np.linspace(0, bumps, len(curve), endpoint=False)
    wave = np.abs(np.sin(np.pi * phase)) * heights[phase.astype(int) % bumps]
    return curve + normal * (amount * wave)[:, None]


def rounded_box(x0: float, y0: float, x1: float, y1: float, radius: float) -> Points:
    """A rectangle with round corners, (28, 2), corners first given as low and high."""
    radius = min(radius, abs(x1 - x0) / 2, abs(y1 - y0) / 2)
    corners = [(x1 - radius, y1 - radius, 0), (x0 + radius, y1 - radius, 1)]
    corners += [(x0 + radius, y0 + radius, 2), (x1 - radius, y0 + radius, 3)]
    quarter = np.linspace(0, np.pi / 2, 7)
    arcs = [
        np.column_stack([x + radius * np.cos(quarter + k * np.pi / 2), y + radius * np.sin(quarter + k * np.pi / 2)])
        for x, y, k in corners
    ]
    return np.concatenate(arcs)
