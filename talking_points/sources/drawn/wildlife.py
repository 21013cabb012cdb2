"""Birds, fish and snakes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from talking_points.sources.drawn.canvas import Colour, Material, Pattern, Pen, ellipse_points, mixed, scaled
from talking_points.sources.drawn.curves import ruffled, smooth_open


@dataclass(frozen=True)
class Plumage:
    """A kind of bird: colours of back, belly, head, wing and beak; lengths in units of the body's half length."""

    back: Colour
    belly: Colour
    head: Colour
    wing: Colour
    beak: Colour
    neck: float = 0.2
    leg: float = 0.4
    beak_length: float = 0.35
    tail: float = 0.8
    size: float = 0.5


BIRDS: dict[str, Plumage] = {
    "songbird": Plumage((122, 96, 72), (214, 190, 160), (110, 84, 62), (94, 74, 58), (90, 80, 70), leg=0.38),
    "robin": Plumage((110, 96, 80), (206, 108, 60), (104, 88, 74), (96, 84, 72), (86, 76, 64), leg=0.4),
    "blue tit": Plumage((84, 124, 170), (222, 206, 96), (64, 104, 160), (70, 108, 166), (60, 60, 64), beak_length=0.22),
    "goose": Plumage(
        (140, 124, 108),
        (200, 190, 176),
        (60, 54, 52),
        (124, 108, 94),
        (214, 136, 60),
        neck=0.75,
        leg=0.42,
        beak_length=0.4,
        tail=0.4,
        size=0.8,
    ),
    "black stork": Plumage(
        (44, 44, 54),
        (226, 222, 216),
        (40, 40, 48),
        (36, 38, 46),
        (196, 52, 44),
        neck=0.75,
        leg=1.2,
        beak_length=0.85,
        tail=0.35,
        size=0.8,
    ),
    "egret": Plumage(
        (240, 240, 240),
        (244, 244, 244),
        (242, 242, 242),
        (232, 232, 234),
        (224, 170, 60),
        neck=0.95,
        leg=1.2,
        beak_length=0.75,
        tail=0.35,
        size=0.8,
    ),
    "heron": Plumage(
        (110, 126, 150),
        (190, 196, 204),
        (120, 134, 156),
        (90, 106, 134),
        (196, 176, 96),
        neck=0.95,
        leg=1.15,
        beak_length=0.75,
        tail=0.35,
        size=0.8,
    ),
    "bee eater": Plumage(
        (184, 116, 56),
        (84, 168, 176),
        (170, 96, 46),
        (96, 150, 96),
        (44, 40, 40),
        neck=0.1,
        leg=0.22,
        beak_length=0.7,
        tail=0.95,
        size=0.5,
    ),
}


