"""Cars and buses seen from any side; bicycles, boats and aeroplanes from curves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from talking_points.sources.drawn.canvas import Colour, Material, Pen, ellipse_points, mixed, scaled
from talking_points.sources.drawn.curves import Points, smooth_open
from talking_points.sources.drawn.solids import Model

_PAINTS: list[Colour] = [
    (188, 40, 40), (38, 78, 150), (214, 214, 216), (58, 60, 64), (150, 156, 160), (226, 186, 60), (60, 110, 80),
    (232, 230, 222), (120, 40, 50), (90, 140, 170), (200, 110, 50),
]  # fmt: skip
_RUBBER = Material((44, 44, 46), "fine", 0.05, 0.2, 0.35)
_GLASS = Material((74, 92, 104), "cloud", 0.12, 0.25, 0.2, 0.15)
_CHROME = Material((196, 200, 204), "", 0, 0.5, 0.5, 0.4)
_DARK = Material((48, 50, 54), "", 0, 0.3, 0.3)


def paint(rng: np.random.Generator) -> Material:
    """Glossy car paint."""
    colour: Colour = tuple(np.clip(np.asarray(_PAINTS[rng.integers(len(_PAINTS))]) * rng.uniform(0.85, 1.1), 20, 240))
    return Material(colour, "", 0.0, 0.3, 0.3, 0.3)


def _wheel(model: Model, centre: tuple[float, float, float], radius: float, copy: int, spokes: int) -> None:
    """A wheel standing in the x-y plane: tyre, rim, spokes and hub."""
    pen, (x, y, z) = model.pen, centre
    circle = ellipse_points((0, 0), (1, 1))

    def ring(size: float) -> Points:
        return model.flat(
            np.column_stack(
                [x + circle[:, 0] * radius * size, y + circle[:, 1] * radius * size, np.full(len(circle), z)]
            )
        )

    pen.shape("wheel", ring(1.0), _RUBBER, smooth=False, copy=copy)
    pen.shape("wheel", ring(0.66), replace(_CHROME, roundness=0.25), smooth=False, copy=copy)
    turns = np.linspace(0, 2 * np.pi, spokes, endpoint=False)
    lines = [model.flat([(x, y, z), (x + np.cos(t) * radius * 0.6, y + np.sin(t) * radius * 0.6, z)]) for t in turns]
    pen.strokes(lines, radius * 0.09, (92, 96, 100), 0.9)
    pen.detail(ring(0.16), _DARK, smooth=False)


_PROFILES: dict[str, list[tuple[float, float, float]]] = {
    "sedan": [
        (1.0, 0.16, 0.38), (1.04, 0.34, 0.39), (0.98, 0.46, 0.4), (0.5, 0.56, 0.4), (0.2, 0.84, 0.33),
        (-0.3, 0.86, 0.33), (-0.68, 0.6, 0.39), (-0.98, 0.56, 0.39), (-1.03, 0.4, 0.39), (-1.0, 0.16, 0.38),
    ],
    "hatchback": [
        (0.9, 0.17, 0.38), (0.94, 0.36, 0.39), (0.86, 0.52, 0.4), (0.5, 0.6, 0.4), (0.16, 0.94, 0.34),
        (-0.56, 0.94, 0.34), (-0.84, 0.66, 0.39), (-0.9, 0.5, 0.39), (-0.92, 0.36, 0.39), (-0.88, 0.17, 0.38),
    ],
    "wagon": [
        (1.0, 0.2, 0.4), (1.04, 0.4, 0.41), (0.98, 0.56, 0.42), (0.56, 0.64, 0.42), (0.3, 1.02, 0.36),
        (-0.8, 1.04, 0.36), (-0.98, 0.7, 0.41), (-1.0, 0.55, 0.41), (-1.02, 0.4, 0.41), (-0.98, 0.2, 0.4),
    ],
}  # fmt: skip


def draw_car(pen: Pen, rng: np.random.Generator, kind: str | None = None) -> None:
    """A car from the side, the front quarter or the rear quarter; ``kind`` is a profile, any when left out."""
    drawn = list(_PROFILES)[rng.integers(len(_PROFILES))]
    profile = np.array(_PROFILES[kind or drawn]) * (1, rng.uniform(0.94, 1.06), 1)
    yaw = rng.uniform(-0.15, 0.15) if rng.random() < 0.3 else rng.uniform(0.3, 1.0) * rng.choice((-1, 1))
    model = Model(pen, yaw, rng.uniform(0.08, 0.22), 7.0)
    surface = paint(rng)
    radius, spokes = rng.uniform(0.18, 0.21), int(rng.integers(5, 10))
    near = np.column_stack([profile[:, :2], profile[:, 2]])
    far = near * (1, 1, -1)
    wheels = [(0.62, radius, 0.38), (-0.6, radius, 0.38)]
    floor = np.array([(1.0, 0.13, 0.3), (1.0, 0.13, -0.3), (-1.0, 0.13, -0.3), (-1.0, 0.13, 0.3)])
    pen.shape(None, model.flat(floor), _DARK.shaded(0.6), smooth=False)
    for copy, (x, y, z) in enumerate(wheels):
        _wheel(model, (x, y, -z * 0.7), radius, copy + 2, spokes)
    names = ["front bumper", "front", "hood", "windshield", "roof", "rear window", "trunk", "back", "rear bumper"]
    strips = []
    for index, name in enumerate(names):
        quad = np.array([near[index], near[index + 1], far[index + 1], far[index]])
        normal = np.cross(quad[2] - quad[0], quad[1] - quad[0])
        middle = quad.mean(axis=0)
        if model.faces_viewer(normal, middle):
            strips.append((float(model.rotation[2] @ middle), name, quad, normal / np.linalg.norm(normal)))
    side_first = abs(yaw) > 0.75
    if side_first:
        _car_side(model, near, surface, wheels, radius, spokes)
    for _, name, quad, normal in sorted(strips, key=lambda strip: strip[0]):
        _car_strip(model, name, quad, normal, surface)
    if not side_first:
        _car_side(model, near, surface, wheels, radius, spokes)
    mirror = model.flat([(0.34, 0.62, 0.44)])[0]
    pen.ellipse("mirror", (mirror[0], mirror[1]), (0.06, 0.045), surface.shaded(0.85))
    lamps = [near[low] * 0.45 + near[low + 1] * 0.55 for low in (1, 7)]  # the middles of the strips that carry them
    corners = [np.array((*wheel[:2], 0.38)) for wheel in wheels]
    _vehicle_landmarks(model, [*corners, *lamps, near[4], near[5]], (0.7, 0.76), near[9])


def _vehicle_landmarks(
    model: Model, near: list[NDArray[np.float64]], shares: tuple[float, float], tail: NDArray[np.float64]
) -> None:
    """The 13 landmarks of a vehicle whose front is at +x, from those of its near side (z > 0).

    ``near``: both wheels, both lamps, both ends of the roof. ``shares``: how far out the far wheels and the lamps are
    drawn. ``tail``: the lower end of the back; the exhaust is below it, on the vehicle's right.
    """
    sides = ("left", "right") if model.pen.mirrored else ("right", "left")
    names = ("front wheel", "rear wheel", "headlight", "taillight", "front of roof", "rear of roof")
    parts = ("wheel", "wheel", "headlight", "taillight", None, None)
    for number, side in enumerate(sides):
        for name, part, point in zip(names, parts, near, strict=True):
            share = shares[1] if part and part != "wheel" else shares[0] if number and part else 1.0
            model.landmark(f"{side} {name}", point * (1, 1, share * (1 - 2 * number)), part)
    right = 1 - 2 * sides.index("right")
    model.landmark("exhaust", (tail[0], tail[1], tail[2] * 0.6 * right))


def _car_side(
    model: Model,
    near: NDArray[np.float64],
    surface: Material,
    wheels: list[tuple[float, float, float]],
    radius: float,
    spokes: int,
) -> None:
    """The flank that faces the viewer, with windows, doors and wheels."""
    pen = model.pen
    lower, roof = near[[0, 1, 2, 3, 6, 7, 8, 9]], near[[3, 4, 5, 6]]
    flank = model.lit(surface, (0, 0.1, 1))
    pen.shape("side", model.flat(lower), replace(flank, relief=0.2), smooth=False)
    pen.shape("side", model.flat(roof), replace(flank, relief=0.15), smooth=False)
    base_front, top_front, top_rear, base_rear = roof
    split = (top_front[0] + top_rear[0]) / 2 - 0.05

    def pane(x_low: tuple[float, float], x_high: tuple[float, float], copy: int) -> None:
        (a0, b0), (a1, b1) = x_low, x_high
        z0, z1 = base_front[2] * 0.99, top_front[2]
        y0, y1 = base_front[1] + 0.03, top_front[1] - 0.045
        quad = [(a0, y0, z0), (a1, y1, z1), (b1, y1, z1), (b0, y0, z0)]
        pen.shape("window", model.flat(quad), _GLASS, smooth=False, copy=copy)

    pane((base_front[0] - 0.11, split + 0.025), (top_front[0] - 0.01, split + 0.025), 0)
    pane((split - 0.025, base_rear[0] + 0.13), (split - 0.025, top_rear[0] + 0.03), 1)
    z = near[3, 2]
    y0, y1 = 0.2, base_front[1] + 0.02
    for copy, (x0, x1) in enumerate(((base_front[0] - 0.06, split), (split, max(base_rear[0] + 0.04, -0.42)))):
        door = [(x0, y1, z), (x0 - 0.02, y0, z - 0.01), (x1, y0, z - 0.01), (x1, y1, z)]
        pen.shape("door", model.flat(door), replace(flank, relief=0.1), smooth=False, copy=copy)
        pen.strokes([model.flat([*door, door[0]])], 0.012, scaled(flank.colour, 0.5), 0.8)
        handle = [(x1 + 0.05, y1 - 0.08, z), (x1 + 0.15, y1 - 0.08, z)]
        pen.strokes([model.flat(handle)], 0.025, scaled(flank.colour, 0.45), 0.9)
    sill = [(0.95, 0.19, z), (-0.95, 0.19, z)]
    pen.strokes([model.flat(sill)], 0.02, scaled(flank.colour, 0.5), 0.7)
    for copy, (x, y, z_wheel) in enumerate(wheels):
        arch = ellipse_points((x, y + 0.015), (radius * 1.2, radius * 1.2))
        ring = np.column_stack([arch[:, 0], np.maximum(arch[:, 1], 0.12), np.full(len(arch), z_wheel + 0.015)])
        pen.detail(model.flat(ring), _DARK.shaded(0.6), smooth=False)
        _wheel(model, (x, y, z_wheel + 0.02), radius, copy, spokes)


def _car_strip(
    model: Model, name: str, quad: NDArray[np.float64], normal: NDArray[np.float64], surface: Material
) -> None:
    """One surface across the car's width and what sits on it."""
    pen = model.pen
    glass = name in ("windshield", "rear window")
    lit = model.lit(surface, normal)
    pen.shape(None if glass else name, model.flat(quad), replace(lit, relief=0.15), smooth=False)
    low_near, high_near, high_far, low_far = quad

    def spot(u: float, v: float) -> NDArray[np.float64]:
        near, far = low_near + (high_near - low_near) * v, low_far + (high_far - low_far) * v
        return near + (far - near) * u

    def patch(part: str | None, u0: float, v0: float, u1: float, v1: float, material: Material, copy: int = 0) -> None:
        points = model.flat([spot(u0, v0), spot(u1, v0), spot(u1, v1), spot(u0, v1)])
        if part is None:
            pen.detail(points, material, smooth=False)
        else:
            pen.shape(part, points, material, smooth=False, copy=copy)

    plate = Material((236, 234, 222), "fine", 0.04, 0.1)
    if glass:
        patch("windshield" if name == "windshield" else "rear window", 0.08, 0.08, 0.92, 0.92, _GLASS.shaded(1.1))
        if name == "windshield":
            lines = [model.flat([spot(u, 0.1), spot(u + 0.22, 0.3)]) for u in (0.2, 0.5)]
            pen.strokes(lines, 0.014, (30, 32, 34), 0.9)
    elif name == "front":
        patch(None, 0.28, 0.1, 0.72, 0.85, _DARK)
        bars = [model.flat([spot(0.3, v), spot(0.7, v)]) for v in (0.3, 0.5, 0.7)]
        pen.strokes(bars, 0.012, (150, 154, 158), 0.9)
        lamp = Material((246, 244, 226), "", 0, 0.6, 0.4, 0.3)
        for copy, u in enumerate((0.03, 0.79)):
            patch("headlight", u, 0.2, u + 0.18, 0.9, lamp, copy)
        logo = model.flat([spot(0.5, 0.8)])[0]
        pen.ellipse("logo", (logo[0], logo[1]), (0.03, 0.03), _CHROME)
    elif name in ("front bumper", "rear bumper"):
        patch(None, 0.0, 0.1, 1.0, 0.45, _DARK.shaded(1.2))
        patch("license plate", 0.36, 0.4, 0.64, 0.95, plate, int(name == "rear bumper"))
    elif name == "back":
        for copy, u in enumerate((0.03, 0.77)):
            patch("taillight", u, 0.2, u + 0.2, 0.85, Material((190, 30, 30), "", 0, 0.5, 0.4, 0.2), copy)


