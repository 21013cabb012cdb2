"""Places: sky and land, beach, street, room, studio; each says where things stand and how light falls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.sources.drawn.canvas import Canvas, Colour, Material, Pattern, mixed, scaled, texture_tile
from talking_points.sources.drawn.curves import ruffled, smooth_open


@dataclass(frozen=True)
class Place:
    """Where objects may stand: rows between ``far``, the upper end of the floor, and the image's lower edge."""

    name: str
    far: float
    indoors: bool = False
    shadow: float = 0.45


def gradient(canvas: Canvas, top: float, bottom: float, upper: Colour, lower: Colour) -> None:
    """Fill rows ``top`` to ``bottom`` with a vertical blend."""
    y0, y1 = max(0, int(top)), min(canvas.height, int(np.ceil(bottom)))
    if y0 >= y1:
        return
    for plane, first, last in zip(canvas.pixels, upper, lower, strict=True):
        plane[y0:y1] = np.linspace(first, last, y1 - y0, dtype=np.float32)[:, None]


def grain(canvas: Canvas, top: float, bottom: float, name: str, strength: float, zoom: float = 1.0) -> None:
    """Multiply rows by a texture."""
    y0, y1 = max(0, int(top)), min(canvas.height, int(np.ceil(bottom)))
    if y0 >= y1:
        return
    tile = canvas.texture(name, 0, y0, canvas.width, y1, zoom)
    canvas.pixels[:, y0:y1] *= 1 + np.float32(strength) * tile


def defocus(canvas: Canvas, sigma: float) -> None:
    """Blur what is painted so far; ``sigma`` in pixels."""
    for plane in canvas.pixels:
        cv2.GaussianBlur(plane, (0, 0), sigma, dst=plane)


def _sky(canvas: Canvas, horizon: float) -> None:
    rng = canvas.rng
    upper, lower = [
        ((70, 125, 205), (185, 215, 240)),
        ((105, 155, 215), (215, 228, 238)),
        ((150, 165, 180), (205, 210, 212)),
        ((95, 110, 165), (245, 200, 160)),
        ((60, 140, 220), (150, 200, 240)),
    ][rng.integers(5)]
    gradient(canvas, 0, horizon, upper, lower)
    y1 = min(canvas.height, max(1, int(horizon)))
    cover = rng.uniform(-0.6, 1.2)
    tile = canvas.texture("cloud", 0, 0, canvas.width, y1)
    share = np.clip((tile - 0.9 + cover * 0.6) * 0.8, 0, 0.85).astype(np.float32)
    view = canvas.pixels[:, :y1]
    view += (np.float32(rng.uniform(225, 250)) - view) * share


def _ridge(canvas: Canvas, base: float, height: float, material: Material) -> None:
    rng = canvas.rng
    x = np.linspace(-10, canvas.width + 10, 9)
    y = base - height * rng.uniform(0.1, 1.0, 9)
    line = smooth_open(np.column_stack([x, y]), 5)
    corners = [(canvas.width + 10, base + 4), (-10, base + 4)]
    canvas.polygon(np.concatenate([line, corners]), material)


def _tree(canvas: Canvas, x: float, base: float, height: float, colour: Colour) -> None:
    """A tree or, when short, a bush: a trunk and leafy crowns."""
    rng = canvas.rng
    trunk = Material((92, 70, 52), "hair90", 0.12, 0.5)
    if rng.random() < 0.75:
        canvas.tube([(x, base), (x + height * 0.03, base - height * 0.5)], [height * 0.05, height * 0.03], trunk)
        crown = base - height * 0.68
    else:
        crown = base - height * 0.3
    leaves = Material(colour, "coarse", 0.17, 0.35, 0.35)
    for _ in range(3):
        centre = np.array([x, crown]) + rng.uniform(-0.16, 0.16, 2) * height
        turn = np.linspace(0, 2 * np.pi, 9, endpoint=False)
        ring = centre + np.column_stack([np.cos(turn), np.sin(turn)]) * height * rng.uniform(0.2, 0.3)
        canvas.polygon(ruffled(ring, height * 0.05, 16, rng), leaves.shaded(rng.uniform(0.85, 1.1)))


