"""A painter's canvas that remembers, for every pixel, which part of which object is seen there.

Shapes are painted back to front. Each paints shaded, textured colour with anti-aliased edges and, where it
covers at least half of a pixel, writes its region number into an id map: what remains in the map when the
scene is finished is exactly the visible part of every region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from talking_points.records import derive_seed
from talking_points.sources.drawn.curves import Points, smooth_closed, smooth_open

Colour = tuple[float, float, float]

_SHIFT = 4
"""Fractional bits of OpenCV's fixed-point coordinates: shapes are placed to a sixteenth of a pixel."""

_TILE = 768
_OFFSETS = 256
"""Textures are tiles of 768 px cut at offsets below 256 px, so images may measure up to 512 px."""

MAX_SIDE = _TILE - _OFFSETS

_FLAT_BELOW = 12
"""Shapes in windows (their extent and 7 px) up to this are too small for shading to show."""


@dataclass(frozen=True)
class Pattern:
    """Coat markings: where the named texture exceeds ``threshold`` the second colour shows."""

    texture: str
    colour: Colour
    threshold: float = 0.0
    zoom: float = 1.0


@dataclass(frozen=True)
class Material:
    """Surface of a shape. ``roundness`` is the share of the shape's thickness over which its edges curve away
    from the viewer; ``relief`` the contrast of that shading; ``gloss`` the strength of the highlight.
    """

    colour: Colour
    texture: str = ""
    strength: float = 0.1
    roundness: float = 0.5
    relief: float = 0.35
    gloss: float = 0.0
    pattern: Pattern | None = None
    under: Colour | None = None
    """Colour of the lower side (a light belly); it takes over in the lowest third of the shape."""

    def shaded(self, factor: float) -> Material:
        """The same surface, lighter or darker by ``factor``."""
        pattern = self.pattern and replace(self.pattern, colour=scaled(self.pattern.colour, factor))
        under = self.under and scaled(self.under, factor)
        return replace(self, colour=scaled(self.colour, factor), pattern=pattern, under=under)


def scaled(colour: Colour, factor: float) -> Colour:
    """A colour times a factor, cut at white."""
    red, green, blue = (min(255.0, channel * factor) for channel in colour)
    return red, green, blue


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Linear mix: ``share`` of the second colour."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Light:
    """``towards`` points from the scene to the light, in the image plane (y down)."""

    towards: tuple[float, float] = (-0.5, -0.85)


@dataclass
class Landmark:
    """A named point of a drawn object in pixels. It is seen where the id map shows its object, and, when
    ``part`` is given, only where it shows that copy of the part."""

    name: str
    x: float
    y: float
    part: str | None = None
    copy: int = 0


@dataclass
class Instance:
    """One drawn object: its category and, for animals, its landmarks."""

    category: str
    landmarks: list[Landmark] = field(default_factory=list)


@dataclass(frozen=True)
class RegionKey:
    """What a number of the id map means: a part (or none) of an instance, and which of the like parts."""

    instance: int
    part: str | None
    copy: int = 0