def draw_bus(pen: Pen, rng: np.random.Generator) -> None:
    """A bus or coach: a long box with windows, doors, lamps and mirrors; its front is its right end."""
    model = Model(pen, rng.uniform(-0.9, 0.5), rng.uniform(0.06, 0.2), 9.0)
    surface = replace(paint(rng), gloss=0.1, relief=0.12, roundness=0.12)
    half, wide, floor, top = rng.uniform(1.2, 1.5), 0.42, 0.16, rng.uniform(1.05, 1.2)
    if rng.random() < 0.35:
        model.rotation[:, [0, 2]] *= -1.0
    body = model.box("side", (-half, floor, -wide), (half, top, wide), surface)
    second = surface.shaded(0.72) if rng.random() < 0.5 else Material((230, 228, 222), "", 0, 0.1)
    body.panel("front", 0.0, 0.66, 1.0, 0.8, second).panel("back", 0.0, 0.66, 1.0, 0.8, second)
    panes = int(rng.integers(5, 8))
    for face in ("front", "back"):
        for copy in range(panes):
            u0 = 0.04 + copy * 0.92 / panes
            body.panel(
                face, u0 + 0.008, 0.12, u0 + 0.92 / panes - 0.008, 0.48, _GLASS, part="window", copy=copy, corner=0.015
            )
    for copy, u in enumerate((0.83, 0.45)):
        body.panel("front", u, 0.1, u + 0.11, 0.97, surface.shaded(0.7), part="door", copy=copy)
        for shift in (0.008, 0.06):
            body.panel("front", u + shift, 0.14, u + shift + 0.043, 0.9, _GLASS, part="door", copy=copy)
    body.panel("top", 0, 0, 1, 1, surface.shaded(1.05), part="roof")
    body.panel("right", 0, 0, 1, 1, surface, part="front").panel("left", 0, 0, 1, 1, surface.shaded(0.95), part="back")
    body.panel("right", 0.06, 0.14, 0.94, 0.56, _GLASS, part="window", copy=20, corner=0.05)
    body.panel("right", 0.25, 0.03, 0.75, 0.11, Material((34, 30, 24), roundness=0))
    body.panel("right", 0.3, 0.05, 0.7, 0.09, Material((240, 170, 60), "fine", 0.3, 0))
    body.panel("left", 0.12, 0.14, 0.88, 0.46, _GLASS, part="window", copy=21, corner=0.05)
    lamp = Material((248, 244, 222), "", 0, 0.6, 0.4, 0.3)
    for copy, u in enumerate((0.06, 0.78)):
        body.panel("right", u, 0.74, u + 0.16, 0.84, lamp, part="headlight", copy=copy, corner=0.03)
        body.panel("left", u, 0.72, u + 0.1, 0.86, Material((180, 30, 30), "", 0, 0.5), part="taillight", copy=copy)
    body.panel("right", 0.38, 0.87, 0.62, 0.94, Material((236, 234, 222), "fine", 0.04, 0.1), part="license plate")
    body.panel("right", 0.0, 0.94, 1.0, 1.0, _DARK, part="front bumper").panel(
        "left", 0.0, 0.94, 1.0, 1.0, _DARK, part="rear bumper"
    )
    model.draw()
    for copy, x in enumerate((half * 0.68, -half * 0.6)):
        for z in (wide + 0.005, -wide - 0.005):
            if model.faces_viewer((0, 0, np.sign(z)), (x, 0.2, z)):
                _wheel(model, (x, 0.17, z), 0.17, copy, 8)
    for copy, z in enumerate((wide + 0.06, -wide - 0.06)):
        spot = model.flat([(half + 0.02, top * 0.72, z)])[0]
        if copy == 0 or model.faces_viewer((1, 0, 0), (half, 0.5, 0)):
            pen.ellipse("mirror", (spot[0], spot[1]), (0.035, 0.08), _DARK, copy=copy)
    lamp_height = top - 0.79 * (top - floor)
    places = [(half * 0.68, 0.17), (-half * 0.6, 0.17), (half, lamp_height), (-half, lamp_height), (half, top)]
    near = [np.array((x, y, wide)) for x, y in [*places, (-half, top)]]
    _vehicle_landmarks(model, near, (1.0, 0.74), np.array((-half, floor, wide)))


