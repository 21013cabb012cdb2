"""Furniture out of boxes: chairs, tables, beds, sofas, cabinets, and lamps, with the parts ADE20K names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from talking_points.sources.drawn.canvas import Colour, Material, Pen, ellipse_points, mixed, scaled
from talking_points.sources.drawn.curves import rounded_box
from talking_points.sources.drawn.solids import Box, Model

_WOODS: list[Colour] = [(150, 102, 62), (112, 74, 48), (188, 144, 98), (84, 60, 46), (206, 172, 128), (232, 228, 220)]


def wood(rng: np.random.Generator, grain: str = "hair0") -> Material:
    """A plank's surface, sometimes painted."""
    colour = _WOODS[rng.integers(len(_WOODS))] if rng.random() < 0.85 else tuple(rng.uniform(60, 210, 3))
    return Material(colour, grain, 0.055, 0.12, 0.2)


def cloth(rng: np.random.Generator) -> Material:
    """Upholstery: woven fabric, velvet or leather."""
    base = rng.uniform(50, 215, 3)
    colour: Colour = tuple(base * 0.5 + base.mean() * 0.5)
    kind = rng.integers(3)
    if kind == 0:
        return Material(colour, "weave", 0.07, 0.3, 0.3)
    if kind == 1:
        return Material(colour, "coarse", 0.04, 0.35, 0.35)
    return Material(mixed(colour, (90, 60, 42), 0.5), "fine", 0.03, 0.35, 0.35, 0.12)


def _legs(
    model: Model,
    x: float,
    z: float,
    height: float,
    width: float,
    material: Material,
    part: str = "leg",
    inset: float = 0.0,
) -> None:
    corners = [(-x, -z), (x, -z), (-x, z), (x, z)]
    upright = replace(material, texture="hair90" if material.texture.startswith("hair") else material.texture)
    for copy, (cx, cz) in enumerate(corners):
        cx, cz = cx - np.sign(cx) * (inset + width / 2), cz - np.sign(cz) * (inset + width / 2)
        low, high = (cx - width / 2, 0.0, cz - width / 2), (cx + width / 2, height, cz + width / 2)
        model.box(part, low, high, upright, copy=copy)


def draw_chair(pen: Pen, rng: np.random.Generator) -> None:
    """A kitchen chair: four legs, seat, back of slats, bars or a panel, sometimes arms and stretchers."""
    model = Model(pen, _turn(rng), rng.uniform(0.18, 0.4))
    material = wood(rng)
    half, deep, seat, top = (
        rng.uniform(0.21, 0.26),
        rng.uniform(0.2, 0.25),
        rng.uniform(0.43, 0.5),
        rng.uniform(0.9, 1.08),
    )
    leg = rng.uniform(0.035, 0.055)
    _legs(model, half, deep, seat - 0.03, leg, material)
    model.box("seat", (-half, seat - 0.035, -deep), (half, seat, deep), material)
    if rng.random() < 0.4:
        model.box(
            "seat cushion",
            (-half + 0.015, seat, -deep + 0.05),
            (half - 0.015, seat + 0.055, deep),
            cloth(rng),
            soft=True,
        )
    if rng.random() < 0.5:
        model.box("apron", (-half + leg, seat - 0.1, deep - leg), (half - leg, seat - 0.035, deep - 0.012), material)
    if rng.random() < 0.5:
        y = seat * 0.4
        for copy, x in enumerate((-half + leg / 2, half - leg / 2)):
            model.box("stretcher", (x - 0.012, y, -deep + leg), (x + 0.012, y + 0.03, deep - leg), material, copy=copy)
    upright = replace(material, texture="hair90")
    back = -deep
    style = rng.integers(3)
    if style == 2:
        padded = cloth(rng)
        for x in (-half + 0.03, half - 0.03 - leg):
            model.box("back", (x, seat, back - 0.02), (x + leg, seat + 0.2, back), upright)
        model.box("back", (-half, seat + 0.09, back), (half, top, back + 0.06), padded, soft=True)
    else:
        for x in (-half, half - leg):
            model.box("back", (x, seat, back), (x + leg, top, back + leg), upright)
        if style == 0:
            for low, high in ((0.3, 0.42), (0.58, 0.7), (0.84, 1.0)):
                span = top - seat
                model.box(
                    "back",
                    (-half + leg, seat + span * low, back + 0.008),
                    (half - leg, seat + span * high, back + 0.032),
                    material,
                )
        else:
            model.box("back", (-half, top - 0.08, back), (half, top, back + leg), material)
            for x in np.linspace(-half + leg + 0.03, half - leg - 0.03, 4):
                model.box("back", (x - 0.014, seat, back + 0.01), (x + 0.014, top - 0.08, back + 0.03), upright)
    if rng.random() < 0.3:
        for copy, x in enumerate((-half, half - leg)):
            model.box("arm", (x, seat + 0.2, -deep + leg), (x + leg, seat + 0.235, deep), material, copy=copy)
            model.box("arm", (x, seat, deep - leg), (x + leg, seat + 0.2, deep), upright, copy=copy)
    for side, x in _own_sides(model):
        for end, z in (("front", 1), ("rear", -1)):
            foot = (x * (half - leg / 2), 0.0, z * (deep - leg / 2))
            model.landmark(f"bottom of {side} {end} leg", foot, "leg")
            model.landmark(f"{side} {end} edge of the seat", (x * half, seat, z * deep))
        model.landmark(f"{side} top edge of the backrest", (x * half, top, back))
    model.draw()