def _stone(canvas: Canvas, x: float, base: float, size: float) -> None:
    rng = canvas.rng
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ring = np.column_stack([np.cos(turn), 0.6 * np.sin(turn)]) * size * rng.uniform(0.75, 1.1, (8, 1))
    canvas.shadow((x, base), (size * 1.1, size * 0.25), 0.4, 2)
    grey = rng.uniform(95, 160)
    from_curve = ruffled(np.add(ring, (x, base - size * 0.45)), 0.0, 8, rng)
    canvas.polygon(from_curve, Material((grey, grey * 0.97, grey * 0.92), "coarse", 0.1, 0.6, 0.5))


def _fence(canvas: Canvas, base: float, height: float) -> None:
    wood = Material(mixed((120, 90, 62), (225, 222, 215), canvas.rng.random()), "hair0", 0.08, 0.4)
    for share in (0.35, 0.75):
        y = base - height * share
        canvas.polygon([(0, y - 2), (canvas.width, y - 2), (canvas.width, y + 2), (0, y + 2)], wood)
    for x in np.arange(canvas.rng.uniform(0, 40), canvas.width, canvas.rng.uniform(38, 60)):
        canvas.polygon([(x, base - height), (x + 6, base - height), (x + 6, base), (x, base)], wood)


def meadow(canvas: Canvas) -> Place:
    """Grass under the sky, with hills, trees, stones, sometimes a fence."""
    rng = canvas.rng
    horizon = canvas.height * rng.uniform(0.22, 0.5)
    _sky(canvas, horizon + 2)
    haze = canvas.pixels[:, max(0, int(horizon) - 2), 0].tolist()
    green: Colour = [(105, 140, 62), (128, 146, 70), (90, 125, 70), (150, 148, 82)][rng.integers(4)]
    for share, height in ((0.6, 0.2), (0.35, 0.12)):
        if rng.random() < 0.75:
            tone = mixed(scaled(green, 0.8), (haze[0], haze[1], haze[2]), share)
            _ridge(canvas, horizon, canvas.height * height, Material(tone, "coarse", 0.05, 0))
    gradient(canvas, horizon, canvas.height, mixed(green, (200, 205, 170), 0.25), scaled(green, 0.82))
    grain(canvas, horizon, canvas.height, "cloud", 0.05)
    grain(canvas, horizon, (horizon + canvas.height) / 2, "fine", 0.05)
    grain(canvas, (horizon + canvas.height) / 2, canvas.height, "hair90", 0.11)
    for _ in range(rng.integers(0, 5)):
        size = canvas.height * rng.uniform(0.1, 0.4)
        leaf = mixed(scaled(green, 0.62), (60, 95, 60), rng.random())
        _tree(canvas, rng.uniform(0, canvas.width), horizon + rng.uniform(1, 12), size, leaf)
    if rng.random() < 0.2:
        _fence(canvas, horizon + 14, 34)
    for _ in range(rng.integers(0, 3)):
        y = rng.uniform(horizon + 12, canvas.height)
        _stone(canvas, rng.uniform(0, canvas.width), y, 5 + 14 * (y - horizon) / canvas.height)
    return Place("meadow", horizon + 10)


def plain(canvas: Canvas) -> Place:
    """Open ground: snow, desert or mud, with ridges of the same colour."""
    rng = canvas.rng
    horizon = canvas.height * rng.uniform(0.25, 0.48)
    _sky(canvas, horizon + 2)
    ground: Colour = [(232, 236, 242), (206, 176, 128), (150, 124, 96), (188, 172, 138)][rng.integers(4)]
    for share in (0.55, 0.3):
        tone = mixed(scaled(ground, 0.8), (170, 185, 205), share)
        _ridge(canvas, horizon, canvas.height * rng.uniform(0.05, 0.2), Material(tone, "coarse", 0.04, 0))
    gradient(canvas, horizon, canvas.height, mixed(ground, (235, 230, 220), 0.2), scaled(ground, 0.88))
    grain(canvas, horizon, canvas.height, "cloud", 0.045)
    grain(canvas, horizon, canvas.height, "fine", 0.03)
    for _ in range(rng.integers(1, 6)):
        y = rng.uniform(horizon + 8, canvas.height)
        _stone(canvas, rng.uniform(0, canvas.width), y, 4 + 20 * (y - horizon) / canvas.height)
    return Place("plain", horizon + 10, shadow=0.35)