def draw_bicycle(pen: Pen, rng: np.random.Generator) -> None:
    """A bicycle from the side, its front wheel to the right."""
    radius, base = 0.34, rng.uniform(0.98, 1.08)
    rear, front = np.array([0.0, -radius]), np.array([base, -radius])
    colour = paint(rng)
    tube = replace(colour, roundness=0.6)
    metal = Material((150, 152, 156), "", 0, 0.6, 0.5, 0.3)
    crank = np.array([0.42, -radius + 0.03])
    saddle_post, head = np.array([0.27, -0.86]), np.array([base - 0.2, -0.84])
    for copy, centre in enumerate((rear, front)):
        _spoked_wheel(pen, centre, radius, copy, int(rng.integers(16, 28)), rng)
    far = metal.shaded(0.6)
    pen.limb("pedal", [crank, np.add(crank, (-0.1, -0.13))], [0.014, 0.014], far)
    thick = rng.uniform(0.018, 0.028)
    crossbar = saddle_post * 0.8 + crank * 0.2 if rng.random() < 0.7 else saddle_post * 0.4 + crank * 0.6
    for start, end in ((rear, crank), (rear, saddle_post * 0.82 + crank * 0.18)):
        pen.limb("frame", [start, end], [thick * 0.7, thick * 0.8], tube)
    for start, end in ((crank, saddle_post), (crossbar, np.add(head, (0, 0.04))), (crank, np.add(head, (0.02, 0.1)))):
        pen.limb("frame", [start, end], [thick, thick], tube)
    fork = np.array([np.add(head, (0.0, -0.02)), np.add(head, (0.05, 0.16)), front])
    pen.limb("frame", fork, [thick * 1.1, thick, thick * 0.7], tube)
    if rng.random() < 0.55:
        for centre in (rear, front):
            turn = np.linspace(-2.6, -0.9, 9) if centre is rear else np.linspace(-2.3, -0.7, 9)
            guard = centre + np.column_stack([np.cos(turn), np.sin(turn)]) * (radius + 0.03)
            pen.limb("frame", guard, [0.012] * 9, colour.shaded(0.85))
    pen.ellipse("chainwheel", (crank[0], crank[1]), (0.085, 0.085), metal)
    pen.detail(ellipse_points((crank[0], crank[1]), (0.055, 0.055)), _DARK, smooth=False)
    chain = [
        [np.add(crank, (0, -0.08)), np.add(rear, (0, -0.035))],
        [np.add(crank, (0, 0.08)), np.add(rear, (0, 0.035))],
    ]
    pen.strokes(chain, 0.014, (60, 58, 56), 0.9)
    pen.limb("pedal", [crank, np.add(crank, (0.1, 0.13))], [0.014, 0.014], metal)
    pen.limb("pedal", [np.add(crank, (0.04, 0.14)), np.add(crank, (0.16, 0.14))], [0.016, 0.016], _DARK)
    seat = np.add(saddle_post, (0.0, -0.02))
    leather = Material(((50, 44, 42), (120, 78, 48))[rng.integers(2)], "fine", 0.05, 0.5)
    outline = [(-0.13, -0.05), (-0.02, -0.06), (0.16, -0.035), (0.17, -0.015), (0.02, 0.0), (-0.1, 0.03), (-0.14, 0.0)]
    pen.shape("saddle", np.array(outline) * 1.05 + seat, leather)
    _handlebar(pen, head, metal, rng)