def _own_sides(model: Model) -> list[tuple[str, int]]:
    """The sides of somebody who sits or lies in it, looking at +z, and the signs of x that they are at."""
    right = 1 if model.pen.mirrored else -1
    return [("right", right), ("left", -right)]


def draw_table(pen: Pen, rng: np.random.Generator) -> None:
    """A table with an apron, sometimes with a drawer in it, sometimes with a lower shelf."""
    model = Model(pen, _turn(rng), rng.uniform(0.2, 0.42))
    material = wood(rng)
    half, deep, height = rng.uniform(0.45, 0.75), rng.uniform(0.28, 0.42), rng.uniform(0.66, 0.78)
    leg = rng.uniform(0.05, 0.08)
    _legs(model, half, deep, height - 0.04, leg, material, inset=0.03)
    apron = model.box(
        "apron", (-half + 0.06, height - 0.17, deep - 0.07), (half - 0.06, height - 0.04, deep - 0.045), material
    )
    if rng.random() < 0.45:
        _front(apron, "drawer", "front", 0.3, 0.15, 0.7, 0.85, material.shaded(1.12), 0)
    model.box(
        "apron",
        (half - 0.07, height - 0.17, -deep + 0.06),
        (half - 0.045, height - 0.04, deep - 0.07),
        material,
        copy=1,
    )
    model.box(
        "apron",
        (-half + 0.045, height - 0.17, -deep + 0.06),
        (-half + 0.07, height - 0.04, deep - 0.07),
        material,
        copy=2,
    )
    if rng.random() < 0.3:
        model.box("shelf", (-half + 0.05, 0.16, -deep + 0.05), (half - 0.05, 0.19, deep - 0.05), material)
    top = wood(rng) if rng.random() < 0.3 else material
    model.box("top", (-half, height - 0.04, -deep), (half, height, deep), replace(top, gloss=0.05))
    for own, x in _own_sides(model):  # a table's sides are the viewer's, who looks at it from the front
        side = "left" if own == "right" else "right"
        for end, z in (("front", 1), ("back", -1)):
            model.landmark(f"{side} and {end} side of the top", (x * half, height, z * deep))
            foot = (x * (half - 0.03 - leg / 2), 0.0, z * (deep - 0.03 - leg / 2))
            model.landmark(f"{side} and {end} leg", foot, "leg")
    model.draw()


def draw_coffee_table(pen: Pen, rng: np.random.Generator) -> None:
    """A low table."""
    model = Model(pen, _turn(rng), rng.uniform(0.25, 0.45))
    material = wood(rng)
    half, deep, height = rng.uniform(0.4, 0.6), rng.uniform(0.25, 0.36), rng.uniform(0.32, 0.42)
    _legs(model, half, deep, height - 0.05, rng.uniform(0.05, 0.08), material, inset=0.02)
    model.box("top", (-half, height - 0.05, -deep), (half, height, deep), material)
    model.draw()


def draw_stool(pen: Pen, rng: np.random.Generator) -> None:
    """A stool with a padded or plain seat."""
    model = Model(pen, _turn(rng), rng.uniform(0.22, 0.42))
    material = wood(rng)
    half, height = rng.uniform(0.17, 0.23), rng.uniform(0.45, 0.7)
    _legs(model, half, half, height - 0.04, 0.04, material, inset=0.01)
    padded = rng.random() < 0.5
    model.box(
        "seat",
        (-half, height - 0.04, -half),
        (half, height + 0.03, half),
        cloth(rng) if padded else material,
        soft=padded,
    )
    model.draw()