@lru_cache(maxsize=64)
def texture_tile(name: str) -> NDArray[np.float32]:
    """A fixed noise texture, float32 (768, 768), about zero mean and unit deviation, the same on every run.

    Names: ``grain``, ``fine``, ``coarse``, ``cloud``, ``blotch``, ``spots``, ``stripes``, ``weave``, ``bricks``,
    ``wool``, and ``hair0`` .. ``hair165`` in steps of 15 degrees (streaks along that direction).
    """
    rng = np.random.default_rng(derive_seed(7, "texture", name))
    noise = rng.standard_normal((_TILE, _TILE)).astype(np.float32)
    rows, columns = np.mgrid[0:_TILE, 0:_TILE].astype(np.float32)
    if name.startswith("hair"):
        angle = np.deg2rad(float(name[4:]))
        kernel = np.zeros((13, 13), np.uint8)
        reach = np.array([np.cos(angle), np.sin(angle)]) * 5
        ends = [tuple(round(6 * 16 + sign * value * 16) for value in reach) for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 255, 1, cv2.LINE_AA, 4)
        tile = cv2.filter2D(noise, cv2.CV_32F, kernel.astype(np.float32) / kernel.sum())
    elif name == "grain":
        tile = noise
    elif name == "fine":
        tile = cv2.GaussianBlur(noise, (0, 0), 0.8)
    elif name == "coarse":
        tile = cv2.GaussianBlur(noise, (0, 0), 2.5)
    elif name == "wool":
        tile = np.abs(cv2.GaussianBlur(noise, (0, 0), 2.2))
    elif name == "cloud":
        octaves = [cv2.GaussianBlur(rng.standard_normal((_TILE, _TILE)), (0, 0), s) * s for s in (36, 15, 6)]
        tile = octaves[0] + 0.5 * octaves[1] + 0.25 * octaves[2]
    elif name == "blotch":
        tile = cv2.GaussianBlur(noise, (0, 0), 16) + 0.25 * cv2.GaussianBlur(noise[::-1], (0, 0), 5)
    elif name == "spots":
        tile = _dots(rng)
    elif name == "stripes":
        warp = cv2.GaussianBlur(noise, (0, 0), 22)
        tile = np.sin((columns + 24.0 * warp / warp.std()) * 0.30 + np.sin(rows * 0.05) * 0.5)
    elif name == "weave":
        tile = np.sin(rows * 1.4) * np.sin(columns * 1.4) + 0.4 * noise
    elif name == "bricks":
        shifted = columns + 16 * ((rows // 14) % 2)
        mortar = (rows % 14 < 2) | (shifted % 32 < 2)
        tile = np.where(mortar, -2.0, 0.4 * np.sin(shifted // 32 * 12.9898 + rows // 14 * 78.233)) + 0.3 * noise
    else:
        raise ValueError(f"no texture is called {name!r}: see texture_tile")
    tile = tile - tile.mean()
    return np.ascontiguousarray(tile / tile.std(), dtype=np.float32)


def _dots(rng: np.random.Generator) -> NDArray[np.float32]:
    """Irregular dots on a jittered grid, softly edged."""
    mask = np.zeros((_TILE, _TILE), np.uint8)
    for row in range(0, _TILE, 13):
        for column in range(0, _TILE, 13):
            x, y = column + rng.uniform(-4, 4), row + rng.uniform(-4, 4)
            axes = (int(rng.uniform(2.2, 4.6) * 16), int(rng.uniform(2.0, 3.6) * 16))
            cv2.ellipse(mask, (int(x * 16), int(y * 16)), axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask, (0, 0), 1.0).astype(np.float32)


class Canvas:
    """An RGB image as float32 planes (3, height, width), 0..255, and its id map, int16 (height, width), 0 =
    background.

    ``regions[i]`` tells what id ``i + 1`` means, ``instances`` the objects drawn so far.
    """

    def __init__(self, width: int, height: int, rng: np.random.Generator, light: Light) -> None:
        if max(width, height) > MAX_SIDE:
            raise ValueError(f"a drawn image measures at most {MAX_SIDE} px on a side, got {width} x {height}")
        self.width, self.height, self.rng, self.light = width, height, rng, light
        self.pixels: NDArray[np.float32] = np.zeros((3, height, width), np.float32)
        self.ids: NDArray[np.int16] = np.zeros((height, width), np.int16)
        self.regions: list[RegionKey] = []
        self.instances: list[Instance] = []
        self._numbers: dict[RegionKey, int] = {}
        self._offset = rng.integers(0, _OFFSETS, 2)

    def begin(self, category: str) -> int:
        """Start an object; what follows with its number belongs to it. Its coat gets its own texture cut-out."""
        self.instances.append(Instance(category))
        self._offset = self.rng.integers(0, _OFFSETS, 2)
        return len(self.instances) - 1

    def region(self, key: RegionKey) -> int:
        """The number of a region in the id map, given at first use."""
        number = self._numbers.get(key)
        if number is None:
            self.regions.append(key)
            number = self._numbers[key] = len(self.regions)
        return number

    def polygon(self, points: ArrayLike, material: Material, region: int | None = None) -> None:
        """Fill a closed outline, float (n, 2) in pixels. ``region`` None paints without touching the id map."""
        self.polygons([points], material, region)

    def polygons(self, outlines: Sequence[ArrayLike], material: Material, region: int | None = None) -> None:
        """Fill several outlines that do not overlap as one surface."""
        rings = [np.asarray(outline, dtype=np.float64) for outline in outlines]
        joined = np.concatenate(rings) if rings else np.empty((0, 2))
        window = self._window(joined.min(axis=0), joined.max(axis=0)) if rings else None
        if window is None:
            return
        x0, y0, x1, y1 = window
        cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(cover, [_fixed(ring, x0, y0) for ring in rings], 255, cv2.LINE_AA, _SHIFT)
        self._paint(cover, x0, y0, material, region)

    def claim(self, points: ArrayLike, region: int) -> None:
        """Give the pixels inside an outline to a region without painting: seen through, but part of the thing."""
        outline = np.asarray(points, dtype=np.float64)
        cover = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(cover, [_fixed(outline, 0, 0)], 255, cv2.LINE_AA, _SHIFT)
        self.ids[cover >= 128] = region

    def tube(self, points: ArrayLike, radii: ArrayLike, material: Material, region: int | None = None) -> None:
        """A round-ended tube along points, float (n, 2), with a radius at each, all in pixels."""
        centres = np.asarray(points, dtype=np.float64)
        widths = np.maximum(np.asarray(radii, dtype=np.float64), 0.4)
        reach = float(widths.max())
        window = self._window(centres.min(axis=0) - reach, centres.max(axis=0) + reach)
        if window is None:
            return
        x0, y0, x1, y1 = window
        cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
        steps = np.diff(centres, axis=0)
        lengths = np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-6)
        normals = np.stack([-steps[:, 1], steps[:, 0]], axis=1) / lengths
        starts, ends = normals * widths[:-1, None], normals * widths[1:, None]
        quads = [centres[:-1] + starts, centres[1:] + ends, centres[1:] - ends, centres[:-1] - starts]
        for quad in _fixed(np.stack(quads, axis=1), x0, y0):
            cv2.fillConvexPoly(cover, quad, 255, cv2.LINE_AA, _SHIFT)
        fixed_centres, fixed_widths = _fixed(centres, x0, y0), np.rint(widths * (1 << _SHIFT)).astype(int)
        for centre, width in zip(fixed_centres.tolist(), fixed_widths.tolist(), strict=True):
            cv2.circle(cover, centre, width, 255, -1, cv2.LINE_AA, _SHIFT)
        self._paint(cover, x0, y0, material, region)

    def strokes(self, lines: Sequence[ArrayLike], width: float, colour: Colour, opacity: float = 1.0) -> None:
        """Thin lines on top of what is there, each float (n, 2) in pixels; they never change the id map.

        Lines thinner than a pixel are drawn one pixel wide and fainter."""
        paths = [np.asarray(line, dtype=np.float64) for line in lines]
        if not paths:
            return
        joined = np.concatenate(paths)
        window = self._window(joined.min(axis=0) - width, joined.max(axis=0) + width)
        if window is None:
            return
        x0, y0, x1, y1 = window
        cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
        fixed = [_fixed(path, x0, y0) for path in paths]
        cv2.polylines(cover, fixed, False, 255, max(1, round(width)), cv2.LINE_AA, _SHIFT)
        alpha = cover.astype(np.float32) * (opacity * min(1.0, width) / 255.0)
        self._blend(x0, y0, _planes(colour), alpha)

    def shadow(self, centre: tuple[float, float], axes: tuple[float, float], strength: float, softness: float) -> None:
        """A soft dark ellipse on the ground; ``softness`` is its blur in pixels."""
        middle, reach = np.asarray(centre, float), np.asarray(axes, float) + 2.5 * softness
        window = self._window(middle - reach, middle + reach)
        if window is None:
            return
        x0, y0, x1, y1 = window
        cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
        fixed_axes = [max(1, round(axis * (1 << _SHIFT))) for axis in axes]
        fixed_centre = _fixed(middle[None], x0, y0)[0].tolist()
        cv2.ellipse(cover, fixed_centre, fixed_axes, 0, 0, 360, 255, -1, cv2.LINE_AA, _SHIFT)
        size = 2 * max(1, int(softness)) + 1
        soft = cv2.blur(cv2.blur(cover, (size, size)), (size, size))
        self.pixels[:, y0:y1, x0:x1] *= 1.0 - soft.astype(np.float32) * np.float32(strength / 255.0)

    def texture(self, name: str, x0: int, y0: int, x1: int, y1: int, zoom: float = 1.0) -> NDArray[np.float32]:
        """The object's cut-out of a texture under a window of the image; parts of one object share it."""
        tile = texture_tile(name)
        oy, ox = int(self._offset[0]), int(self._offset[1])
        if zoom == 1.0:
            return tile[oy + y0 : oy + y1, ox + x0 : ox + x1]
        columns = ((np.arange(x0, x1) / zoom).astype(int) + ox) % _TILE
        rows = ((np.arange(y0, y1) / zoom).astype(int) + oy) % _TILE
        return tile[rows[:, None], columns]

    def _window(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[int, int, int, int] | None:
        x0, y0 = max(0, int(np.floor(low[0])) - 3), max(0, int(np.floor(low[1])) - 3)
        x1, y1 = min(self.width, int(np.ceil(high[0])) + 4), min(self.height, int(np.ceil(high[1])) + 4)
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def _paint(self, cover: NDArray[np.uint8], x0: int, y0: int, material: Material, region: int | None) -> None:
        height, width = cover.shape
        y1, x1 = y0 + height, x0 + width
        alpha = cover.astype(np.float32) * np.float32(1 / 255)
        tone = np.ones((height, width), np.float32)
        shine = None
        if material.roundness > 0 and min(height, width) > _FLAT_BELOW:
            thickness = 2.0 * float(cover.sum()) / 255.0 / max(height + width, 1)
            size = 2 * max(1, int(thickness * material.roundness)) + 1
            soft = cv2.blur(cv2.blur(alpha, (size, size), borderType=cv2.BORDER_REPLICATE), (size, size))
            light_x, light_y = self.light.towards
            slope = cv2.Sobel(soft, cv2.CV_32F, 1, 0) * np.float32(-light_x * size / 8)
            slope += cv2.Sobel(soft, cv2.CV_32F, 0, 1) * np.float32(-light_y * size / 8)
            tone += slope * np.float32(material.relief * 2)
            if material.gloss:
                shine = np.clip(slope - 0.25, 0, 1) * np.float32(255 * 2 * material.gloss)
        if material.texture:
            tone += self.texture(material.texture, x0, y0, x1, y1) * np.float32(material.strength)
        colour = _planes(material.colour)
        if material.under:
            fall = np.clip(np.linspace(-1.6, 1.6, height, dtype=np.float32), 0, 1)[:, None]
            colour = colour + (_planes(material.under) - colour) * fall
        if material.pattern:
            marks = self.texture(material.pattern.texture, x0, y0, x1, y1, material.pattern.zoom)
            share = np.clip((marks - np.float32(material.pattern.threshold)) * np.float32(5), 0, 1)
            colour = colour + (_planes(material.pattern.colour) - colour) * share
        layer = colour * tone
        if shine is not None:
            layer += shine
        self._blend(x0, y0, layer, alpha)
        if region is not None:
            np.copyto(self.ids[y0:y1, x0:x1], np.int16(region), where=cover >= 128)

    def _blend(self, x0: int, y0: int, layer: NDArray[np.float32], alpha: NDArray[np.float32]) -> None:
        """Mix planes over the image; ``alpha`` is float32 (height, width) in 0..1."""
        height, width = alpha.shape
        view = self.pixels[:, y0 : y0 + height, x0 : x0 + width]
        change = layer - view
        change *= alpha
        view += change


def _planes(colour: Colour) -> NDArray[np.float32]:
    """A colour that broadcasts over planes, float32 (3, 1, 1)."""
    return np.array(colour, np.float32)[:, None, None]


def _fixed(points: NDArray[np.float64], x0: int, y0: int) -> NDArray[np.int32]:
    """Points (..., 2) as fixed-point numbers with 4 fractional bits, relative to a window."""
    return np.rint((points - (x0, y0)) * (1 << _SHIFT)).astype(np.int32)


@dataclass
class Pen:
    """Draws one object in its own coordinates (y down, any unit) through an affine map onto the canvas.

    ``matrix`` is float (2, 3). A part named None paints object pixels that belong to no part.
    """

    canvas: Canvas
    instance: int
    matrix: NDArray[np.float64]

    @property
    def unit(self) -> float:
        """Pixels per unit of the object's coordinates."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    @property
    def mirrored(self) -> bool:
        """Whether the object's right is the image's left."""
        return bool(np.linalg.det(self.matrix[:, :2]) < 0)

    def project(self, points: ArrayLike) -> Points:
        """Object coordinates (n, 2) to pixels (n, 2)."""
        return np.asarray(points, dtype=np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def shape(
        self, part: str | None, points: ArrayLike, material: Material, *, smooth: bool = True, copy: int = 0
    ) -> None:
        """A filled outline; smooth ones pass through their points as a closed Catmull-Rom curve."""
        outline = smooth_closed(points) if smooth else np.asarray(points, dtype=np.float64)
        self.canvas.polygon(self.project(outline), material, self._region(part, copy))

    def limb(
        self, part: str | None, joints: ArrayLike, radii: Sequence[float], material: Material, *, copy: int = 0
    ) -> None:
        """A bent, tapered tube through its joints, with a radius at each joint."""
        rows = np.column_stack([np.asarray(joints, dtype=np.float64), np.asarray(radii, dtype=np.float64)])
        path = smooth_open(rows, 5)
        self.canvas.tube(self.project(path[:, :2]), path[:, 2] * self.unit, material, self._region(part, copy))

    def ellipse(
        self,
        part: str | None,
        centre: tuple[float, float],
        axes: tuple[float, float],
        material: Material,
        *,
        angle: float = 0.0,
        copy: int = 0,
    ) -> None:
        """A filled ellipse; ``angle`` in radians turns x towards y."""
        self.shape(part, ellipse_points(centre, axes, angle), material, smooth=False, copy=copy)

    def detail(self, points: ArrayLike, material: Material, *, smooth: bool = True) -> None:
        """A filled outline that belongs to whatever is already there."""
        outline = smooth_closed(points) if smooth else np.asarray(points, dtype=np.float64)
        self.canvas.polygon(self.project(outline), material)

    def claim(self, part: str, points: ArrayLike, *, copy: int = 0) -> None:
        """Give what is seen inside an outline to a part without painting."""
        self.canvas.claim(self.project(points), self._region(part, copy))

    def strokes(self, lines: Sequence[ArrayLike], width: float, colour: Colour, opacity: float = 1.0) -> None:
        """Thin lines, ``width`` in object units; they belong to whatever is already there."""
        self.canvas.strokes([self.project(line) for line in lines], width * self.unit, colour, opacity)

    def landmark(self, name: str, point: tuple[float, float], part: str | None = None, copy: int = 0) -> None:
        """Remember a named point of the object."""
        x, y = self.project([point])[0]
        self.canvas.instances[self.instance].landmarks.append(Landmark(name, float(x), float(y), part, copy))

    def _region(self, part: str | None, copy: int) -> int:
        return self.canvas.region(RegionKey(self.instance, part, copy))


def ellipse_points(centre: tuple[float, float], axes: tuple[float, float], angle: float = 0.0, n: int = 28) -> Points:
    """Points of an ellipse, float (n, 2); ``angle`` in radians."""
    turn = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x, y = axes[0] * np.cos(turn), axes[1] * np.sin(turn)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.column_stack([centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos])