def _spoked_wheel(pen: Pen, centre: Points, radius: float, copy: int, spokes: int, rng: np.random.Generator) -> None:
    """Tyre, rim, spokes and hub. As annotators do, the open disc between the spokes counts as wheel."""
    pen.claim("wheel", ellipse_points((centre[0], centre[1]), (radius, radius), n=40), copy=copy)
    turn = rng.uniform(0, 1) + np.linspace(0, 2 * np.pi, spokes, endpoint=False)
    rim = centre + np.column_stack([np.cos(turn), np.sin(turn)]) * radius * 0.92
    hubs = centre + np.column_stack([np.cos(turn + 1.2), np.sin(turn + 1.2)]) * radius * 0.06
    pen.strokes([[hub, end] for hub, end in zip(hubs, rim, strict=True)], 0.006, (176, 178, 182), 0.9)
    circle = ellipse_points((centre[0], centre[1]), (radius * 0.955, radius * 0.955), n=40)
    closed = np.vstack([circle, circle[:1]])
    pen.strokes([closed], radius * 0.11, (36, 36, 38))
    inner = centre + (closed - centre) * 0.93
    pen.strokes([inner], radius * 0.05, (186, 188, 192), 0.9)
    hub_metal = Material((150, 152, 156), "", 0, 0.6, 0.5, 0.3)
    pen.ellipse("wheel", (centre[0], centre[1]), (0.028, 0.028), hub_metal, copy=copy)