def draw_bird(pen: Pen, rng: np.random.Generator, kind: str) -> None:
    """A bird from the side, facing right; the ground is y = 0 and the body's half length is 1."""
    plumage = BIRDS[kind]
    tilt = rng.uniform(-0.45, 0.0) if plumage.neck < 0.4 else rng.uniform(-0.35, -0.1)
    cos, sin = np.cos(tilt), np.sin(tilt)
    turn = np.array([[cos, -sin], [sin, cos]])
    centre = np.array([0.0, -plumage.leg - 0.55])
    bright = rng.uniform(0.88, 1.08)

    def feathers(colour: Colour, angle: int) -> Material:
        return Material(scaled(colour, bright), f"hair{angle}", 0.085, 0.6, 0.34)

    def place(points: list[tuple[float, float]]) -> np.ndarray:
        return np.array(points) @ turn.T + centre

    horny = Material(scaled(plumage.beak, 0.95), "fine", 0.04, 0.6)
    sides = ("left", "right") if pen.mirrored else ("right", "left")  # near, far: the bird's own
    for copy, x in ((1, 0.14), (0, -0.02)):
        shade = 0.75 if copy else 1.0
        top = np.add(centre, (x, 0.4))
        foot = np.array([x + rng.uniform(-0.05, 0.12), -0.04 - 0.03 * copy])
        knee = np.add((top + foot) / 2, (-0.09 * plumage.leg, 0))
        pen.landmark(f"{sides[copy]} leg", (knee[0], knee[1]), "leg", copy)
        pen.limb("leg", [top, knee, foot], [0.1, 0.05, 0.036], horny.shaded(shade), copy=copy)
        for toe in ((0.26, 0.03), (0.2, -0.05), (-0.14, 0.03)):
            pen.limb("foot", [foot, foot + toe], [0.036, 0.018], horny.shaded(shade), copy=copy)
    length = plumage.tail
    tail = place([(-0.7, -0.18), (-1.0 - length, -0.02), (-1.02 - length, 0.14), (-0.72, 0.22)])
    pen.shape("tail", tail, feathers(plumage.wing, 0).shaded(0.88), smooth=False)
    body = [
        (-1.0, 0.0),
        (-0.6, -0.36),
        (0.0, -0.52),
        (0.6, -0.5),
        (0.92, -0.2),
        (0.86, 0.2),
        (0.4, 0.5),
        (-0.2, 0.5),
        (-0.7, 0.26),
    ]
    pen.shape("torso", place(body), replace(feathers(plumage.back, 15), under=scaled(plumage.belly, bright)))
    base = place([(0.66, -0.32)])[0]
    head = base + np.array([0.12 + plumage.neck * rng.uniform(0.2, 0.5), -0.24 - plumage.neck])
    bend = np.add((base + head) / 2, (plumage.neck * rng.uniform(-0.1, 0.25), 0))
    radius = 0.36 if plumage.neck < 0.4 else 0.24
    slim = radius if plumage.neck < 0.4 else 0.16
    pen.limb("neck", [np.add(base, (-0.1, 0.12)), bend, head], [0.4, slim, slim * 0.95], feathers(plumage.head, 75))
    beak = head + np.array([(radius * 0.75, -0.1), (radius + plumage.beak_length, 0.03), (radius * 0.75, 0.13)])
    pen.shape("beak", beak, horny, smooth=False)
    pen.strokes([[beak[0] * 0.5 + beak[2] * 0.5, beak[1]]], 0.025, scaled(horny.colour, 0.6), 0.8)
    pen.ellipse("head", (head[0], head[1]), (radius * 1.08, radius), feathers(plumage.head, 0))
    eye = np.add(head, (radius * 0.35, -radius * 0.18))
    pen.ellipse("eye", (eye[0], eye[1]), (0.085, 0.085), Material((26, 22, 20), roundness=0))
    pen.detail(
        ellipse_points((eye[0] - 0.025, eye[1] - 0.03), (0.025, 0.025), n=8),
        Material((250, 250, 250), roundness=0),
        smooth=False,
    )
    wing = place([(0.55, -0.3), (0.1, -0.44), (-0.6, -0.3), (-1.25, 0.0), (-0.8, 0.12), (-0.1, 0.28), (0.42, 0.14)])
    pen.shape("wing", wing, feathers(plumage.wing, 15))
    quills = [
        [place([(x, -0.05)])[0], place([(x - 0.62, 0.08 + 0.05 * i)])[0]] for i, x in enumerate((0.1, -0.1, -0.3, -0.5))
    ]
    pen.strokes(quills, 0.03, scaled(plumage.wing, 0.62), 0.7)
    on_body = {"back": (-0.15, -0.46), "belly": (0.0, 0.44), "breast": (0.8, 0.08), "tail": (-1.0 - length, 0.06)}
    on_body[f"{sides[0]} wing"] = (-0.1, -0.1)
    for name, point in on_body.items():
        x, y = place([point])[0]
        pen.landmark(name, (x, y))
    on_head = {"crown": (0.0, -0.9), "forehead": (0.75, -0.5), "nape": (-0.9, 0.15), "throat": (0.45, 0.8)}
    for name, point in on_head.items():
        x, y = head + np.array(point) * radius
        pen.landmark(name, (x, y))
    pen.landmark("beak", (beak[1, 0], beak[1, 1]))
    pen.landmark(f"{sides[0]} eye", (eye[0], eye[1]))