def draw_bench(pen: Pen, rng: np.random.Generator) -> None:
    """A park bench of planks on iron or wooden legs."""
    model = Model(pen, _turn(rng), rng.uniform(0.15, 0.3))
    plank = wood(rng)
    iron = Material((58, 62, 64), "", 0, 0.3, 0.3) if rng.random() < 0.5 else plank.shaded(0.8)
    half, deep, seat, top = rng.uniform(0.62, 0.85), 0.22, 0.44, rng.uniform(0.8, 0.92)
    _legs(model, half - 0.08, deep, seat - 0.03, 0.06, iron)
    for index in range(4):
        z = -deep + index * deep / 2
        model.box("seat", (-half, seat - 0.03, z + 0.008), (half, seat, z + deep / 2 - 0.008), plank)
    for x in (-half + 0.1, half - 0.15):
        model.box("back", (x, seat, -deep - 0.05), (x + 0.05, top, -deep - 0.03), iron)
    for share in (0.3, 0.62, 0.94):
        y = seat + (top - seat) * share
        model.box("back", (-half, y - 0.05, -deep - 0.03), (half, y + 0.04, -deep), plank)
    if rng.random() < 0.7:
        for copy, x in enumerate((-half + 0.06, half - 0.11)):
            model.box("arm", (x, seat + 0.2, -deep), (x + 0.05, seat + 0.235, deep), iron, copy=copy)
            model.box("arm", (x, seat, deep - 0.05), (x + 0.05, seat + 0.2, deep), iron, copy=copy)
    model.draw()


def _seating(pen: Pen, rng: np.random.Generator, half: float, seats: int) -> None:
    model = Model(pen, _turn(rng, 0.5), rng.uniform(0.2, 0.36))
    fabric = cloth(rng)
    arm, deep, base, seat, top = rng.uniform(0.12, 0.2), 0.4, 0.3, 0.44, rng.uniform(0.8, 0.98)
    _legs(model, half - 0.02, deep - 0.02, 0.1, 0.06, wood(rng))
    model.box("seat base", (-half + arm, 0.1, -deep + 0.14), (half - arm, base, deep - 0.02), fabric.shaded(0.92))
    model.box("back", (-half + arm * 0.6, 0.12, -deep), (half - arm * 0.6, top, -deep + 0.14), fabric, soft=True)
    height = rng.uniform(0.55, 0.68)
    for copy, (low, high) in enumerate(((-half, -half + arm), (half - arm, half))):
        model.box("arm", (low, 0.1, -deep + 0.02), (high, height, deep), fabric, copy=copy, soft=True)
    width = (2 * half - 2 * arm) / seats
    pillow = cloth(rng) if rng.random() < 0.6 else fabric.shaded(1.08)
    pillows = rng.random() < 0.7
    for copy in range(seats):
        x = -half + arm + copy * width
        model.box(
            "seat cushion",
            (x + 0.008, base, -deep + 0.16),
            (x + width - 0.008, seat, deep),
            fabric.shaded(1.05),
            copy=copy,
            soft=True,
        )
        if pillows:
            near, far = (x + width - 0.05, seat + 0.34, -deep + 0.27), (x + 0.05, seat + 0.01, -deep + 0.15)
            model.box("back pillow", far, near, pillow, copy=copy, soft=True)
    for side, x in _own_sides(model):
        for end, z, behind in (("front", deep, deep), ("rear", -deep, -deep + 0.14)):
            foot = (x * (half - 0.05), 0.0, z - np.sign(z) * 0.05)
            model.landmark(f"bottom of {side} {end} leg", foot, "leg")
            model.landmark(f"{side} {end} edge of the seat", (x * (half - arm), seat, behind))
            model.landmark(f"{end} edge of the {side} armrest", (x * (half - arm / 2), height, z))
        model.landmark(f"{side} top edge of the backrest", (x * (half - arm * 0.6), top, -deep + 0.07))
    model.draw()


def draw_sofa(pen: Pen, rng: np.random.Generator) -> None:
    """A sofa for two or three."""
    seats = int(rng.integers(2, 4))
    _seating(pen, rng, 0.38 + 0.29 * seats, seats)