def _handlebar(pen: Pen, head: Points, metal: Material, rng: np.random.Generator) -> None:
    stem = np.add(head, (-0.02, -0.1))
    pen.limb("handlebar", [np.add(head, (0, 0.02)), stem], [0.018, 0.018], metal)
    style = rng.integers(3)
    if style == 0:
        path = [
            stem,
            np.add(stem, (0.12, -0.02)),
            np.add(stem, (0.17, 0.06)),
            np.add(stem, (0.1, 0.13)),
            np.add(stem, (0.0, 0.12)),
        ]
    elif style == 1:
        path = [np.add(stem, (0.05, -0.02)), np.add(stem, (-0.06, -0.07)), np.add(stem, (-0.2, -0.04))]
    else:
        path = [np.add(stem, (0.08, 0.0)), np.add(stem, (0.0, -0.03)), np.add(stem, (-0.09, -0.02))]
    pen.limb("handlebar", path, [0.02] * len(path), metal)
    pen.limb("handlebar", path[-2:], [0.027, 0.027], _DARK)
    if rng.random() < 0.55:
        lamp = np.add(head, (0.06, 0.0))
        pen.ellipse("headlight", (lamp[0], lamp[1]), (0.05, 0.045), metal)
        pen.ellipse("headlight", (lamp[0] + 0.03, lamp[1]), (0.02, 0.04), Material((250, 246, 220), "", 0, 0.5))