FISH: dict[str, tuple[Colour, Colour, float, Pattern | None]] = {
    "goldfish": ((232, 130, 44), (246, 190, 110), 0.42, None),
    "anemone fish": ((226, 108, 40), (236, 130, 60), 0.44, Pattern("stripes", (240, 238, 230), 1.05, 2.4)),
    "tench": ((96, 104, 62), (168, 158, 96), 0.34, None),
    "coho": ((120, 134, 146), (214, 216, 216), 0.26, Pattern("spots", (70, 80, 90), 1.3)),
    "killer whale": ((34, 36, 42), (232, 234, 236), 0.32, None),
    "great white shark": ((112, 122, 132), (226, 228, 228), 0.24, None),
}


_SEA_BEASTS = ("killer whale", "great white shark")
"""Fish by the dataset's reckoning: stiff fins and dark eyes."""


def draw_fish(pen: Pen, rng: np.random.Generator, kind: str) -> None:
    """A fish from the side, facing right, its body's half length 1 about the origin."""
    colour, under, depth, pattern = FISH[kind]
    bright = rng.uniform(0.88, 1.08)
    skin = Material(scaled(colour, bright), "weave", 0.035, 0.6, 0.35, 0.15, pattern, scaled(under, bright))
    fin = Material(scaled(mixed(colour, (60, 50, 50), 0.15), bright), "hair150", 0.13, 0.3, 0.25)
    wave, depth = rng.uniform(-0.12, 0.12), depth * rng.uniform(0.9, 1.12)
    span = depth * 1.15
    tail = [(-0.82, -0.06 + wave), (-1.3, -span + wave), (-1.2, wave * 1.3), (-1.3, span + wave), (-0.82, 0.08 + wave)]
    pen.shape("tail", tail, fin, smooth=kind not in _SEA_BEASTS)
    if kind in _SEA_BEASTS:
        pen.shape("fin", [(0.2, -depth * 0.8), (-0.12, -depth - 0.36), (-0.2, -depth * 0.75)], fin, smooth=False)
    else:
        pen.shape(
            "fin", [(0.35, -depth * 0.85), (0.1, -depth - 0.24), (-0.35, -depth - 0.16), (-0.5, -depth * 0.6)], fin
        )
    pen.shape(
        "fin", [(-0.05, depth * 0.8), (-0.2, depth + 0.2), (-0.42, depth + 0.12), (-0.4, depth * 0.6)], fin, copy=1
    )
    outline = [
        (1.0, 0.03), (0.82, -depth * 0.52), (0.4, -depth * 0.96), (-0.1, -depth), (-0.55, -depth * 0.55 + wave * 0.5),
        (-0.9, -0.09 + wave), (-0.9, 0.09 + wave), (-0.5, depth * 0.55 + wave * 0.5), (0.0, depth * 0.96),
        (0.5, depth * 0.86), (0.86, depth * 0.5),
    ]  # fmt: skip
    pen.shape("body", outline, skin)
    head = [
        (1.0, 0.03),
        (0.82, -depth * 0.52),
        (0.52, -depth * 0.86),
        (0.44, 0.0),
        (0.52, depth * 0.84),
        (0.86, depth * 0.5),
    ]
    pen.shape("head", head, skin.shaded(0.95))
    gill = smooth_open([(0.52, -depth * 0.6), (0.44, 0.0), (0.52, depth * 0.6)], 6)
    pen.strokes([gill], 0.03, scaled(colour, 0.55), 0.8)
    pen.strokes([smooth_open([(0.98, 0.08), (0.88, 0.12), (0.8, 0.1)], 4)], 0.025, scaled(colour, 0.45), 0.9)
    if kind == "killer whale":
        pen.detail(ellipse_points((0.62, -depth * 0.35), (0.13, 0.05), -0.2), Material((236, 238, 240)), smooth=False)
    eye = (0.74, -depth * 0.22)
    ring: Colour = (40, 40, 44) if kind in _SEA_BEASTS else (236, 226, 180)
    pen.ellipse("eye", eye, (0.062, 0.062), Material(ring, roundness=0))
    pen.detail(ellipse_points(eye, (0.038, 0.038), n=14), Material((16, 16, 18), roundness=0), smooth=False)
    side = [(0.36, depth * 0.2), (0.05, depth * 0.35), (-0.02, depth * 0.62), (0.2, depth * 0.5)]
    pen.shape("fin", side, fin.shaded(0.9), copy=2)