def draw_armchair(pen: Pen, rng: np.random.Generator) -> None:
    """An upholstered armchair."""
    _seating(pen, rng, rng.uniform(0.44, 0.52), 1)


def draw_bed(pen: Pen, rng: np.random.Generator) -> None:
    """A bed with headboard, footboard, rails, mattress, pillows and a blanket."""
    model = Model(pen, _turn(rng, 0.75), rng.uniform(0.25, 0.42), 9.0)
    material = wood(rng)
    half, long = rng.uniform(0.5, 0.75), 0.95
    head, foot = rng.uniform(0.75, 1.05), rng.uniform(0.42, 0.55)
    board = model.box("headboard", (-half - 0.03, 0.12, -long - 0.06), (half + 0.03, head, -long), material)
    for index in range(3):
        u = 0.06 + index * 0.31
        board.panel("front", u, 0.1, u + 0.26, 0.5, material.shaded(0.88))
    model.box("footboard", (-half - 0.03, 0.12, long), (half + 0.03, foot, long + 0.05), material)
    for copy, x in enumerate((-half - 0.03, half)):
        model.box("side rail", (x, 0.2, -long), (x + 0.03, 0.34, long), material, copy=copy)
    _legs(model, half + 0.03, long + 0.05, 0.12, 0.07, material)
    linen = Material((236, 234, 228), "coarse", 0.015, 0.2, 0.2)
    blanket = cloth(rng)
    model.box(None, (-half, 0.2, -long), (half, 0.47, long), linen, soft=True)
    model.box(None, (-half - 0.005, 0.3, -long * 0.35), (half + 0.005, 0.52, long - 0.01), blanket, soft=True)
    for x in (-half * 0.5, half * 0.5):
        model.box(
            None,
            (x - half * 0.42, 0.47, -long + 0.05),
            (x + half * 0.42, 0.6, -long + 0.4),
            linen.shaded(1.05),
            soft=True,
        )
    for side, x in _own_sides(model):
        for end, z, high in (("front", 1, 0.52), ("rear", -1, 0.47)):
            model.landmark(f"bottom of {side} {end} leg", (x * (half - 0.005), 0.0, z * (long + 0.015)), "leg")
            model.landmark(f"{side} {end} edge of the mattress", (x * half, high, z * long))
        model.landmark(f"{side} top edge of the headboard", (x * (half + 0.03), head, -long - 0.03))
    model.draw()


def _front(
    box: Box, part: str, face: str, u0: float, v0: float, u1: float, v1: float, material: Material, copy: int
) -> None:
    """A drawer or door front with a bevelled edge and a knob."""
    box.panel(face, u0, v0, u1, v1, material.shaded(0.72), part=part, copy=copy)
    du, dv = (u1 - u0) * 0.025, (v1 - v0) * 0.035
    box.panel(face, u0 + du, v0 + dv, u1 - du, v1 - dv, material, part=part, copy=copy)


def _knob(box: Box, face: str, u: float, v: float, size: tuple[float, float], part: str, copy: int) -> None:
    brass = Material((196, 168, 104), "", 0, 0.5, 0.5, 0.2)
    box.mark(face, ellipse_points((u, v), size, n=12), brass, part=part, copy=copy)


def _carcass(model: Model, half: float, deep: float, low: float, high: float, material: Material, part: str) -> Box:
    return model.box(part, (-half, low, -deep), (half, high, deep), replace(material, texture="hair90"))


def draw_chest(pen: Pen, rng: np.random.Generator) -> None:
    """A chest of drawers."""
    model = Model(pen, _turn(rng, 0.55), rng.uniform(0.15, 0.34))
    material = wood(rng)
    half, deep, height, rows = rng.uniform(0.36, 0.55), 0.24, rng.uniform(0.75, 1.0), int(rng.integers(3, 6))
    _legs(model, half, deep, 0.12, 0.06, material)
    body = _carcass(model, half, deep, 0.1, height, material, "front")
    columns = int(rng.integers(1, 3))
    for row in range(rows):
        for column in range(columns):
            u0, u1 = 0.04 + column * 0.92 / columns + 0.01, 0.04 + (column + 1) * 0.92 / columns - 0.01
            v0, v1 = 0.05 + row * 0.9 / rows + 0.008, 0.05 + (row + 1) * 0.9 / rows - 0.012
            copy = row * columns + column
            _front(body, "drawer", "front", u0, v0, u1, v1, material.shaded(1.08), copy)
            for share in (0.25, 0.75) if columns == 1 else (0.5,):
                _knob(body, "front", u0 + (u1 - u0) * share, (v0 + v1) / 2, (0.016, 0.018), "drawer", copy)
    model.box(None, (-half - 0.02, height, -deep - 0.01), (half + 0.02, height + 0.03, deep + 0.02), material)
    model.draw()