def draw_aeroplane(pen: Pen, rng: np.random.Generator) -> None:
    """An airliner from the side and a little below or above, its nose to the right."""
    body = Material((232, 234, 238), "", 0, 0.6, 0.35, 0.1, under=(196, 202, 212))
    trim = paint(rng)
    below = rng.random() < 0.5
    metal = Material((186, 192, 200), "", 0, 0.35, 0.3, 0.1)
    lean = rng.uniform(0.8, 1.2)
    far_wing = [(0.22, -0.02), (-0.02, -0.02), (-0.3, -0.34 * lean), (-0.2, -0.36 * lean)]
    pen.shape("wing", far_wing, metal.shaded(0.82), smooth=False, copy=1)
    pen.shape(
        "stabilizer",
        [(-0.78, -0.05), (-0.92, -0.05), (-1.08, -0.17), (-0.98, -0.18)],
        metal.shaded(0.8),
        smooth=False,
        copy=1,
    )
    fin = [(-0.66, -0.08), (-0.84, -0.36), (-1.0, -0.38), (-0.96, -0.06)]
    pen.shape("tail", fin, replace(trim, roundness=0.15), smooth=False)
    outline = [
        (1.0, 0.03), (0.92, -0.05), (0.78, -0.105), (0.4, -0.12), (-0.4, -0.12), (-0.8, -0.1), (-1.02, -0.06),
        (-1.04, -0.03), (-0.8, 0.04), (-0.4, 0.11), (0.3, 0.12), (0.8, 0.1), (0.95, 0.07),
    ]  # fmt: skip
    pen.shape("body", outline, body)
    pen.shape(
        "stern",
        [(-0.62, -0.112), (-0.8, -0.1), (-1.02, -0.06), (-1.04, -0.03), (-0.8, 0.04), (-0.6, 0.08)],
        replace(body, colour=mixed(body.colour, trim.colour, 0.35)),
    )
    nose = [(1.0, 0.03), (0.92, -0.05), (0.78, -0.105), (0.72, -0.108), (0.72, 0.105), (0.8, 0.1), (0.95, 0.07)]
    pen.shape("nose cone", nose, body)
    pen.detail([(0.9, -0.055), (0.8, -0.085), (0.79, -0.05), (0.9, -0.03)], _GLASS, smooth=False)
    pen.strokes([smooth_open([(0.95, 0.03), (0.3, 0.02), (-0.6, 0.0), (-1.0, -0.03)], 6)], 0.022, trim.colour, 0.9)
    spots = [ellipse_points((x, -0.035), (0.013, 0.018), n=10) for x in np.linspace(-0.6, 0.68, 22)]
    pen.canvas.polygons([pen.project(spot) for spot in spots], replace(_GLASS, texture="", roundness=0, gloss=0))
    for copy, x in enumerate((0.7, -0.62)):
        pen.shape(
            "door",
            [(x, -0.06), (x + 0.035, -0.06), (x + 0.035, 0.05), (x, 0.05)],
            body.shaded(0.85),
            smooth=False,
            copy=copy,
        )
    drop = 0.34 * lean if below else 0.2
    near_wing = [(0.25, 0.05), (-0.08, 0.07), (-0.5, drop + 0.08), (-0.34, drop + 0.06)]
    pod = Material((170, 176, 184), "", 0, 0.6, 0.4, 0.15)
    pen.shape("wing", near_wing, metal, smooth=False, copy=0)
    for copy, (x, y) in enumerate(((0.1, 0.13), (-0.14, 0.06 + drop * 0.62))):
        if copy and rng.random() < 0.5:
            break
        pen.shape(
            "engine",
            [(x + 0.13, y - 0.05), (x - 0.06, y - 0.045), (x - 0.12, y), (x - 0.06, y + 0.05), (x + 0.13, y + 0.05)],
            pod,
            copy=copy,
        )
        pen.ellipse("engine", (x + 0.13, y), (0.018, 0.05), _DARK, copy=copy)
    pen.shape("stabilizer", [(-0.8, 0.0), (-0.94, -0.01), (-1.16, 0.09), (-1.04, 0.1)], metal, smooth=False)
    if rng.random() < 0.55:
        for copy, x in enumerate((0.66, 0.0)):
            pen.limb("landing gear", [(x, 0.1), (x, 0.2)], [0.012, 0.012], _CHROME, copy=copy)
            for shift in (-0.03, 0.03):
                pen.ellipse("wheel", (x + shift, 0.21), (0.03, 0.03), _RUBBER, copy=copy)


