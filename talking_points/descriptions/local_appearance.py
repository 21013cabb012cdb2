"""What the Gaussian-weighted crop shows at its centre, measured: colour, texture, edges, blobs, contrast.

No model: a colour-name table in CIELAB, a blob test over scales, the structure tensor (Förstner & Gülch 1987) and
band-pass energies. Every threshold is a named constant below. Lengths are in pixels of the working copy, a
``SIZE`` x ``SIZE`` image; distances between colours are CIE76 differences in CIELAB (about 2 is just visible).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.build_config import CropConfig
from talking_points.descriptions.gaussian_crop import GREY, gaussian_weight

SIZE = 84
"""Side of the working copy: near the native resolution of the smallest crops, and a quarter of the default size."""

CORE_RADIUS = 5.0
"""The area around the point that gives its own colour."""
SURROUND_RADII = (14.0, 30.0)
"""The ring that gives the colour of the surroundings."""
BLOB_RADII = (3.0, 4.5, 7.0, 10.0, 14.0)
"""Tested sizes of a spot."""
SMALL_BLOB = 5.0
"""Spots up to this radius are called small."""
BLOB_DIFFERENCE = 12.0
"""Least colour difference between a spot and the ring around it."""
ROUND_ASPECT, OVAL_ASPECT = 1.5, 2.6
"""Axis ratios up to which a spot is round, and up to which it is oval; beyond, it is a line."""
STRONG_CONTRAST, MILD_CONTRAST = 25.0, 10.0
"""Colour differences from which the point stands out strongly, or is merely different."""
EDGE_GRADIENT, CORNER_GRADIENT = 4.0, 6.0
"""Least root mean square of the gradient, in lightness per pixel, for an edge, and for a corner (or fur is one)."""
EDGE_COHERENCE, CORNER_COHERENCE = 0.6, 0.35
"""((l1 - l2) / (l1 + l2)): above the first there is one direction, below the second there are two."""
TENSOR_SIGMA, TEXTURE_SIGMA = 6.0, 12.0
"""Gaussian neighbourhoods in which edges and corners, and in which textures are judged."""
BAND_SIGMAS = (1.5, 4.0)
"""Blurs that separate fine from coarse details, and coarse details from shading."""
SMOOTH_ENERGY = 2.2
"""Root mean square of the lightness details up to which a surface is smooth."""
STRONG_ENERGY = 7.0
"""From here on a texture is pronounced."""
FINE_SHARE = 0.45
"""Share of the detail energy in the finest band from which a texture is fine rather than coarse."""
STRIPE_COHERENCE = 0.75
"""Coherence over the whole surface from which a texture with several crossings is striped."""
STRIPE_CROSSINGS = 5
"""Least number of light-dark changes across the stripes."""

Direction = Literal["horizontal", "vertical", "diagonal"]
Texture = Literal["smooth", "fine", "coarse", "striped"]
Shape = Literal["plain", "round spot", "oval spot", "line", "edge", "corner"]

_COLOURS: tuple[tuple[str, str], ...] = (
    ("black", "0a0a0c 1c1c1e 26201c 1a1e2a"),
    ("dark gray", "3c3c3e 4a4a4c 5c5c5e 484440 444a50"),
    ("gray", "747476 868688 969698 8a867e 7e8890"),
    ("light gray", "b0b0b2 c4c4c6 d6d6d8 c0bcb4 b6bec6"),
    ("white", "e9e9ea f4f4f4 ffffff f2efe6 eaf0f6"),
    ("dark red", "4e0f12 6e1518 861a1c"),
    ("red", "a81e22 c8262a e0302c f03a36"),
    ("pink", "e88ea2 f0b0bc f4c8d0 d8708c c88a8c"),
    ("bright pink", "f04890 e0288c"),
    ("orange", "e87820 f09030 f0a040 d86818"),
    ("reddish brown", "6e3020 864030 9a5040 70402e"),
    ("dark brown", "2e2018 3a281c 4a3020 403228"),
    ("brown", "5e4028 704a2e 845a38 6a5240 7c6248"),
    ("light brown", "987048 a8805a a08466 b4906c 90785c"),
    ("tan", "c4a47c c8ae88 b8a080 d0b48c"),
    ("beige", "dccbaa e6d8be d6c8b0 e8dcc8"),
    ("golden brown", "a8702a b88438 c08c48"),
    ("yellow", "f0d020 f8e040 e8c830 f4e878"),
    ("golden yellow", "d8a820 c89c28 e0b048"),
    ("olive green", "56562a 6c6c34 84843e 74704c"),
    ("dark green", "14301a 1e4424 2c5030 2e4430 38502e"),
    ("green", "2e7c34 3c9444 509c50 5e8c4a 6a9440"),
    ("light green", "88c070 a4d08c b8d8a0 9cb87c a0c890"),
    ("teal", "1a6468 208084 2e8c88 4e8a8a"),
    ("turquoise", "40c4c0 70d4d0 58b8b4"),
    ("dark blue", "101c48 182860 203474 28385c"),
    ("blue", "2448b0 3060c8 3c78d4 4470a8"),
    ("light blue", "78acdc 98c4e8 b4d4f0 90b4d0 a8c4dc"),
    ("bluish gray", "5c6c80 708298 8496ac 4c5a6c"),
    ("dark purple", "34164a 48205e 40284e"),
    ("purple", "6c3090 8444ac 7c509c"),
    ("light purple", "b090cc c8acdc a888b8"),
)
"""Basic colour terms (Berlin & Kay 1969) with dark and light shades and the words people add for photographs of
animals and furniture. Each is given by a few sRGB samples; a colour is named after the nearest sample in CIELAB."""


@dataclass(frozen=True)
class LocalAppearance:
    """The measured look of the centre of a crop.

    ``colour`` is the point's own, ``surround`` that of the ring around it, ``difference`` their distance.
    ``direction`` belongs to an edge, a line or stripes. ``size`` is the radius of a spot or line in working pixels.
    """

    colour: str
    surround: str
    difference: float
    lighter: bool
    shape: Shape
    size: float
    direction: Direction | None
    sides: tuple[str, str] | None
    """Colours on both sides of an edge, darker first; None where they have the same name."""
    texture: Texture
    texture_energy: float


def colour_name(lab: NDArray[np.float32]) -> str:
    """The name of one CIELAB colour (L in 0..100), by the nearest sample of the table."""
    names, samples = _colour_samples()
    return names[int(np.argmin(((samples - lab) ** 2).sum(axis=1)))]


@lru_cache(maxsize=1)
def _colour_samples() -> tuple[list[str], NDArray[np.float32]]:
    names = [name for name, samples in _COLOURS for _ in samples.split()]
    rgb = np.array([list(bytes.fromhex(code)) for _, samples in _COLOURS for code in samples.split()], np.float32)
    return names, cv2.cvtColor(rgb[None] / 255, cv2.COLOR_RGB2LAB)[0]


@lru_cache(maxsize=1)
def _radius() -> NDArray[np.float32]:
    """Distance of each working pixel from the centre, float32 (SIZE, SIZE)."""
    offsets = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
    return np.hypot(offsets[:, None], offsets[None, :]).astype(np.float32)


@lru_cache(maxsize=64)
def _ring(inner: float, outer: float) -> NDArray[np.intp]:
    """Flat indices of the working pixels at a distance from the centre above ``inner``, up to ``outer``."""
    return np.flatnonzero((_radius() > inner) & (_radius() <= outer))


def _select_ring(lab: NDArray[np.float32], inner: float, outer: float) -> NDArray[np.float32]:
    """The colours in a ring around the centre, float32 (pixels, 3)."""
    return lab.reshape(-1, 3)[_ring(inner, outer)]


@lru_cache(maxsize=4)
def _gaussian(sigma: float) -> NDArray[np.float32]:
    """A Gaussian around the centre, 1 there, float32 (SIZE, SIZE)."""
    return np.exp(-0.5 * (_radius() / sigma) ** 2).astype(np.float32)


def _blur(lightness: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(lightness, (0, 0), sigma), np.float32)


def measure(crop: NDArray[np.uint8], config: CropConfig) -> LocalAppearance:
    """Measure the centre of a crop made by ``gaussian_crop`` with the same ``config``.

    ``crop`` is uint8 RGB (side, side, 3). About 2 ms.
    """
    lab = _working_copy(crop, config)
    surround = np.median(_select_ring(lab, *SURROUND_RADII), axis=0)
    shape, size, direction, own = _shape(lab)
    sides = _sides(lab) if shape == "edge" else None
    texture, energy, stripes = _texture(lab)
    colour = own if own is not None else np.median(_select_ring(lab, 0, CORE_RADIUS), axis=0)
    return LocalAppearance(
        colour=colour_name(colour),
        surround=colour_name(surround),
        difference=float(np.linalg.norm(colour - surround)),
        lighter=bool(colour[0] > surround[0]),
        shape=shape,
        size=size,
        direction=direction or stripes,
        sides=sides,
        texture=texture,
        texture_energy=energy,
    )


def _working_copy(crop: NDArray[np.uint8], config: CropConfig) -> NDArray[np.float32]:
    """The crop as CIELAB float32 (SIZE, SIZE, 3), with a black or grey surround divided out again."""
    small = cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    if config.surround != "blur":
        background = 0.0 if config.surround == "black" else GREY / 255
        weight = np.maximum(gaussian_weight(SIZE, config.sigma), 0.2)[..., None]
        small = np.clip((small - background * (1 - weight)) / weight, 0, 1)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), dtype=np.float32)


def _direction(normal_angle: float) -> Direction:
    """The direction of an edge from the angle of its normal (radians, x right, y down)."""
    along = np.degrees(normal_angle + np.pi / 2) % 180
    if along < 25 or along > 155:
        return "horizontal"
    return "vertical" if 65 < along < 115 else "diagonal"


def _tensor(lightness: NDArray[np.float32], weight: NDArray[np.float32]) -> tuple[float, float, float]:
    """Structure tensor over a weighted area: (root of its trace, coherence, angle of the normal)."""
    dx = cv2.Scharr(lightness, cv2.CV_32F, 1, 0, scale=1 / 32)
    dy = cv2.Scharr(lightness, cv2.CV_32F, 0, 1, scale=1 / 32)
    total = float(weight.sum())
    xx, yy, xy = (float((weight * product).sum()) / total for product in (dx * dx, dy * dy, dx * dy))
    spread = float(np.hypot(xx - yy, 2 * xy))
    return (xx + yy) ** 0.5, spread / max(xx + yy, 1e-9), 0.5 * float(np.arctan2(2 * xy, xx - yy))


def _shape(
    lab: NDArray[np.float32],
) -> tuple[Shape, float, Direction | None, NDArray[np.float32] | None]:
    """Shape at the point, its size, its direction, and the colour of the spot or line where there is one."""
    best, best_difference = 0.0, 0.0
    for candidate in BLOB_RADII:
        inside = _select_ring(lab, 0, candidate).mean(axis=0)
        ring = _select_ring(lab, 1.3 * candidate, 1.9 * candidate).mean(axis=0)
        difference = float(np.linalg.norm(inside - ring))
        if difference > best_difference:
            best, best_difference = candidate, difference
    lightness = np.ascontiguousarray(lab[..., 0])
    if best_difference >= BLOB_DIFFERENCE:
        found = _spot(lab, best)
        if found is not None:
            return found
    strength, coherence, angle = _tensor(_blur(lightness, 1.0), _gaussian(TENSOR_SIGMA))
    if strength >= EDGE_GRADIENT and coherence >= EDGE_COHERENCE:
        return "edge", 0.0, _direction(angle), None
    if strength >= CORNER_GRADIENT and coherence <= CORNER_COHERENCE:
        return "corner", 0.0, None, None
    return "plain", 0.0, None, None


def _spot(lab: NDArray[np.float32], size: float) -> tuple[Shape, float, Direction | None, NDArray[np.float32]] | None:
    """The connected area of the centre's colour, if that is a closed spot or a line, and not the side of an edge."""
    radius = _radius()
    inside = np.median(_select_ring(lab, 0, 0.6 * size + 1), axis=0)
    ring = np.median(_select_ring(lab, 1.3 * size, 1.9 * size), axis=0)
    axis = ring - inside
    # Nearer to the centre's colour than to the ring's, along the line between the two.
    similar = ((lab - inside) @ axis < 0.5 * float(axis @ axis)) & (radius <= 2.2 * size)
    count, labels = cv2.connectedComponents(similar.astype(np.uint8), connectivity=8)
    middle = SIZE // 2
    label = labels[middle - 1 : middle + 1, middle - 1 : middle + 1].max()
    if count < 2 or label == 0:
        return None
    mask = labels == label
    rim = (radius > 2.0 * size) & (radius <= 2.2 * size)
    rows, columns = np.nonzero(mask)
    covariance = np.cov(np.stack([columns, rows]).astype(np.float64)) if len(rows) > 4 else np.eye(2)
    values, vectors = np.linalg.eigh(covariance)
    aspect = float(np.sqrt(values[1] / max(values[0], 0.08)))
    on_rim = float(mask[rim].mean()) if rim.any() else 1.0
    along = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    own = np.median(lab[mask & (radius <= 1.2 * size)], axis=0)
    if aspect > OVAL_ASPECT and on_rim < 0.3:
        return "line", float(2 * np.sqrt(values[0])), _direction(np.radians(along - 90)), own
    if on_rim > 0.08:
        return None
    equivalent = float(np.sqrt(len(rows) / np.pi))
    return ("round spot" if aspect <= ROUND_ASPECT else "oval spot"), equivalent, None, own