def beach(canvas: Canvas) -> Place:
    """Sea, surf and sand."""
    rng = canvas.rng
    horizon = canvas.height * rng.uniform(0.2, 0.4)
    shore = horizon + canvas.height * rng.uniform(0.08, 0.2)
    _sky(canvas, horizon + 1)
    sea: Colour = [(50, 120, 160), (70, 150, 165), (85, 120, 145)][rng.integers(3)]
    gradient(canvas, horizon, shore + 8, scaled(sea, 0.9), mixed(sea, (210, 230, 225), 0.45))
    grain(canvas, horizon, shore + 8, "hair0", 0.09)
    sand: Colour = [(222, 202, 160), (208, 186, 150), (196, 178, 150)][rng.integers(3)]
    x = np.linspace(-5, canvas.width + 5, 8)
    edge = smooth_open(np.column_stack([x, shore + rng.uniform(-5, 5, 8)]), 5)
    corners = [(canvas.width + 5, canvas.height + 5), (-5, canvas.height + 5)]
    canvas.polygon(np.concatenate([edge - (0, 4), corners]), Material((240, 242, 238), "fine", 0.03, 0))
    canvas.polygon(np.concatenate([edge, corners]), Material(sand, "fine", 0.05, 0))
    grain(canvas, shore + 5, canvas.height, "cloud", 0.035)
    return Place("beach", shore + 14, shadow=0.4)


def water(canvas: Canvas) -> Place:
    """Open water for boats."""
    rng = canvas.rng
    horizon = canvas.height * rng.uniform(0.35, 0.6)
    _sky(canvas, horizon + 1)
    if rng.random() < 0.6:
        _ridge(canvas, horizon, canvas.height * 0.12, Material((110, 130, 135), "coarse", 0.05, 0))
    sea: Colour = [(45, 100, 145), (70, 130, 150), (80, 110, 130)][rng.integers(3)]
    gradient(canvas, horizon, canvas.height, mixed(sea, (190, 210, 220), 0.4), scaled(sea, 0.8))
    grain(canvas, horizon, canvas.height, "hair0", 0.12)
    return Place("water", horizon + 12, shadow=0.3)


def street(canvas: Canvas) -> Place:
    """Road and pavement before houses with windows, or before trees."""
    rng = canvas.rng
    kerb = canvas.height * rng.uniform(0.45, 0.6)
    _sky(canvas, kerb)
    x = rng.uniform(-60, 0)
    while x < canvas.width:
        width = rng.uniform(70, 150)
        if rng.random() < 0.75:
            _house(canvas, x, kerb, width, canvas.height * rng.uniform(0.3, 0.62))
        else:
            _tree(canvas, x + width / 2, kerb, canvas.height * 0.42, (76, 110, 60))
        x += width + rng.uniform(0, 12)
    paving = rng.uniform(140, 180)
    gradient(canvas, kerb, kerb + 14, (paving, paving, paving * 0.97), (paving * 0.9, paving * 0.9, paving * 0.88))
    asphalt = rng.uniform(75, 115)
    gradient(canvas, kerb + 14, canvas.height, (asphalt * 1.15,) * 3, (asphalt, asphalt, asphalt * 1.02))
    grain(canvas, kerb, canvas.height, "fine", 0.06)
    line = kerb + 14 + (canvas.height - kerb) * 0.45
    if rng.random() < 0.7:
        for start in np.arange(rng.uniform(-80, 0), canvas.width, 90):
            dash = [(start, line), (start + 46, line), (start + 42, line + 5), (start - 4, line + 5)]
            canvas.polygon(dash, Material((215, 212, 200), "fine", 0.06, 0))
    if rng.random() < 0.4:
        _lamp_post(canvas, rng.uniform(20, canvas.width - 20), kerb + 8)
    return Place("street", kerb + 24)