def draw_boat(pen: Pen, rng: np.random.Generator) -> None:
    """A sailing boat: hull, deck house, mast and one or two sails; the waterline is y = 0."""
    hull = replace(paint(rng), texture="hair0", strength=0.04)
    deck = Material((176, 130, 84), "hair0", 0.08, 0.3)
    high = rng.uniform(1.3, 1.7)
    mast = Material((150, 120, 86), "hair90", 0.08, 0.6)
    canvas_cloth = Material(
        ((240, 236, 224), (226, 206, 170), (206, 84, 66))[rng.integers(3)], "hair90", 0.025, 0.5, 0.3
    )
    pen.limb("mast", [(0.06, -0.2), (0.06, -high)], [0.025, 0.014], mast)
    belly = rng.uniform(0.05, 0.16)
    main = [
        (0.03, -high + 0.06),
        (0.03, -0.34),
        (-0.72, -0.34),
        (-0.42 - belly, -0.75),
        (-0.12 - belly * 0.6, -high * 0.75),
    ]
    pen.shape("sail", [*main[:3], *main[3:]], canvas_cloth, smooth=False)
    seams = [[(0.03, y), (-0.7 * (1 + (y + 0.34) / (high - 0.4)), y)] for y in np.linspace(-0.55, -high * 0.8, 4)]
    pen.strokes(seams, 0.008, scaled(canvas_cloth.colour, 0.75), 0.7)
    if rng.random() < 0.8:
        jib = [(0.1, -high + 0.18), (0.42 + belly, -0.7), (0.82, -0.3), (0.12, -0.36)]
        pen.shape("sail", jib, canvas_cloth.shaded(0.94), smooth=False, copy=1)
    pen.limb("mast", [(0.05, -0.32), (-0.74, -0.33)], [0.016, 0.014], mast)
    pen.shape(
        "deck",
        [(-0.5, -0.2), (-0.44, -0.34), (-0.02, -0.36), (0.06, -0.2)],
        Material((232, 228, 216), "", 0, 0.3),
        smooth=False,
    )
    for x in (-0.36, -0.2):
        pen.detail(ellipse_points((x, -0.27), (0.035, 0.03)), _GLASS, smooth=False)
    outline = [
        (-0.85, -0.24),
        (-0.4, -0.18),
        (0.2, -0.2),
        (1.0, -0.34),
        (0.82, -0.02),
        (0.6, 0.07),
        (-0.55, 0.08),
        (-0.78, -0.02),
    ]
    pen.shape("hull", outline, hull)
    rail = smooth_open([(-0.85, -0.235), (-0.4, -0.185), (0.2, -0.2), (0.98, -0.325)], 6)
    pen.strokes([rail], 0.03, deck.colour)
    pen.strokes([np.add(rail, (0, 0.09))], 0.015, mixed(hull.colour, (240, 240, 240), 0.6), 0.8)