def draw_cabinet(pen: Pen, rng: np.random.Generator) -> None:
    """A cabinet: drawers above doors, a top, a skirt."""
    model = Model(pen, _turn(rng, 0.55), rng.uniform(0.18, 0.36))
    material = wood(rng)
    half, deep, height = rng.uniform(0.4, 0.62), 0.26, rng.uniform(0.7, 0.95)
    doors = int(rng.integers(2, 4))
    model.box("skirt", (-half + 0.02, 0.0, -deep + 0.02), (half - 0.02, 0.08, deep - 0.03), material.shaded(0.7))
    body = _carcass(model, half, deep, 0.08, height, material, "side")
    split = 0.3 if rng.random() < 0.65 else 0.02
    for copy in range(doors):
        u0, u1 = 0.02 + copy * 0.96 / doors + 0.008, 0.02 + (copy + 1) * 0.96 / doors - 0.008
        if split > 0.1:
            _front(body, "drawer", "front", u0, 0.04, u1, split - 0.03, material.shaded(1.05), copy)
            _knob(body, "front", (u0 + u1) / 2, split / 2, (0.015, 0.018), "drawer", copy)
        _front(body, "door", "front", u0, split + 0.01, u1, 0.97, material.shaded(1.08), copy)
        width = u1 - u0
        body.panel("front", u0 + width * 0.16, split + 0.1, u1 - width * 0.16, 0.88, material.shaded(0.95))
        _knob(body, "front", u1 - width * 0.09, split + 0.34, (0.013, 0.016), "door", copy)
    model.box(
        "top", (-half - 0.02, height, -deep - 0.01), (half + 0.02, height + 0.035, deep + 0.02), material.shaded(1.1)
    )
    model.draw()


def draw_wardrobe(pen: Pen, rng: np.random.Generator) -> None:
    """A tall wardrobe with doors, sometimes a mirror and a drawer below."""
    model = Model(pen, _turn(rng, 0.5), rng.uniform(0.08, 0.22), 8.0)
    material = wood(rng)
    half, deep, height = rng.uniform(0.4, 0.58), 0.28, rng.uniform(1.5, 1.8)
    _legs(model, half, deep, 0.09, 0.06, material)
    body = _carcass(model, half, deep, 0.08, height, material, "front")
    for copy in range(2):
        u0, u1 = 0.03 + copy * 0.47 + 0.008, 0.03 + (copy + 1) * 0.47 - 0.008
        _front(body, "door", "front", u0, 0.04, u1, 0.78, material.shaded(1.06), copy)
        _front(body, "drawer", "front", u0, 0.81, u1, 0.96, material.shaded(1.06), copy)
        _knob(body, "front", (u0 + u1) / 2, 0.885, (0.014, 0.009), "drawer", copy)
        if copy == 0 and rng.random() < 0.5:
            glass = Material((176, 196, 204), "cloud", 0.08, 0)
            body.panel("front", u0 + 0.05, 0.1, u1 - 0.05, 0.72, glass, part="mirror")
        else:
            body.panel("front", u0 + 0.06, 0.1, u1 - 0.06, 0.4, material.shaded(0.95))
            body.panel("front", u0 + 0.06, 0.45, u1 - 0.06, 0.72, material.shaded(0.95))
        _knob(body, "front", u1 - 0.03 if copy == 0 else u0 + 0.03, 0.44, (0.012, 0.012), "door", copy)
    model.box("top", (-half - 0.025, height, -deep), (half + 0.025, height + 0.05, deep + 0.025), material.shaded(1.1))
    model.draw()