def _house(canvas: Canvas, x: float, base: float, width: float, height: float) -> None:
    rng = canvas.rng
    wall: Colour = [
        (168, 108, 84),
        (196, 178, 150),
        (150, 150, 150),
        (205, 190, 170),
        (130, 110, 100),
        (180, 160, 130),
    ][rng.integers(6)]
    texture = "bricks" if rng.random() < 0.5 else "coarse"
    corners = [(x, base - height), (x + width, base - height), (x + width, base), (x, base)]
    canvas.polygon(corners, Material(wall, texture, 0.06, 0))
    pane, gap = rng.uniform(14, 20), rng.uniform(10, 16)
    glass = Material(mixed((70, 85, 100), (160, 180, 195), rng.random()), "cloud", 0.12, 0)
    frame = Material((225, 222, 215), roundness=0)
    columns = np.arange(x + gap, x + width - pane, pane + gap)
    rows = np.arange(base - height + gap, base - pane * 1.6, pane * 1.5 + gap)
    window = np.array([(0.0, 0.0), (pane, 0.0), (pane, pane * 1.4), (0.0, pane * 1.4)])
    border = np.array([(-2, -2), (2, -2), (2, 2), (-2, 2)])
    panes = [np.add(window, (left, top)) for left in columns for top in rows]
    canvas.polygons([np.add(pane_corners, border) for pane_corners in panes], frame)
    canvas.polygons(panes, glass)


def _lamp_post(canvas: Canvas, x: float, base: float) -> None:
    height = canvas.height * 0.5
    metal = Material((70, 74, 78), "", 0, 0.6, 0.5)
    canvas.tube([(x, base), (x, base - height), (x + 16, base - height - 6)], [2.6, 1.8, 1.5], metal)
    canvas.polygon(
        [(x + 10, base - height - 10), (x + 28, base - height - 8), (x + 24, base - height)], metal.shaded(1.3)
    )


