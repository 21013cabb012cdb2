"""Small things and people: bottles, potted plants, screens, clocks, and clothed figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from talking_points.sources.drawn.canvas import Colour, Material, Pattern, Pen, ellipse_points, mixed, scaled
from talking_points.sources.drawn.curves import rounded_box, ruffled, smooth_open
from talking_points.sources.drawn.solids import Model


def draw_bottle(pen: Pen, rng: np.random.Generator) -> None:
    """A bottle of glass or plastic with a cap and sometimes a label; height about 1."""
    shape = rng.integers(3)
    width, shoulder, neck = ((0.14, 0.62, 0.045), (0.17, 0.72, 0.06), (0.13, 0.5, 0.05))[shape]
    width *= rng.uniform(0.9, 1.15)
    colours: list[Colour] = [
        (40, 88, 54),
        (112, 68, 36),
        (170, 206, 214),
        (200, 60, 50),
        (60, 110, 180),
        (226, 226, 220),
    ]
    glass = Material(colours[rng.integers(len(colours))], "", 0.0, 0.8, 0.38, 0.35)
    outline = [
        (-width, -0.03),
        (-width, -shoulder + 0.02),
        (-neck * 1.6, -shoulder - 0.12),
        (-neck, -0.84),
        (-neck, -0.95),
    ]
    outline += [(-x, y) for x, y in reversed(outline)]
    outline += [(width * 0.6, 0.01), (-width * 0.6, 0.01)]
    curve = smooth_open(outline[:5], 6).tolist() + smooth_open(outline[5:10], 6).tolist() + outline[10:]
    pen.shape("body", curve, glass, smooth=False)
    if rng.random() < 0.75:
        top, low = -shoulder * rng.uniform(0.8, 0.95), -shoulder * rng.uniform(0.25, 0.45)
        paper = Material(mixed((240, 234, 218), tuple(rng.uniform(60, 240, 3)), 0.35), "fine", 0.02, 0.8, 0.2)
        bend = 0.02
        sticker = [(-width, top), (0, top + bend), (width, top), (width, low), (0, low + bend), (-width, low)]
        pen.detail(sticker, paper, smooth=False)
        band = scaled(tuple(rng.uniform(40, 200, 3)), 0.9)
        pen.strokes(
            [
                [(-width * 0.9, y), (0, y + bend), (width * 0.9, y)]
                for y in (top * 0.88 + low * 0.12, low * 0.88 + top * 0.12)
            ],
            0.022,
            band,
        )
        letters = [
            [(x, top * 0.5 + low * 0.5 + dy), (x + 0.03, top * 0.5 + low * 0.5 - dy)]
            for x, dy in zip(np.linspace(-width * 0.6, width * 0.5, 5), rng.uniform(-0.04, 0.04, 5), strict=True)
        ]
        pen.strokes(letters, 0.018, band)
    shine = smooth_open([(-width * 0.62, -0.1), (-width * 0.62, -shoulder + 0.06), (-neck * 0.9, -shoulder - 0.12)], 5)
    pen.strokes([shine], 0.022, (255, 255, 255), 0.35)
    cap = Material(tuple(rng.uniform(40, 220, 3)) if shape else (150, 128, 84), "hair90", 0.08, 0.6, 0.4, 0.1)
    pen.shape("cap", rounded_box(-neck * 1.18, -1.02, neck * 1.18, -0.92, 0.02), cap, smooth=False)


def draw_pottedplant(pen: Pen, rng: np.random.Generator) -> None:
    """A plant with long or round leaves in a clay or glazed pot; height about 1."""
    clay: list[Colour] = [(176, 96, 62), (210, 206, 196), (70, 92, 120), (120, 110, 96)]
    surface = Material(clay[rng.integers(4)], "coarse", 0.03, 0.6, 0.4, 0.1)
    high, wide = rng.uniform(0.28, 0.4), rng.uniform(0.17, 0.24)
    green: Colour = [(70, 124, 58), (96, 146, 74), (54, 104, 70)][rng.integers(3)]
    leaf = Material(green, "coarse", 0.06, 0.5, 0.35)
    kind = rng.integers(3)
    pen.ellipse("pot", (0, -high), (wide, wide * 0.24), Material((70, 52, 40), "coarse", 0.1, 0.2))
    count = int(rng.integers(9, 15))
    for index in rng.permutation(count):
        spread = (index / (count - 1) - 0.5) * 2
        reach = rng.uniform(0.42, 0.66) * (1 - 0.25 * abs(spread))
        tip = np.array([spread * rng.uniform(0.3, 0.5), -high - reach])
        root = np.array([spread * wide * 0.5, -high])
        shade = leaf.shaded(rng.uniform(0.75, 1.15))
        if kind == 0:
            droop = np.add(tip, (spread * 0.12, rng.uniform(0.0, 0.16)))
            pen.limb(
                "plant",
                [root, np.add((root + tip) / 2, (spread * 0.02, -0.06)), tip, droop],
                [0.02, 0.036, 0.026, 0.006],
                shade,
            )
        else:
            pen.limb(
                "plant", [root, np.add((root + tip) / 2, (0, -0.03)), tip], [0.012, 0.01, 0.008], shade.shaded(0.85)
            )
            size = rng.uniform(0.09, 0.14)
            if kind == 1:
                pen.ellipse("plant", (tip[0], tip[1]), (size, size * 0.6), shade, angle=rng.uniform(-0.9, 0.9))
            else:
                ring = ellipse_points((tip[0], tip[1]), (size * 0.9, size * 0.75), n=7)
                pen.shape("plant", ruffled(ring, 0.02, 9, rng), shade, smooth=False)
            if kind == 1 and rng.random() < 0.3:
                pen.ellipse("plant", (tip[0], tip[1] - 0.05), (0.05, 0.05), Material((214, 90, 110), "", 0, 0.6))
    foot = wide * 0.72
    pen.shape(
        "pot",
        [(-wide, -high), (0, -high + wide * 0.2), (wide, -high), (foot, -0.02), (0, 0.02), (-foot, -0.02)],
        surface,
        smooth=False,
    )
    pen.shape(
        "pot",
        [
            (-wide * 1.1, -high),
            (0, -high + wide * 0.24),
            (wide * 1.1, -high),
            (wide * 1.08, -high + 0.07),
            (0, -high + 0.07 + wide * 0.24),
            (-wide * 1.08, -high + 0.07),
        ],
        surface.shaded(1.08),
        smooth=False,
    )


def draw_screen(pen: Pen, rng: np.random.Generator) -> None:
    """A television or monitor on a foot."""
    model = Model(pen, rng.uniform(-0.6, 0.6), rng.uniform(0.02, 0.15))
    half, low, high = rng.uniform(0.45, 0.62), 0.14, rng.uniform(0.75, 0.9)
    dark = Material((38, 38, 42), "fine", 0.02, 0.15, 0.3, 0.1)
    model.box("base", (-0.24, 0.0, -0.12), (0.24, 0.03, 0.12), dark)
    model.box("base", (-0.04, 0.03, -0.03), (0.04, low, 0.03), dark)
    frame = model.box("frame", (-half, low, -0.04), (half, high, 0.04), dark)
    first, second = rng.uniform(20, 200, (2, 3))
    shown = Material(tuple(first), "cloud", 0.25, 0.0, pattern=Pattern("blotch", tuple(second), 0.3))
    if rng.random() < 0.35:
        shown = Material((30, 34, 40), "cloud", 0.15, 0.4, 0.2, 0.2)
    frame.panel("front", 0.04, 0.06, 0.96, 0.9, shown, part="screen")
    model.draw()


def draw_clock(pen: Pen, rng: np.random.Generator) -> None:
    """A round wall clock, radius about 0.5, centred half a unit above the origin."""
    rim = Material(tuple(rng.uniform(30, 210, 3)), "", 0, 0.2, 0.5, 0.2)
    pen.ellipse("frame", (0, -0.5), (0.5, 0.5), rim)
    pen.ellipse("face", (0, -0.5), (0.41, 0.41), Material((242, 240, 230), "fine", 0.015, 0.15, 0.2))
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.column_stack([np.cos(turn), np.sin(turn)])
    pen.strokes([[np.add(p * 0.32, (0, -0.5)), np.add(p * 0.38, (0, -0.5))] for p in ring], 0.022, (40, 40, 44))
    hands = rng.uniform(0, 2 * np.pi, 2)
    for angle, reach in zip(hands, (0.2, 0.31), strict=True):
        pen.strokes([[(0, -0.5), (np.cos(angle) * reach, np.sin(angle) * reach - 0.5)]], 0.03, (30, 30, 34))


_SKINS: list[Colour] = [(240, 204, 176), (222, 176, 140), (176, 124, 88), (120, 80, 58), (92, 62, 48)]


def draw_person(pen: Pen, rng: np.random.Generator) -> None:
    """A clothed figure from the front, standing or walking; height about 1."""
    sides = ("left", "right") if pen.mirrored else ("right", "left")  # the figure's own, from the viewer's left
    tone = _SKINS[rng.integers(len(_SKINS))]
    skin = Material(tone, "fine", 0.012, 0.6, 0.28)
    shirt = Material(tuple(rng.uniform(40, 225, 3) * 0.75 + 30), "weave", 0.035, 0.5, 0.32)
    trousers = Material(
        mixed((58, 74, 112), tuple(rng.uniform(40, 190, 3)), rng.uniform(0, 0.8)), "hair90", 0.06, 0.6, 0.35
    )
    shoe = Material(tuple(rng.uniform(25, 110, 3)), "", 0, 0.5, 0.3)
    stride, wide = rng.uniform(-0.07, 0.07), rng.uniform(0.92, 1.1)
    hair = Material(
        [(48, 36, 30), (96, 62, 36), (190, 150, 88), (70, 66, 66), (140, 70, 40)][rng.integers(5)], "hair90", 0.14, 0.5
    )
    long_hair = rng.random() < 0.45
    if long_hair:
        pen.limb("hair", [(0, -0.93), (0, -0.8)], [0.085, 0.08], hair)
    for copy, side in enumerate((-1, 1)):
        hip = np.array([side * 0.052 * wide, -0.5])
        foot = np.array([side * 0.07 * wide + stride * side * 0.6, -0.03 - abs(stride) * 0.3 * (copy == 0)])
        knee = np.add((hip + foot) / 2, (side * 0.012, -0.01))
        pen.ellipse("foot", (foot[0] + side * 0.018, foot[1] + 0.012), (0.042, 0.026), shoe, copy=copy)
        pen.limb("leg", [hip, knee, np.add(foot, (0, -0.015))], [0.062 * wide, 0.048, 0.036], trousers, copy=copy)
        for name, joint in (("hip", hip), ("knee", knee), ("ankle", np.add(foot, (0, -0.015)))):
            pen.landmark(f"{sides[copy]} {name}", (joint[0], joint[1]))
    torso = [
        (-0.115, -0.8),
        (-0.04, -0.835),
        (0.04, -0.835),
        (0.115, -0.8),
        (0.105, -0.64),
        (0.1, -0.5),
        (0.0, -0.475),
        (-0.1, -0.5),
        (-0.105, -0.64),
    ]
    for copy, side in enumerate((-1, 1)):
        shoulder = np.array([side * 0.115 * wide, -0.79])
        lift = rng.uniform(-0.02, 0.1)
        elbow = np.add(shoulder, (side * (0.035 + lift * 0.5), 0.16 - lift * 0.4))
        hand = np.add(elbow, (side * rng.uniform(-0.08, 0.1), 0.13 - lift))
        pen.ellipse("hand", (hand[0], hand[1] + 0.012), (0.023, 0.028), skin, copy=copy)
        pen.limb("lower arm", [elbow, hand], [0.031, 0.022], skin if rng.random() < 0.5 else shirt, copy=copy)
        pen.limb("upper arm", [np.add(shoulder, (0, 0.01)), elbow], [0.042, 0.033], shirt.shaded(0.94), copy=copy)
        for name, joint in (("shoulder", shoulder), ("elbow", elbow), ("wrist", hand)):
            pen.landmark(f"{sides[copy]} {name}", (joint[0], joint[1]))
    pen.limb("neck", [(0, -0.86), (0, -0.81)], [0.036, 0.042], skin.shaded(0.86))
    pen.shape("torso", np.array(torso) * (wide, 1), shirt)
    pen.strokes([[(0, -0.81), (0, -0.5)]], 0.006, scaled(shirt.colour, 0.7), 0.5)
    _head(pen, skin, hair, long_hair, rng)


def _head(pen: Pen, skin: Material, hair: Material, long_hair: bool, rng: np.random.Generator) -> None:
    centre = (0.0, -0.92)
    turned = rng.uniform(-0.018, 0.018)
    sides = ("left", "right") if pen.mirrored else ("right", "left")
    for copy, side in enumerate((-1, 1)):
        pen.ellipse("ear", (side * 0.068, centre[1] + 0.008), (0.014, 0.022), skin.shaded(0.9), copy=copy)
        pen.landmark(f"{sides[copy]} ear", (side * 0.074, centre[1] + 0.008), "ear", copy)
        pen.landmark(f"{sides[copy]} eye", (side * 0.027 + turned, -0.925))
    pen.ellipse("head", centre, (0.067, 0.088), skin)
    crown = [
        (-0.072, -0.915),
        (-0.07, -0.985),
        (0.0, -1.025),
        (0.07, -0.985),
        (0.072, -0.915),
        (0.052, -0.955),
        (0.01 + turned, -0.968),
        (-0.045, -0.957),
    ]
    pen.shape("hair", crown, hair)
    if long_hair:
        for side in (-1, 1):
            pen.limb(
                "hair", [(side * 0.066, -0.95), (side * 0.076, -0.87), (side * 0.07, -0.8)], [0.02, 0.022, 0.014], hair
            )
    for copy, side in enumerate((-1, 1)):
        x = side * 0.027 + turned
        pen.ellipse("eye", (x, -0.925), (0.0125, 0.0075), Material((246, 244, 240), roundness=0), copy=copy)
        pen.detail(
            ellipse_points((x + turned * 0.2, -0.925), (0.0065, 0.007), n=10),
            Material((46, 36, 30), roundness=0),
            smooth=False,
        )
        pen.limb(
            "eyebrow",
            [(x - 0.015, -0.942), (x + 0.015, -0.943)],
            [0.0035, 0.0035],
            replace(hair, texture=""),
            copy=copy,
        )
    pen.shape(
        "nose",
        [(turned, -0.925), (turned + 0.012, -0.898), (turned, -0.893), (turned - 0.012, -0.898)],
        skin.shaded(0.92),
    )
    pen.landmark("nose", (turned, -0.9))
    pen.ellipse("mouth", (turned, -0.872), (0.021, 0.007), Material((176, 84, 80), "", 0, 0.4))