def draw_lamp(pen: Pen, rng: np.random.Generator) -> None:
    """A standing or table lamp: base, column, shade and a glimpse of the bulb."""
    tall = rng.random() < 0.5
    height = rng.uniform(1.35, 1.6) if tall else rng.uniform(0.6, 0.8)
    metal = Material(mixed((70, 66, 64), (200, 170, 110), rng.random()), "", 0, 0.7, 0.5, 0.25)
    shade_top, shade_low = height, height - (0.3 if tall else 0.28)
    narrow, wide = rng.uniform(0.1, 0.16), rng.uniform(0.2, 0.27)
    base = rng.uniform(0.12, 0.16)
    pen.ellipse("base", (0.0, -0.03), (base, base * 0.3), metal)
    if tall:
        pen.limb("column", [(0, -0.05), (0, -shade_low)], [0.022, 0.018], metal)
    else:
        body = Material(tuple(rng.uniform(60, 220, 3)), "fine", 0.02, 0.7, 0.4, 0.3)
        swell, middle = rng.uniform(0.08, 0.13), shade_low * rng.uniform(0.35, 0.55)
        outline = [(-0.06, -0.04), (-swell, -middle), (-0.03, -shade_low + 0.03), (-0.02, -shade_low - 0.03)]
        outline += [(-x, y) for x, y in reversed(outline)]
        pen.shape("column", outline, body)
    glow = Material((255, 244, 206), "", 0, 0.0)
    pen.ellipse("light source", (0.0, -shade_low - 0.01), (0.05, 0.055), glow)
    paper = Material(
        mixed((246, 232, 200), tuple(rng.uniform(120, 240, 3)), rng.uniform(0, 0.6)), "weave", 0.03, 0.5, 0.22
    )
    edge = [(-wide, -shade_low), (-narrow, -shade_top), (narrow, -shade_top), (wide, -shade_low)]
    rim = [(x, -shade_low + 0.05 * (1 - (x / wide) ** 2)) for x in np.linspace(wide, -wide, 9)[1:-1]]
    pen.shape("shade", edge + rim, paper, smooth=False)
    inner = np.array(edge + rim) * (0.55, 0.8) + (0, -shade_low * 0.2 - 0.02)
    pen.detail(inner, replace(paper, colour=scaled(paper.colour, 1.12), roundness=0.8, relief=0.0))
    pen.strokes([edge[:2], [edge[1], edge[2]], edge[2:]], 0.008, scaled(paper.colour, 0.6), 0.6)


def draw_door(pen: Pen, rng: np.random.Generator) -> None:
    """A door in its frame, with panels and a handle."""
    material = wood(rng, "hair90")
    half, height = rng.uniform(0.4, 0.48), rng.uniform(1.8, 2.0)
    frame = material.shaded(rng.uniform(1.05, 1.3))
    pen.shape(
        "door frame",
        [(-half - 0.08, 0), (-half - 0.08, -height - 0.08), (half + 0.08, -height - 0.08), (half + 0.08, 0)],
        replace(frame, roundness=0.03),
        smooth=False,
    )
    pen.shape(
        None,
        [(-half, 0), (-half, -height), (half, -height), (half, 0)],
        replace(material, roundness=0.02),
        smooth=False,
    )
    rows = [(0.08, 0.42), (0.5, 0.92)] if rng.random() < 0.5 else [(0.06, 0.3), (0.36, 0.62), (0.68, 0.94)]
    for row, (low, high) in enumerate(rows):
        for column, (left, right) in enumerate(((-0.82, -0.08), (0.08, 0.82))):
            box = rounded_box(left * half, -high * height, right * half, -low * height, 0.01)
            pen.shape(
                "panel",
                box,
                replace(material.shaded(0.9), roundness=0.12, relief=0.5),
                smooth=False,
                copy=row * 2 + column,
            )
    metal = Material((190, 180, 150), "", 0, 0.6, 0.5, 0.4)
    side = half * 0.88
    if rng.random() < 0.5:
        pen.ellipse("knob", (side, -height * 0.47), (0.045, 0.045), metal)
    else:
        pen.limb("handle", [(side, -height * 0.47), (side - 0.14, -height * 0.47)], [0.025, 0.02], metal)


def _turn(rng: np.random.Generator, most: float = 0.8) -> float:
    return float(rng.uniform(-most, most))


FURNITURE: dict[str, Callable[[Pen, np.random.Generator], None]] = {
    "chair": draw_chair,
    "table": draw_table,
    "coffee table": draw_coffee_table,
    "stool": draw_stool,
    "bench": draw_bench,
    "sofa": draw_sofa,
    "armchair": draw_armchair,
    "bed": draw_bed,
    "chest of drawers": draw_chest,
    "cabinet": draw_cabinet,
    "wardrobe": draw_wardrobe,
    "lamp": draw_lamp,
    "door": draw_door,
}
