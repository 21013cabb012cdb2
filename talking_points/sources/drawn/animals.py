"""Four-legged animals from one skeleton: species differ in proportions, coat, ears, horns and tail."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from talking_points.sources.drawn.canvas import Colour, Material, Pen, ellipse_points, mixed, scaled
from talking_points.sources.drawn.curves import Points, ruffled, smooth_open
from talking_points.sources.drawn.species import BLACK, BUILDS, COATS, WHITE, Build


@dataclass
class _Animal:
    """One animal being drawn: its pen, its build, the materials of its coat."""

    pen: Pen
    species: str
    build: Build
    coat: Material
    dark: Colour
    near: str
    far: str
    fringe: Colour

    def hair(self, angle: int) -> Material:
        """The coat with hairs along an angle in degrees."""
        if self.build.wool:
            return self.coat
        return replace(self.coat, texture=f"hair{15 * round(angle / 15) % 180}")


def draw_animal(pen: Pen, rng: np.random.Generator, species: str) -> None:
    """Draw one animal facing right in its own coordinates; a mirroring pen makes it face the viewer's left.

    Its 17 AP-10K landmarks are left with the canvas. Left and right are the animal's own: seen from the side,
    an animal that faces the viewer's right shows its right side. As in AP-10K, the "shoulder" of a leg is the
    point where it leaves the body, the "elbow" and "knee" the joints below.
    """
    build = BUILDS[species]
    vary = rng.uniform(0.92, 1.08, 6)
    build = replace(
        build, length=build.length * vary[0] * rng.uniform(0.82, 1.0), depth=build.depth * vary[1],
        waist=build.waist * vary[2], neck=build.neck * vary[3], skull=build.skull * vary[4], leg=build.leg * vary[5],
        neck_angle=build.neck_angle + rng.uniform(-12, 14), head_tilt=build.head_tilt + rng.uniform(-12, 12),
    )  # fmt: skip
    colour, under, pattern = COATS[species][rng.integers(len(COATS[species]))]
    jitter = rng.uniform(0.86, 1.1) * rng.uniform(0.97, 1.03, 3)
    tint: Colour = tuple(np.clip(np.asarray(colour) * jitter, 0, 250))
    coat = Material(tint, "wool" if build.wool > 0.03 else "hair0", build.texture, 0.7, 0.34, 0.0, pattern, under)
    near, far = ("left", "right") if pen.mirrored else ("right", "left")
    fringe = _fringe(species, tint, rng)
    animal = _Animal(pen, species, build, coat, mixed(tint, BLACK, 0.75), near, far, fringe)
    pose = build.poses[rng.integers(len(build.poses))]
    if pose == "sit":
        _draw_sitting(animal, rng)
    elif pose == "lie":
        _draw_lying(animal, rng)
    else:
        _draw_standing(animal, pose, rng)


def _fringe(species: str, tint: Colour, rng: np.random.Generator) -> Colour:
    """Colour of mane and tail hair."""
    if species == "horse":
        return mixed(tint, BLACK, 0.8) if rng.random() < 0.6 else mixed(tint, (226, 206, 168), 0.75)
    if species == "fox":
        return tint
    return mixed(tint, BLACK, 0.55)


def _leg(animal: _Animal, joints: Points, radii: list[float], copy: int, far: bool) -> None:
    """One leg from its hidden root inside the body to its foot; the last joint is the foot on the ground."""
    pen, build = animal.pen, animal.build
    surface = animal.hair(90)
    if build.wool > 0.03:
        surface = replace(surface, texture="hair90", colour=animal.dark, pattern=None)
    elif animal.species in ("fox",):
        surface = replace(surface, under=BLACK)
    if far:
        surface = surface.shaded(0.68)
    pen.limb("leg", joints, radii, replace(surface, pattern=None if far else surface.pattern), copy=copy)
    x, y = joints[-1]
    if build.foot == "hoof":
        width = radii[-1] * 1.25
        outline = [(x - width, y - width * 0.9), (x + width * 0.9, y - width * 0.9), (x + width * 1.5, y + width * 0.9)]
        outline.append((x - width * 1.1, y + width * 0.9))
        pen.shape("hoof", outline, Material((58, 50, 46) if not far else (40, 35, 33)), smooth=False, copy=copy)
    else:
        width = radii[-1]
        centre = (x + width * 0.75, y - width * 0.1)
        pen.ellipse("paw", centre, (width * 1.85, width * 1.0), replace(surface, under=None), copy=copy)
        toes = [[(x + width * k, y - width * 0.1), (x + width * (k + 0.15), y + width * 0.8)] for k in (1.2, 1.9)]
        pen.strokes(toes, width * 0.2, animal.dark, 0.7)


def _standing_legs(animal: _Animal, pose: str, rng: np.random.Generator) -> dict[str, tuple[Points, list[float], int]]:
    build = animal.build
    half, width = build.length / 2, build.leg
    stride = rng.uniform(0.1, 0.2) if pose == "walk" else rng.uniform(-0.05, 0.05)
    legs: dict[str, tuple[Points, list[float], int]] = {}
    for copy, (side, end) in enumerate([("far", "front"), ("far", "back"), ("near", "front"), ("near", "back")]):
        swing = stride * (1 if (side == "near") == (end == "front") else -1)
        lift = max(0.0, swing) * rng.uniform(0.0, 0.35)
        raised = -0.035 if side == "far" else 0.0
        shift = 0.07 if side == "far" else 0.0
        if end == "front":
            x = half - 0.1 + shift
            joints = [(x, -0.66), (x - 0.02 + swing * 0.2, -(1 - build.depth) - 0.02)]
            joints += [(x + swing * 0.7 + lift * 0.5, -0.27 - lift), (x + swing, -width * 0.5 + raised - lift)]
            radii = [width * 2.0, width * 1.45, width * 0.88, width * 0.72]
        else:
            x = -half + 0.12 + shift
            joints = [(x, -0.66), (x + 0.1 + swing * 0.25, -0.5)]
            joints += [(x - 0.05 + swing * 0.6, -0.28 - lift * 0.5), (x + 0.02 + swing, -width * 0.5 + raised - lift)]
            radii = [width * 2.5, width * 1.9, width * 0.9, width * 0.72]
        legs[f"{side} {end}"] = (np.array(joints), radii, copy)
    return legs


def _leg_landmarks(animal: _Animal, legs: dict[str, tuple[Points, list[float], int]]) -> None:
    for name, (joints, _, copy) in legs.items():
        side, end = name.split()
        own = animal.near if side == "near" else animal.far
        names = ("shoulder", "elbow", "front_paw") if end == "front" else ("hip", "knee", "back_paw")
        for label, joint in zip(names, joints[1:], strict=True):
            part = "leg" if side == "far" else None
            if label.endswith("paw"):
                part = None
            animal.pen.landmark(f"{own}_{label}", (joint[0], joint[1]), part, copy)


def _torso_outline(build: Build) -> Points:
    half, top = build.length / 2, -1.0
    belly, flank = top + build.depth, top + build.waist + 0.06
    return np.array([
        (half - 0.02, top + 0.06), (half - 0.2, top - build.hump), (half * 0.2, top + 0.02 - build.hump * 0.55),
        (-half * 0.45, top), (-half - 0.0, top + 0.06), (-half - 0.07, top + 0.2), (-half + 0.02, top + 0.42),
        (-half * 0.45, flank), (0.0, belly - 0.03), (half * 0.6, belly), (half + 0.04, belly - 0.1),
        (half + 0.1, top + 0.24),
    ])  # fmt: skip


def _draw_standing(animal: _Animal, pose: str, rng: np.random.Generator) -> None:
    pen, build = animal.pen, animal.build
    legs = _standing_legs(animal, pose, rng)
    half = build.length / 2
    for name in ("far front", "far back"):
        _leg(animal, *legs[name], far=True)
    _tail(animal, (-half - 0.03, -0.9), rng)
    outline = _torso_outline(build)
    surface = animal.hair(0)
    if build.wool:
        pen.shape("torso", ruffled(outline, build.wool, 26, rng), surface, smooth=False)
    else:
        pen.shape("torso", outline, surface)
    for name in ("near back", "near front"):
        _leg(animal, *legs[name], far=False)
    angle = rng.uniform(-62, -48) if pose == "graze" else build.neck_angle
    _neck_and_head(animal, np.array([half - 0.06, -0.84]), angle, pose == "graze", rng)
    _leg_landmarks(animal, legs)
    pen.landmark("neck", (half - 0.02, -0.88))
    pen.landmark("root_of_tail", (-half - 0.01, -0.9))


def _draw_sitting(animal: _Animal, rng: np.random.Generator) -> None:
    pen, build = animal.pen, animal.build
    width = build.leg
    front, hip = np.array([0.24, -0.78]), np.array([-0.26, -0.24])
    surface = animal.hair(60)
    _tail(animal, (hip[0] - 0.2, -0.1), rng, flat=True)
    legs: dict[str, tuple[Points, list[float], int]] = {}
    for copy, (side, shift) in enumerate((("far", 0.09), ("near", 0.0))):
        x, lift = 0.2 + shift, -0.03 if side == "far" else 0.0
        joints = np.array([(x, -0.6), (x + 0.03, -0.48), (x + 0.05, -0.24), (x + 0.06, -width * 0.5 + lift)])
        legs[f"{side} front"] = (joints, [width * 1.6, width * 1.35, width * 0.95, width * 0.8], copy)
    _leg(animal, *legs["far front"], far=True)
    depth = build.depth
    torso = [(0.28, -0.92), (0.06, -0.9), (-0.2, -0.62), (-0.42, -0.34), (-0.44, -0.1), (-0.2, -0.02), (0.08, -0.22)]
    torso += [(0.24 + depth * 0.1, -0.44), (0.34 + depth * 0.1, -0.68)]
    pen.shape("torso", ruffled(torso, build.wool, 22, rng) if build.wool else torso, surface, smooth=not build.wool)
    _leg(animal, *legs["near front"], far=False)
    foot = np.array([(-0.22, -0.2), (0.06, -0.26), (-0.1, -width * 0.9), (0.1, -width * 0.55)])
    legs["near back"] = (foot, [0.17, 0.14, width * 1.1, width * 0.8], 2)
    _leg(animal, *legs["near back"], far=False)
    _neck_and_head(animal, np.add(front, (0.0, -0.04)), max(build.neck_angle, 55) + rng.uniform(0, 14), False, rng)
    _leg_landmarks(animal, legs)
    pen.landmark("neck", (front[0] + 0.02, front[1] - 0.04))
    pen.landmark("root_of_tail", (hip[0] - 0.16, -0.13))


def _draw_lying(animal: _Animal, rng: np.random.Generator) -> None:
    pen, build = animal.pen, animal.build
    half, width = build.length / 2, build.leg
    drop = 1 - build.depth - 0.02
    outline = np.add(_torso_outline(build), (0, drop))
    outline[:, 1] = np.minimum(outline[:, 1], 0.0)
    legs: dict[str, tuple[Points, list[float], int]] = {}
    reach = rng.uniform(0.22, 0.38)
    for copy, (side, shift) in enumerate((("far", 0.1), ("near", 0.0))):
        x, lift = half - 0.08 + shift, -0.05 if side == "far" else 0.0
        joints = [(x - 0.05, -0.2), (x - 0.06, -0.09 + lift), (x + reach * 0.5, -width * 0.9 + lift)]
        joints.append((x + reach, -width * 0.7 + lift))
        legs[f"{side} front"] = (np.array(joints), [width * 1.5, width * 1.2, width * 0.9, width * 0.75], copy)
    _tail(animal, (-half - 0.04, drop - 0.86), rng, flat=True)
    _leg(animal, *legs["far front"], far=True)
    pen.shape("torso", ruffled(outline, build.wool, 26, rng) if build.wool else outline, animal.hair(0),
              smooth=not build.wool)  # fmt: skip
    x = -half + 0.14
    thigh = [(x - 0.04, -0.26), (x + 0.2, -0.2), (x + 0.02, -width * 0.9), (x + 0.34, -width * 0.6)]
    legs["near back"] = (np.array(thigh), [0.17, 0.12, width * 1.1, width * 0.75], 2)
    _leg(animal, *legs["near back"], far=False)
    _leg(animal, *legs["near front"], far=False)
    base = np.array([half - 0.06, drop - 0.84])
    _neck_and_head(animal, base, max(build.neck_angle, 35), False, rng)
    _leg_landmarks(animal, legs)
    pen.landmark("neck", (base[0] + 0.02, base[1] - 0.02))
    pen.landmark("root_of_tail", (-half - 0.02, drop - 0.88))


def _tail(animal: _Animal, root: tuple[float, float], rng: np.random.Generator, flat: bool = False) -> None:
    pen, build = animal.pen, animal.build
    length, (x, y) = build.tail_length, root
    surface = animal.hair(90)
    sway = rng.uniform(-0.1, 0.1)
    if flat and build.tail != "short":
        y_end = min(-0.05, y + length * 0.8)
        path = [
            (x, y),
            (x - length * 0.25, (y + y_end) / 2),
            (x - length * 0.55, y_end),
            (x - length * 0.8, y_end - 0.04),
        ]
    elif build.tail == "curved":
        raised = rng.uniform(-0.9, 0.4)
        path = [(x, y), (x - length * 0.35, y + length * 0.12 * raised), (x - length * 0.7, y + length * 0.45 * raised)]
        path.append((x - length * 0.8, y + length * raised * 0.95 - 0.08))
    elif build.tail == "bushy":
        fall = rng.uniform(0.25, 0.75)
        path = [(x, y), (x - length * 0.35, y + length * fall * 0.4), (x - length * 0.75, y + length * fall * 0.9)]
        path.append((x - length * 0.95, y + length * fall))
    else:
        path = [
            (x, y),
            (x - 0.07, y + length * 0.2),
            (x - 0.08 + sway * 0.5, y + length * 0.6),
            (x - 0.05 + sway, y + length),
        ]
    thin = 0.022
    if build.tail == "bushy":
        pen.limb("tail", path, [0.04, 0.1, 0.105, 0.03], animal.hair(30))
        if animal.species == "fox":
            pen.limb("tail", path[-2:], [0.085, 0.03], replace(animal.hair(30), colour=WHITE))
    elif build.tail == "hair":
        pen.limb("tail", path, [0.04, 0.07, 0.085, 0.025], replace(surface, colour=animal.fringe, pattern=None))
    elif build.tail == "tuft":
        pen.limb("tail", path, [thin * 1.4, thin, thin * 0.9, thin * 0.9], surface)
        tuft = replace(surface, colour=animal.fringe, pattern=None)
        pen.ellipse("tail", path[-1], (0.045, 0.085), tuft, angle=sway * 2)
    elif build.tail == "short":
        pen.limb("tail", path[:3], [0.055, 0.06, 0.03], surface)
    else:
        pen.limb("tail", path, [0.05, 0.042, 0.036, 0.02], surface)


def _neck_and_head(animal: _Animal, base: Points, angle: float, grazing: bool, rng: np.random.Generator) -> None:
    pen, build = animal.pen, animal.build
    turn = np.deg2rad(angle)
    direction = np.array([np.cos(turn), -np.sin(turn)])
    length = build.neck if not grazing else max(build.neck, 0.5)
    head = base + direction * length
    middle = np.add(base + direction * length * 0.5, (0.0, 0.02))
    surface = animal.hair(int(-angle) % 180)
    width = build.neck_width
    inner = np.add(base, (-0.08, 0.1))
    path, radii = [inner, middle, head], [min(width * 1.22, 0.22), width * 0.98, build.skull * 0.72]
    if build.mane == "neck":
        crest = [
            np.add(base, (-0.1, -0.1)),
            np.add(middle, (-width * 0.75, -width * 0.55)),
            np.add(head, (-0.08, -build.skull * 0.9)),
        ]
        pen.limb("neck", crest, [0.05, 0.075, 0.05], Material(animal.fringe, "hair75", 0.22, 0.5))
    pen.limb("neck", path, radii, surface)
    if build.mane == "beard":
        beard = [(base[0] - 0.22, -0.95), (head[0] + 0.05, head[1] - 0.1), (head[0] - 0.02, head[1] + 0.3)]
        beard += [(base[0] + 0.02, -0.3), (base[0] - 0.2, -0.42)]
        fur = replace(animal.hair(90), colour=mixed(animal.coat.colour, BLACK, 0.35), strength=0.22)
        pen.shape("neck", ruffled(beard, 0.03, 20, rng), fur, smooth=False)
    if not grazing and rng.random() < 0.4:
        _face(animal, head + direction * 0.04, rng)
    else:
        tilt = build.head_tilt if not grazing else rng.uniform(48, 66)
        _profile(animal, head, tilt)


def _eye(animal: _Animal, at: Points, size: float) -> None:
    pen = animal.pen
    iris: Colour = {"cat": (150, 160, 70), "leopard": (190, 160, 70), "tiger": (190, 160, 70), "wolf": (190, 150, 70),
                    "arctic fox": (120, 90, 50)}.get(animal.species, (70, 46, 30))  # fmt: skip
    centre = (float(at[0]), float(at[1]))
    rim = Material(mixed(animal.coat.colour, BLACK, 0.7), roundness=0)
    pen.ellipse("eye", centre, (size * 1.3, size * 1.15), rim)
    pen.ellipse("eye", centre, (size, size * 0.95), Material(iris, roundness=0))
    pen.detail(ellipse_points(centre, (size * 0.55, size * 0.7)), Material((14, 12, 12), roundness=0), smooth=False)
    glint = ellipse_points((centre[0] - size * 0.3, centre[1] - size * 0.35), (size * 0.25, size * 0.25), n=10)
    pen.detail(glint, Material((245, 245, 245), roundness=0), smooth=False)


def _rotation(degrees: float) -> Points:
    turn = np.deg2rad(degrees)
    return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])


def _profile(animal: _Animal, at: Points, tilt: float) -> None:
    """The head from the side, its nose to the right and turned down by ``tilt`` degrees."""
    pen, build = animal.pen, animal.build
    reach, high = build.muzzle, build.muzzle_height
    turn = _rotation(tilt)

    def place(points: list[tuple[float, float]]) -> Points:
        return np.array(points) * build.skull @ turn.T + at

    tip = 0.85 + reach
    surface = replace(animal.hair(int(tilt)), under=animal.coat.under)
    bare = build.wool > 0.03
    if bare:
        surface = replace(surface, texture="hair30", colour=animal.dark, strength=0.06)
    _ear(animal, place([(-0.25, -0.75)])[0], turn, build, 0.75, copy=1)
    if build.horn:
        _horn(animal, place([(0.15, -0.85)])[0], turn, 1, 0.8)
    outline = place([
        (-0.95, -0.35), (-0.45, -0.92), (0.2, -1.0), (0.75, -0.72), (0.85 + reach * 0.45, 0.25 - high * 0.95),
        (tip - 0.08, 0.36 - high * 0.75), (tip + 0.08, 0.38), (tip - 0.1, 0.4 + high * 0.55),
        (0.85 + reach * 0.4, 0.42 + high * 0.52), (0.5, 0.82), (-0.1, 0.98), (-0.75, 0.62),
    ])  # fmt: skip
    pen.shape("head", outline, surface)
    if build.face_muzzle:
        front = 0.85 + reach * 0.3
        muzzle = place([
            (front, 0.27 - high), (0.85 + reach * 0.6, 0.3 - high * 0.95), (tip - 0.06, 0.36 - high * 0.75),
            (tip + 0.08, 0.38), (tip - 0.1, 0.4 + high * 0.55), (front, 0.45 + high * 0.55), (front - 0.18, 0.3),
        ])  # fmt: skip
        light = mixed(surface.colour, animal.coat.under or (225, 205, 185), 0.25 if build.foot == "paw" else 0.12)
        pen.shape("muzzle", muzzle, replace(surface, colour=light, relief=0.25))
    lip = place([(tip - 0.05, 0.42 + high * 0.12), (0.85 + reach * 0.5, 0.5 + high * 0.2), (0.8, 0.5)])
    pen.strokes([smooth_open(lip, 4)], build.skull * 0.07, animal.dark, 0.8)
    nose = place([(tip - 0.02, 0.36 - high * 0.35)])[0]
    dark = Material((36, 30, 30), "", 0, 0.6, 0.3, 0.25)
    if build.foot == "paw":
        size = build.skull * 0.17
        pen.ellipse("nose", (float(nose[0]), float(nose[1])), (size * 1.05, size * 0.9), dark, angle=np.deg2rad(tilt))
    else:
        nostril = place([(tip - 0.14, 0.32 - high * 0.2)])[0]
        points = ellipse_points((nostril[0], nostril[1]), (build.skull * 0.1, build.skull * 0.07), np.deg2rad(tilt))
        pen.detail(points, replace(dark, roundness=0), smooth=False)
    eye = place([(0.42, -0.28)])[0]
    _eye(animal, eye, build.skull * (0.15 if build.foot == "paw" else 0.13))
    if build.horn:
        _horn(animal, place([(0.05, -0.85)])[0], turn, 1, 1.0)
    _ear(animal, place([(-0.4, -0.7)])[0], turn, build, 1.0, copy=0)
    pen.landmark(f"{animal.near}_eye", (eye[0], eye[1]))
    pen.landmark("nose", (nose[0], nose[1]))


def _face(animal: _Animal, at: Points, rng: np.random.Generator) -> None:
    """The head turned to the viewer, a little to either side."""
    pen, build = animal.pen, animal.build
    skull = build.skull * 1.05
    yaw = rng.uniform(-0.25, 0.45)
    long = 0.55 + 0.75 * build.muzzle * (0.62 if build.foot == "hoof" else 0.3)
    narrow = 0.62 if build.foot == "hoof" else 0.9
    surface = animal.hair(90)
    if build.wool > 0.03:
        surface = replace(surface, texture="hair90", colour=animal.dark, strength=0.06)

    def place(points: list[tuple[float, float]]) -> Points:
        return np.array(points) * skull + at

    flip = np.array([[-1.0, 0.0], [0.0, 1.0]])
    upright = _rotation(-68)
    for copy, mirror in ((1, flip), (0, np.eye(2))):
        spot = place([(0.62 * mirror[0, 0], -0.72)])[0]
        if build.horn:
            _horn(animal, place([(0.4 * mirror[0, 0], -0.85)])[0], mirror @ _rotation(12), 0, 1.0)
        turn = mirror @ (upright if build.ear in ("pointed", "round") else _rotation(8))
        _ear(animal, spot, turn, build, 0.95, copy=copy, front=True)
    outline = place([
        (-0.55, -0.95), (0.0, -1.05), (0.55, -0.95), (0.98 * narrow + 0.08, -0.3), (0.78 * narrow, 0.35),
        (0.5 + yaw * 0.3, long + 0.05), (yaw * 0.5, long + 0.32), (-0.5 + yaw * 0.3, long + 0.05),
        (-0.78 * narrow, 0.35), (-0.98 * narrow - 0.08, -0.3),
    ])  # fmt: skip
    pen.shape("head", outline, surface)
    width, height = (0.46, 0.4) if build.foot == "hoof" else (0.5, 0.38)
    centre = place([(yaw * 0.55, long - 0.12)])[0]
    light = mixed(surface.colour, animal.coat.under or (228, 212, 196), 0.35 if build.foot == "paw" else 0.2)
    muzzle = replace(surface, colour=light, under=None, pattern=None)
    pen.ellipse("muzzle", (centre[0], centre[1]), (skull * width, skull * height), muzzle)
    nose = np.add(centre, (0.0, -skull * height * 0.45))
    dark = Material((38, 32, 32), "", 0, 0.6, 0.3, 0.25)
    if build.foot == "paw":
        tip = [(-0.2, -0.1), (0.2, -0.1), (0.1, 0.1), (0.0, 0.16), (-0.1, 0.1)]
        pen.shape("nose", np.array(tip) * skull * 1.05 + nose, dark)
        mouth = [(-0.26, 0.34), (-0.08, 0.4), (0.0, 0.12), (0.08, 0.4), (0.26, 0.34)]
        pen.strokes([smooth_open(np.array(mouth) * skull + nose, 4)], skull * 0.06, animal.dark, 0.85)
    else:
        for side in (-0.2, 0.2):
            points = ellipse_points((nose[0] + side * skull, nose[1] + skull * 0.1), (skull * 0.07, skull * 0.1))
            pen.detail(points, replace(dark, roundness=0), smooth=False)
        lips = [np.add(centre, (side * skull, skull * 0.2)) for side in (-0.25, 0.25)]
        pen.strokes([lips], skull * 0.05, animal.dark, 0.7)
    spread = 0.42 if build.foot == "paw" else 0.6 * narrow + 0.1
    for side, own in ((1, animal.far), (-1, animal.near)):
        eye = place([(spread * side + yaw * 0.35, -0.18)])[0]
        _eye(animal, eye, build.skull * 0.15)
        pen.landmark(f"{own}_eye", (eye[0], eye[1]))
    pen.landmark("nose", (nose[0], nose[1]))


def _ear(
    animal: _Animal, at: Points, turn: Points, build: Build, shade: float, *, copy: int, front: bool = False
) -> None:
    """One ear; its own axis is +x along ``turn`` for front views, backwards-up for side views."""
    pen = animal.pen
    size = build.skull * build.ear_size
    shapes: dict[str, list[tuple[float, float]]] = {
        "pointed": [(-0.42, 0.28), (-0.3, -0.45), (-0.02, -1.15), (0.28, -0.5), (0.42, 0.25)],
        "round": [(-0.55, 0.3), (-0.6, -0.35), (0.0, -0.8), (0.6, -0.35), (0.55, 0.3)],
        "floppy": [(-0.15, -0.25), (-0.55, 0.15), (-0.62, 0.95), (-0.25, 1.35), (0.15, 0.85), (0.3, 0.0)],
        "side": [(0.2, -0.1), (-0.5, -0.3), (-1.15, -0.1), (-1.0, 0.18), (-0.4, 0.25), (0.15, 0.2)],
        "droop": [(0.2, -0.15), (-0.5, -0.1), (-1.05, 0.35), (-0.95, 0.62), (-0.4, 0.35), (0.15, 0.2)],
    }
    outline = np.array(shapes[build.ear]) * size
    if front:
        mirror = np.array([[np.sign(turn[0, 0]) or 1.0, 0.0], [0.0, 1.0]])
        lean = _rotation(22) if build.ear in ("pointed", "round") else np.array([[-1.0, 0.0], [0.0, 1.0]])
        points = outline @ lean.T @ mirror.T + at
    else:
        points = outline @ (turn @ _rotation(-18)).T + at
    surface = animal.hair(90).shaded(shade * 0.88)
    if build.wool > 0.03:
        surface = replace(surface, texture="hair90", colour=animal.dark, strength=0.06)
    pen.shape("ear", points, replace(surface, under=None, pattern=None), copy=copy)
    if build.ear != "floppy" and shade > 0.8:
        inner = points.mean(axis=0) + (points - points.mean(axis=0)) * 0.5
        pen.detail(inner, Material(mixed(surface.colour, (205, 150, 140), 0.45), "", 0, 0.5))


def _horn(animal: _Animal, at: Points, turn: Points, side: int, shade: float) -> None:
    """Horns by kind; +x of ``turn`` is forward for side views (``side`` 1), outward for front views (0)."""
    pen, unit = animal.pen, animal.build.skull
    paths: dict[str, tuple[list[tuple[float, float]], list[float]]] = {
        "cow": ([(0, 0), (0.15, -0.45), (0.5, -0.75)], [0.14, 0.11, 0.03]),
        "short": ([(0, 0.1), (0.2, -0.35), (0.1, -0.85)], [0.17, 0.14, 0.03]),
        "sweep": ([(0, 0.1), (-0.7, 0.25), (-1.3, -0.3), (-1.1, -1.1)], [0.26, 0.24, 0.17, 0.04]),
        "lyre": ([(0, 0), (-0.2, -0.9), (-0.65, -1.7), (-0.45, -2.6)], [0.14, 0.13, 0.1, 0.03]),
        "ram": ([(0, 0), (-0.55, -0.75), (-1.35, -0.45), (-1.35, 0.5), (-0.7, 0.85), (-0.2, 0.45)],
                [0.3, 0.32, 0.28, 0.22, 0.14, 0.05]),
        "antler": ([(0, 0), (-0.45, -0.8), (-0.3, -1.7), (0.1, -2.4)], [0.1, 0.09, 0.07, 0.03]),
    }  # fmt: skip
    path, radii = paths[animal.build.horn]
    tones: dict[str, Colour] = {
        "lyre": (62, 54, 50),
        "sweep": (66, 60, 58),
        "short": (60, 52, 48),
        "ram": (156, 128, 94),
    }
    tone = tones.get(animal.build.horn, (206, 192, 164))
    points = np.array(path)
    if side == 0 and animal.build.horn in ("sweep", "ram", "lyre", "antler"):
        points[:, 0] *= -1.0
    points = points * unit @ turn.T + at
    material = Material(scaled(tone, shade), "hair0", 0.12, 0.6, 0.4, 0.1)
    pen.limb("horn", points, [radius * unit for radius in radii], material)
    if animal.build.horn == "antler":
        for index, reach in ((1, 0.6), (2, 0.5)):
            branch = [points[index], points[index] + np.array([0.35, -reach]) * unit @ turn.T]
            pen.limb("horn", branch, [0.06 * unit, 0.025 * unit], material)
    elif animal.build.horn in ("ram", "lyre"):
        curve = smooth_open(points, 4)
        normals = np.gradient(curve, axis=0)[:, ::-1] * (-1, 1)
        widths = np.interp(np.linspace(0, 1, len(curve)), np.linspace(0, 1, len(radii)), radii) * unit
        normals *= (widths / np.maximum(np.linalg.norm(normals, axis=1), 1e-9))[:, None] * 0.8
        rings = [[c - n, c + n] for c, n in zip(curve[1:-2], normals[1:-2], strict=True)]
        pen.strokes(rings, unit * 0.05, scaled(tone, 0.6), 0.6)