def room(canvas: Canvas) -> Place:
    """A wall with skirting board, a floor of planks, tiles or carpet, perhaps a window, pictures and a rug."""
    rng = canvas.rng
    edge = canvas.height * rng.uniform(0.5, 0.66)
    wall: Colour = [
        (222, 214, 196), (186, 200, 206), (204, 186, 168), (176, 190, 168), (212, 206, 214), (168, 150, 140),
        (228, 224, 214),
    ][rng.integers(7)]  # fmt: skip
    gradient(canvas, 0, edge, scaled(wall, rng.uniform(0.92, 1.06)), scaled(wall, 0.94))
    kind = rng.integers(4)
    if kind == 0:
        columns = (np.arange(canvas.width) // rng.integers(9, 22)) % 2
        canvas.pixels[:, : int(edge)] *= 1 - np.float32(0.055) * columns.astype(np.float32)
    elif kind == 1:
        grain(canvas, 0, edge, "bricks", 0.05)
    grain(canvas, 0, edge, "fine", 0.012)
    side = np.abs(np.linspace(-1, 1, canvas.width, dtype=np.float32) - rng.uniform(-0.7, 0.7))
    canvas.pixels[:, : int(edge)] *= (1.05 - 0.12 * side).astype(np.float32)
    if rng.random() < 0.5:
        _window(canvas, rng.uniform(0.05, 0.65) * canvas.width, edge)
    for _ in range(rng.integers(0, 3)):
        _picture(canvas, rng.uniform(0.05, 0.85) * canvas.width, rng.uniform(0.06, 0.3) * edge)
    _floor(canvas, edge)
    board = mixed(wall, (250, 248, 244), 0.6)
    canvas.polygon(
        [(0, edge - 9), (canvas.width, edge - 9), (canvas.width, edge), (0, edge)], Material(board, "", 0, 0.3, 0.3)
    )
    if rng.random() < 0.35:
        _rug(canvas, edge)
    return Place("room", edge + 6, indoors=True, shadow=0.5)


def _muted(rng: np.random.Generator) -> Colour:
    """The colour of a dyed fabric or a print: no channel far from the others."""
    grey = rng.uniform(70, 215)
    red, green, blue = grey + rng.uniform(-48, 48, 3)
    return red, green, blue


def _floor(canvas: Canvas, edge: float) -> None:
    rng = canvas.rng
    kind = rng.integers(3)
    tones: list[Colour] = [(164, 122, 82), (128, 92, 64), (186, 150, 108), (150, 140, 128), (120, 112, 118)]
    tone: Colour = tones[rng.integers(3)] if kind == 0 else tones[rng.integers(5)]
    if kind == 1:
        tone = mixed(tone, (225, 220, 210), 0.55)
    gradient(canvas, edge, canvas.height, scaled(tone, 0.92), scaled(tone, 1.05))
    depth = canvas.height - edge
    centre = canvas.width * rng.uniform(0.3, 0.7)
    if kind < 2:
        spacing = canvas.width * rng.uniform(0.1, 0.17)
        lines = []
        for index in range(-14, 15):
            upper, lower = centre + index * spacing * 0.62, centre + index * spacing * 1.25
            lines.append([(upper, edge), (lower, canvas.height)])
        if kind == 1:
            rows = edge + depth * (np.linspace(0, 1, 7) ** 1.5)
            lines += [[(0, row), (canvas.width, row)] for row in rows]
        canvas.strokes(lines, 1.0, scaled(tone, 0.72), 0.75)
        grain(canvas, edge, canvas.height, "hair75" if kind == 0 else "cloud", 0.05)
    else:
        grain(canvas, edge, canvas.height, "coarse", 0.05)


def _window(canvas: Canvas, x: float, edge: float) -> None:
    rng = canvas.rng
    width, height = canvas.width * rng.uniform(0.2, 0.3), edge * rng.uniform(0.45, 0.62)
    y = edge * 0.1
    frame = Material((240, 238, 232), "", 0, 0.15, 0.3)
    outer = [(x - 5, y - 5), (x + width + 5, y - 5), (x + width + 5, y + height + 5), (x - 5, y + height + 5)]
    canvas.polygon(outer, frame)
    sky = Material((190, 215, 238), "cloud", 0.05, 0)
    canvas.polygon([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], sky)
    garden = [(x, y + height * 0.7), (x + width, y + height * 0.62), (x + width, y + height), (x, y + height)]
    canvas.polygon(garden, Material((120, 150, 100), "coarse", 0.12, 0))
    bars = [[(x + width / 2, y), (x + width / 2, y + height)], [(x, y + height / 2), (x + width, y + height / 2)]]
    canvas.strokes(bars, 3.0, frame.colour)
    if rng.random() < 0.6:
        cloth = Material(_muted(rng), "hair90", 0.09, 0.2)
        for left, inner in ((x - 14, x + width * 0.2), (x + width * 0.8, x + width + 14)):
            canvas.polygon([(left, y - 8), (inner, y - 8), (inner, y + height + 16), (left, y + height + 16)], cloth)


def _picture(canvas: Canvas, x: float, y: float) -> None:
    rng = canvas.rng
    width, height = rng.uniform(26, 60), rng.uniform(24, 52)
    corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
    wood = mixed((60, 45, 35), (200, 170, 110), rng.random())
    canvas.polygon(np.add(corners, (2, 3)), Material((60, 55, 50), roundness=0))
    canvas.polygon(corners, Material(wood, "", 0, 0.15))
    inner = corners + np.array([(4, 4), (-4, 4), (-4, -4), (4, -4)])
    canvas.polygon(inner, Material(_muted(rng), "cloud", 0.2, 0, pattern=Pattern("blotch", _muted(rng), 0.4)))


def _rug(canvas: Canvas, edge: float) -> None:
    rng = canvas.rng
    depth = canvas.height - edge
    centre, half = canvas.width * rng.uniform(0.35, 0.65), canvas.width * rng.uniform(0.2, 0.36)
    top, bottom = edge + depth * rng.uniform(0.12, 0.35), edge + depth * rng.uniform(0.65, 0.95)
    cloth = _muted(rng)
    for inset, shade in ((0.0, 1.0), (0.08, 1.25), (0.16, 0.85)):
        near, far = half * (1.12 - inset), half * (0.9 - inset)
        dy = (bottom - top) * inset
        corners = [(centre - far, top + dy), (centre + far, top + dy)]
        corners += [(centre + near, bottom - dy), (centre - near, bottom - dy)]
        canvas.polygon(corners, Material(scaled(cloth, shade), "weave", 0.06, 0))


def studio(canvas: Canvas) -> Place:
    """A seamless backdrop."""
    rng = canvas.rng
    tone: Colour = tuple(rng.uniform(90, 235, 3) * 0.35 + rng.uniform(90, 220) * 0.65)
    edge = canvas.height * rng.uniform(0.45, 0.65)
    gradient(canvas, 0, edge, scaled(tone, 0.85), tone)
    gradient(canvas, edge, canvas.height, tone, scaled(tone, rng.uniform(0.75, 1.1)))
    grain(canvas, 0, canvas.height, "cloud", 0.03)
    return Place("studio", edge, shadow=0.4)


def sky_only(canvas: Canvas) -> Place:
    """Nothing but sky, for what flies."""
    _sky(canvas, canvas.height)
    return Place("sky", canvas.height * 0.5, shadow=0.0)


def under_water(canvas: Canvas) -> Place:
    """A blue-green depth with weeds and a bed of sand, for fish."""
    rng = canvas.rng
    tone: Colour = [(40, 110, 140), (60, 130, 120), (30, 80, 120)][rng.integers(3)]
    gradient(canvas, 0, canvas.height, mixed(tone, (170, 220, 220), 0.45), scaled(tone, 0.7))
    grain(canvas, 0, canvas.height, "cloud", 0.06)
    bed = canvas.height * rng.uniform(0.82, 0.92)
    gradient(canvas, bed, canvas.height, mixed((190, 175, 135), tone, 0.35), mixed((170, 150, 110), tone, 0.3))
    grain(canvas, bed, canvas.height, "fine", 0.07)
    for _ in range(rng.integers(2, 7)):
        x, height = rng.uniform(0, canvas.width), canvas.height * rng.uniform(0.15, 0.4)
        sway = rng.uniform(-14, 14, 4)
        line = np.column_stack([x + sway, np.linspace(canvas.height, canvas.height - height, 4)])
        weed = Material((50, rng.uniform(90, 130), 60), "", 0, 0.5)
        canvas.tube(smooth_open(line, 4), np.linspace(5, 1, 13), weed)
    return Place("under water", canvas.height * 0.5, shadow=0.0)


def table_top(canvas: Canvas) -> Place:
    """A near table or counter before a blurred room, for small things."""
    place = room(canvas)
    defocus(canvas, 5.0)
    edge = canvas.height * canvas.rng.uniform(0.58, 0.7)
    wood = mixed((150, 105, 68), (225, 220, 212), canvas.rng.random())
    gradient(canvas, edge, canvas.height, scaled(wood, 1.05), scaled(wood, 0.85))
    grain(canvas, edge, canvas.height, "hair0", 0.06)
    return Place("table", edge + 10, indoors=True, shadow=place.shadow)


PLACES: dict[str, Callable[[Canvas], Place]] = {
    "meadow": meadow,
    "plain": plain,
    "beach": beach,
    "water": water,
    "street": street,
    "room": room,
    "studio": studio,
    "sky": sky_only,
    "under water": under_water,
    "table": table_top,
}


def photograph(
    canvas: Canvas, noise: float, blur: float, tint: Colour, exposure: float, contrast: float
) -> NDArray[np.uint8]:
    """What a camera makes of the canvas: exposure, contrast about mid-grey, white balance, vignette, blur and
    sensor noise. Returns uint8 RGB (height, width, 3)."""
    if blur > 0.25:
        defocus(canvas, blur)
    y = np.linspace(-1, 1, canvas.height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, canvas.width, dtype=np.float32)[None, :]
    vignette = (1.04 - 0.11 * (x * x + y * y)) * np.float32(exposure * contrast)
    left, top = canvas.rng.integers(0, 256, 2)
    grain_tile = texture_tile("grain")[top : top + canvas.height, left : left + canvas.width]
    offset = np.float32(noise) * grain_tile + np.float32(118 * (1 - contrast))
    picture = np.empty((canvas.height, canvas.width, 3), np.uint8)
    for channel, gain in enumerate(tint):
        plane = canvas.pixels[channel] * (vignette * np.float32(gain))
        plane += offset
        picture[..., channel] = np.clip(plane, 0, 255, out=plane)
    return picture