def _sides(lab: NDArray[np.float32]) -> tuple[str, str] | None:
    """The two colours that meet at the point: 2-means of the neighbourhood, seeded by the darkest and the lightest."""
    near = _select_ring(lab, 0, SURROUND_RADII[0])
    order = np.argsort(near[:, 0])
    quarter = len(order) // 4
    dark, light = near[order[:quarter]].mean(axis=0), near[order[-quarter:]].mean(axis=0)
    for _ in range(3):
        to_dark = ((near - dark) ** 2).sum(axis=1) < ((near - light) ** 2).sum(axis=1)
        if to_dark.all() or not to_dark.any():
            return None
        dark, light = near[to_dark].mean(axis=0), near[~to_dark].mean(axis=0)
    names = colour_name(dark), colour_name(light)
    return None if names[0] == names[1] else names


def _texture(lab: NDArray[np.float32]) -> tuple[Texture, float, Direction | None]:
    """Texture of the surface, the root mean square of its details, and the direction of stripes."""
    lightness = np.ascontiguousarray(lab[..., 0])
    weight = _gaussian(TEXTURE_SIGMA)
    weight = weight / weight.sum()
    fine_scale, coarse_scale = (_blur(lightness, sigma) for sigma in BAND_SIGMAS)
    fine, coarse = lightness - fine_scale, fine_scale - coarse_scale
    fine_energy, coarse_energy = (float((weight * band * band).sum()) for band in (fine, coarse))
    energy = (fine_energy + coarse_energy) ** 0.5
    if energy < SMOOTH_ENERGY:
        return "smooth", energy, None
    _, coherence, angle = _tensor(lightness, weight)
    if coherence >= STRIPE_COHERENCE and _crossings(fine + coarse, angle) >= STRIPE_CROSSINGS:
        return "striped", energy, _direction(angle)
    share = fine_energy / (fine_energy + coarse_energy)
    return ("fine" if share >= FINE_SHARE else "coarse"), energy, None


def _crossings(details: NDArray[np.float32], angle: float) -> int:
    """How often the details change sign along a line through the centre in the direction of the normal."""
    steps = np.arange(-SIZE // 3, SIZE // 3 + 1)
    columns = np.rint(SIZE / 2 + steps * np.cos(angle)).astype(int)
    rows = np.rint(SIZE / 2 + steps * np.sin(angle)).astype(int)
    profile = details[rows, columns]
    # Below one unit of lightness a change of sign is noise.
    signs = np.sign(profile[np.abs(profile) > 1.0])
    return int((signs[1:] != signs[:-1]).sum())