SNAKES: dict[str, tuple[Colour, Pattern | None]] = {
    "green snake": ((92, 150, 66), None),
    "garter snake": ((70, 72, 56), Pattern("blotch", (196, 180, 96), 0.6, 0.7)),
    "boa constrictor": ((150, 118, 84), Pattern("blotch", (72, 50, 38), 0.3, 0.8)),
    "diamondback": ((170, 150, 116), Pattern("spots", (92, 74, 54), 0.5, 1.8)),
    "hognose snake": ((160, 130, 90), Pattern("blotch", (80, 62, 44), 0.2, 0.6)),
}


def draw_snake(pen: Pen, rng: np.random.Generator, kind: str) -> None:
    """A snake winding over the ground with a raised head to the right; about 2 units long."""
    colour, pattern = SNAKES[kind]
    skin = Material(scaled(colour, rng.uniform(0.85, 1.1)), "weave", 0.06, 0.7, 0.42, 0.12, pattern)
    x = np.linspace(-1.0, 0.75, 9)
    amplitude, phase = rng.uniform(0.1, 0.2), rng.uniform(0, 2 * np.pi)
    y = -0.2 + amplitude * np.sin(x * rng.uniform(4.5, 6.5) + phase)
    path = np.column_stack([x, y])
    neck = [(0.92, y[-1] - 0.12), (1.0, y[-1] - 0.3)]
    thick = rng.uniform(0.075, 0.105)
    radii = [0.015, 0.045, 0.07, *[thick] * 4, thick * 0.95, thick * 0.85, thick * 0.75, thick * 0.7]
    pen.limb("body", np.vstack([path, neck]), radii, skin)
    head = np.array(neck[-1])
    outline = [(-0.1, -0.085), (0.06, -0.115), (0.2, -0.06), (0.27, 0.005), (0.2, 0.06), (0.04, 0.085), (-0.1, 0.07)]
    shape = np.array(outline) * (thick / 0.085) + head
    pen.shape("head", ruffled(shape, 0.0, 7, rng), skin.shaded(1.05), smooth=False)
    tip = shape[3]
    pen.strokes(
        [
            [tip, np.add(tip, (0.1, 0.01)), np.add(tip, (0.15, -0.03))],
            [np.add(tip, (0.1, 0.01)), np.add(tip, (0.15, 0.04))],
        ],
        0.012,
        (180, 40, 50),
    )
    eye = np.add(head, (0.1, -0.04))
    pen.ellipse("eye", (eye[0], eye[1]), (0.026, 0.026), Material((226, 190, 70), roundness=0))
    pen.detail(ellipse_points((eye[0], eye[1]), (0.01, 0.022), n=10), Material((14, 14, 14), roundness=0), smooth=False)
    pen.strokes([[np.add(tip, (-0.02, 0.025)), np.add(head, (0.04, 0.045))]], 0.012, scaled(colour, 0.5), 0.8)
