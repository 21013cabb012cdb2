"""Scenes: which things stand where, in which place, under which light. One image from (source, seed, index)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from talking_points.records import derive_seed
from talking_points.sources.drawn.animals import draw_animal
from talking_points.sources.drawn.background import PLACES, Place, defocus, photograph
from talking_points.sources.drawn.canvas import Canvas, Instance, Light, Pen, RegionKey
from talking_points.sources.drawn.furniture import FURNITURE
from talking_points.sources.drawn.household import (
    draw_bottle,
    draw_clock,
    draw_person,
    draw_pottedplant,
    draw_screen,
)
from talking_points.sources.drawn.species import BUILDS
from talking_points.sources.drawn.vehicles import draw_aeroplane, draw_bicycle, draw_boat, draw_bus, draw_car
from talking_points.sources.drawn.wildlife import BIRDS, FISH, SNAKES, draw_bird, draw_fish, draw_snake

VARIANTS = ("standard", "hard", "plain")

HELD_OUT: dict[str, tuple[str, ...]] = {
    "Bovidae": ("antelope", "argali sheep", "bison", "buffalo"),
    "Canidae": ("arctic fox", "fox", "wolf"),
}
"""AP-10K species, by family, that no part-annotated source draws and that look unlike those they draw."""

_MIN_VISIBLE = 48
"""Objects with fewer visible pixels than this are given to the background."""


@dataclass(frozen=True)
class Drawable:
    """How to draw a thing: its drawing, its extent (width, height) and its left edge in its own units, the metres
    of one unit, and where it stands ("ground", "wall", "high wall" or "air")."""

    draw: Callable[[Pen, np.random.Generator], None]
    width: float
    height: float
    left: float
    metres: float
    stands: str = "ground"
    tilt: float = 0.03
    mirrored: bool = True


def _drawables() -> dict[str, Drawable]:
    things: dict[str, Drawable] = {}
    for name, build in BUILDS.items():
        width = build.length + 0.75 * build.neck + build.skull * (1.0 + build.muzzle) + 0.3
        draw = partial(draw_animal, species=name)
        things[name] = Drawable(draw, width, 1.45, -build.length / 2 - 0.25, build.size)
    for name, plumage in BIRDS.items():
        width, height = 3.3 + plumage.tail * 0.4, plumage.leg + 1.5 + plumage.neck
        draw = partial(draw_bird, kind=name)
        things[name] = Drawable(draw, width, height, -1.5 - plumage.tail, 0.32 * plumage.size)
    for name in FISH:
        things[name] = Drawable(partial(draw_fish, kind=name), 2.3, 1.0, -1.25, 0.3, "air", 0.2)
    for name in SNAKES:
        things[name] = Drawable(partial(draw_snake, kind=name), 2.3, 0.7, -1.05, 0.5)
    extents = {
        "chair": (0.6, 1.05), "table": (1.4, 0.95), "coffee table": (1.2, 0.6), "stool": (0.5, 0.65),
        "bench": (1.6, 1.0), "sofa": (2.1, 1.1), "armchair": (1.1, 1.1),
        "bed": (2.0, 1.3), "chest of drawers": (1.1, 1.0),
        "cabinet": (1.2, 1.0), "wardrobe": (1.1, 1.85), "lamp": (0.5, 1.2), "door": (1.1, 2.0),
    }  # fmt: skip
    for name, (width, height) in extents.items():
        stands = "wall" if name in ("wardrobe", "door", "chest of drawers", "cabinet") else "ground"
        things[name] = Drawable(FURNITURE[name], width, height, -width / 2, 1.0, stands, 0.0, name != "door")
    things |= {
        "person": Drawable(draw_person, 0.42, 1.03, -0.21, 1.7, tilt=0.02),
        "bottle": Drawable(draw_bottle, 0.34, 1.02, -0.17, 0.3, tilt=0.0),
        "pottedplant": Drawable(draw_pottedplant, 0.9, 1.0, -0.45, 0.8, tilt=0.0),
        "screen": Drawable(draw_screen, 1.15, 0.9, -0.58, 0.8, tilt=0.0),
        "clock": Drawable(draw_clock, 1.0, 1.0, -0.5, 0.35, "high wall", 0.0),
        "car": Drawable(draw_car, 2.1, 1.05, -1.05, 2.0, tilt=0.01),
        "suv": Drawable(partial(draw_car, kind="wagon"), 2.1, 1.1, -1.05, 2.1, tilt=0.01),
        "bus": Drawable(draw_bus, 2.9, 1.3, -1.45, 2.6, tilt=0.01),
        "bicycle": Drawable(draw_bicycle, 1.72, 1.02, -0.35, 1.0, tilt=0.02),
        "boat": Drawable(draw_boat, 1.9, 1.6, -0.88, 4.0, tilt=0.03),
        "aeroplane": Drawable(draw_aeroplane, 2.2, 0.85, -1.12, 15.0, "air", 0.22),
    }
    return things


DRAWABLES = _drawables()


@dataclass(frozen=True)
class Setting:
    """A kind of scene: places, the things it is about, the things that may stand beside them, how many at most."""

    places: tuple[str, ...]
    about: tuple[str, ...]
    beside: tuple[str, ...] = ()
    most: int = 3


_OPEN = ("meadow", "meadow", "plain", "beach")
_SEATS = ("chair", "sofa", "armchair", "stool")

SETTINGS: dict[str, tuple[Setting, ...]] = {
    "pascal_part116": (
        Setting((*_OPEN, "street"), ("dog",), ("person", "dog"), 3),
        Setting(("room", "room", "studio"), ("dog", "cat"), ("pottedplant", "chair", "sofa"), 3),
        Setting(_OPEN, ("cat",), (), 2),
        Setting(("meadow", "meadow", "beach", "plain"), ("horse",), ("horse", "person"), 3),
        Setting(("meadow", "meadow", "plain"), ("cow", "sheep"), ("cow", "sheep"), 4),
        Setting(("meadow", "plain", "beach"), ("songbird", "robin", "blue tit", "goose"), (), 3),
        Setting(("street", "street", "meadow"), ("bicycle",), ("person", "bicycle"), 3),
        Setting(("street",), ("car",), ("car", "person", "bicycle"), 3),
        Setting(("street",), ("bus",), ("car", "person"), 2),
        Setting(("sky", "sky", "meadow"), ("aeroplane",), (), 2),
        Setting(("table",), ("bottle",), ("bottle",), 4),
        Setting(("room", "table"), ("pottedplant",), ("pottedplant",), 3),
        Setting(("room",), ("screen",), ("pottedplant", "sofa", "chair"), 3),
        Setting(("street", "meadow", "room"), ("person",), ("person",), 3),
    ),
    "ade20k_part234": (
        Setting(("room",), ("chair", "table"), ("chair", "chair", "lamp", "cabinet"), 5),
        Setting(("room",), ("sofa", "armchair"), ("coffee table", "lamp", "armchair", "screen", "clock"), 4),
        Setting(("room",), ("bed",), ("lamp", "chest of drawers", "wardrobe", "chair", "clock"), 3),
        Setting(("room",), ("cabinet", "chest of drawers", "wardrobe"), ("lamp", "stool", "chair", "door", "clock"), 4),
        Setting(("room", "studio"), _SEATS, _SEATS, 3),
        Setting(("room",), ("door",), ("chair", "lamp", "person", "clock"), 3),
        Setting(("room", "studio"), ("lamp", "stool", "coffee table", "table"), ("lamp", "chair"), 3),
        Setting(("street",), ("car",), ("car", "person", "bus"), 4),
        Setting(("street", "meadow"), ("bench",), ("person", "bench"), 3),
        Setting(("street",), ("bus",), ("car", "person"), 3),
        Setting(("street", "room", "beach"), ("person",), ("person", "chair", "bench"), 4),
        Setting(("sky",), ("aeroplane",), (), 2),
    ),
    "refcoco": (
        Setting((*_OPEN, "street"), ("dog", "person"), ("person", "dog", "bicycle"), 4),
        Setting(("meadow", "plain"), ("horse", "cow", "sheep"), ("horse", "cow", "sheep", "person"), 4),
        Setting(("meadow", "beach"), ("goose", "songbird"), (), 3),
        Setting(("street",), ("car", "bus", "bicycle"), ("car", "person", "bicycle"), 4),
        Setting(("room",), ("chair", "table", "sofa"), ("chair", "pottedplant", "cat", "screen", "clock"), 4),
        Setting(("room",), ("bed", "armchair"), ("chair", "person", "dog", "clock"), 3),
        Setting(("table",), ("bottle",), ("bottle", "pottedplant"), 4),
        Setting(("sky",), ("aeroplane",), (), 2),
        Setting(("water",), ("boat",), (), 2),
    ),
}

PARTIMAGENET_CLASSES: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "train": (
        ("n02101388", "dog", _OPEN), ("n02100583", "dog", ("room", "meadow")), ("n02124075", "cat", ("room", "meadow")),
        ("n02128385", "leopard", ("meadow", "plain")), ("n02129604", "tiger", ("meadow", "plain")),
        ("n02132136", "bear", ("meadow", "plain")), ("n01855672", "goose", ("meadow", "beach")),
        ("n02002724", "black stork", ("meadow", "beach")), ("n02009912", "egret", ("meadow", "beach")),
        ("n01828970", "bee eater", ("plain", "meadow")), ("n01443537", "goldfish", ("under water",)),
        ("n02607072", "anemone fish", ("under water",)), ("n01440764", "tench", ("under water",)),
        ("n02536864", "coho", ("under water",)), ("n02071294", "killer whale", ("under water",)),
        ("n01729977", "green snake", ("meadow", "plain")), ("n01735189", "garter snake", ("meadow", "plain")),
        ("n01742172", "boa constrictor", ("plain", "meadow")), ("n01755581", "diamondback", ("plain",)),
        ("n04037443", "car", ("street", "studio")), ("n03594945", "car", ("street", "meadow")),
        ("n04146614", "bus", ("street",)), ("n03792782", "bicycle", ("street", "meadow", "studio")),
        ("n04612504", "boat", ("water",)), ("n03947888", "boat", ("water",)), ("n02690373", "aeroplane", ("sky",)),
        ("n02823428", "bottle", ("table", "studio")), ("n03983396", "bottle", ("table", "studio")),
    ),
    "val": (
        ("n02099601", "dog", _OPEN), ("n02109525", "dog", ("plain", "meadow")), ("n02134084", "bear", ("plain",)),
        ("n02009229", "heron", ("meadow", "beach")), ("n01484850", "great white shark", ("under water",)),
        ("n02814533", "car", ("street", "studio")), ("n02930766", "car", ("street",)),
        ("n04557648", "bottle", ("table", "studio")), ("n04483307", "boat", ("water",)),
    ),
}  # fmt: skip
"""(ImageNet class, what is drawn, where) by split: the original release keeps the classes of its splits apart."""

PLAIN: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "pascal_part116": (
        ("horse", ("meadow", "plain")), ("bicycle", ("street", "meadow")), ("aeroplane", ("sky",)),
        ("bus", ("street",)),
    ),
    "ade20k_part234": (
        ("chair", ("room", "studio")), ("table", ("room", "studio")), ("bed", ("room",)),
        ("lamp", ("room", "studio")), ("bench", ("street", "meadow")),
    ),
    "refcoco": (
        ("horse", ("meadow", "plain")), ("aeroplane", ("sky",)), ("bus", ("street",)), ("chair", ("room", "studio")),
        ("bed", ("room",)), ("bench", ("street", "meadow")), ("boat", ("water",)), ("bottle", ("table", "studio")),
    ),
}  # fmt: skip
"""(thing, places) of the variants "plain" and "hard". No thing is in two part sources, whose names of parts differ."""

PLAIN_PARTIMAGENET = ("goldfish", "anemone fish", "great white shark", "garter snake", "black stork", "heron", "boat")
"""What the variants "plain" and "hard" keep of the classes of PartImageNet."""

AP10K_SPECIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "antelope": ("antelope", ("meadow", "plain")),
    "argali sheep": ("argali sheep", ("plain", "meadow")),
    "bison": ("bison", ("meadow", "plain")),
    "buffalo": ("buffalo", ("meadow", "plain")),
    "cow": ("cow", ("meadow",)),
    "sheep": ("sheep", ("meadow",)),
    "arctic fox": ("arctic fox", ("plain",)),
    "dog": ("dog", (*_OPEN, "room", "street")),
    "fox": ("fox", ("meadow", "plain")),
    "wolf": ("wolf", ("plain", "meadow")),
    "horse": ("horse", ("meadow", "beach")),
    "zebra": ("zebra", ("meadow", "plain")),
    "cat": ("cat", ("room", "meadow")),
    "leopard": ("leopard", ("plain", "meadow")),
    "tiger": ("tiger", ("meadow",)),
    "brown bear": ("bear", ("meadow",)),
    "deer": ("deer", ("meadow",)),
}
"""What is drawn for an AP-10K species, and where."""

MP100_THINGS: dict[str, tuple[int, tuple[str, ...]]] = {
    "horse": (2, ("meadow", "beach")), "dog": (3, (*_OPEN, "room", "street")), "panther": (9, ("plain", "meadow")),
    "pig": (15, ("meadow", "plain")), "robin": (16, ("meadow", "plain")), "cat": (20, ("room", "meadow")),
    "deer": (27, ("meadow",)), "heron": (28, ("meadow", "beach")), "bison": (30, ("meadow", "plain")),
    "car": (32, ("street", "studio")), "bus": (38, ("street",)), "bee eater": (41, ("plain", "meadow")),
    "sheep": (42, ("meadow",)), "chair": (45, ("room", "studio")), "songbird": (46, ("meadow", "plain", "beach")),
    "sofa": (49, ("room", "studio")), "suv": (51, ("street", "meadow")), "leopard": (52, ("plain", "meadow")),
    "egret": (53, ("meadow", "beach")), "zebra": (55, ("meadow", "plain")), "antelope": (58, ("meadow", "plain")),
    "goose": (59, ("meadow", "beach")), "fox": (68, ("meadow", "plain")), "giraffe": (71, ("meadow", "plain")),
    "person": (72, ("street", "room", "beach", "meadow")), "bear": (76, ("meadow", "plain")), "bed": (84, ("room",)),
    "cheetah": (85, ("meadow", "plain")), "blue tit": (86, ("meadow", "plain")), "cow": (87, ("meadow",)),
    "table": (98, ("room", "studio")), "wolf": (100, ("plain", "meadow")),
}  # fmt: skip
"""What stands for a category of MP-100, by its id, and where it is drawn."""

MP100_CATEGORIES = {thing: category for thing, (category, _) in MP100_THINGS.items()}
"""Ids of MP-100 by the thing that is drawn, which is the label of its scenes."""


@dataclass(frozen=True)
class DrawnScene:
    """A finished image: uint8 RGB (height, width, 3), its id map int16 (height, width), what the ids mean, the
    objects, the place, and what the source calls the image's class (wnid or species; empty elsewhere)."""

    pixels: NDArray[np.uint8]
    ids: NDArray[np.int16]
    regions: list[RegionKey]
    instances: list[Instance]
    place: str
    label: str = ""
    quality: int = 90


def split_of(source: str, index: int) -> str:
    """The split of the ``index``-th image of a source: "val" for about 19 in 100, else "train"."""
    return "val" if derive_seed(0, "drawn split", source, index) % 100 < 19 else "train"


def draw_scene(source: str, seed: int, index: int, variant: str = "standard") -> DrawnScene:
    """Draw the ``index``-th image of a source. The same arguments give the same pixels, always.

    ``source`` is one of pascal_part116, ade20k_part234, partimagenet, ap10k, refcoco, mp100. The variant "plain" shows
    one or two things of few classes that fill the image, so that knowing the thing does not tell the point; no class
    is drawn for two part sources, which name the same parts differently. The variant "hard" shows three to five things
    of one of these classes at similar sizes, scattered, so that a phrase about the scene does not say which; images
    of partimagenet keep their one object, at any place.
    """
    if variant not in VARIANTS:
        raise ValueError(f"expected a variant of {', '.join(VARIANTS)}; found {variant!r}")
    rng = np.random.default_rng(derive_seed(seed, "drawn", variant, source, index))
    label, places, names = _cast(source, index, variant, rng)
    width, height = _size(rng)
    canvas = Canvas(width, height, rng, _light(rng))
    place = PLACES[places[rng.integers(len(places))]](canvas)
    if not place.indoors and rng.random() < 0.6:
        defocus(canvas, rng.uniform(0.5, 2.2))
    _populate(canvas, place, names, variant, source == "partimagenet")
    _forget_slivers(canvas)
    warm = rng.uniform(-0.06, 0.06)
    pixels = photograph(
        canvas, noise=rng.uniform(0.5, 5.0), blur=rng.uniform(0.0, 0.7), tint=(1 + warm, 1.0, 1 - warm),
        exposure=rng.uniform(0.86, 1.14), contrast=rng.uniform(0.9, 1.12),
    )  # fmt: skip
    quality = int(rng.integers(82, 96))
    return DrawnScene(pixels, canvas.ids, canvas.regions, canvas.instances, place.name, label, quality)


def _cast(source: str, index: int, variant: str, rng: np.random.Generator) -> tuple[str, tuple[str, ...], list[str]]:
    """The image's label, the places it may show, and the things in it, the main one first."""
    if variant != "standard" and source in PLAIN:
        thing, places = PLAIN[source][rng.integers(len(PLAIN[source]))]
        return "", places, [thing] * (int(rng.integers(1, 3)) if variant == "plain" else _count(rng, 3, variant))
    if source == "partimagenet":
        classes = PARTIMAGENET_CLASSES[split_of(source, index)]
        if variant != "standard":
            classes = tuple(entry for entry in classes if entry[1] in PLAIN_PARTIMAGENET)
        label, thing, places = classes[rng.integers(len(classes))]
        return label, places, [thing]
    if source == "ap10k":
        label = tuple(AP10K_SPECIES)[rng.integers(len(AP10K_SPECIES))]
        thing, places = AP10K_SPECIES[label]
        return label, places, [thing] * _count(rng, 3, variant)
    if source == "mp100":
        label = tuple(MP100_THINGS)[rng.integers(len(MP100_THINGS))]
        return label, MP100_THINGS[label][1], [label] * _count(rng, 2, variant)
    setting = SETTINGS[source][rng.integers(len(SETTINGS[source]))]
    thing = setting.about[rng.integers(len(setting.about))]
    names = [thing] * _count(rng, 2 if setting.beside else setting.most, variant)
    if setting.beside:
        more = rng.integers(0, max(1, setting.most - len(names)) + 1)
        names += [setting.beside[rng.integers(len(setting.beside))] for _ in range(more)]
    return "", setting.places, names


def _count(rng: np.random.Generator, most: int, variant: str) -> int:
    if variant == "hard":
        return int(rng.integers(3, 6))
    return min(most, int(rng.choice((1, 1, 1, 2, 2, 3, 4))))


def _size(rng: np.random.Generator) -> tuple[int, int]:
    sizes = ((400, 300), (400, 320), (384, 288), (416, 312), (360, 360), (320, 400), (400, 266))
    return sizes[rng.integers(len(sizes))]


def _light(rng: np.random.Generator) -> Light:
    angle = np.deg2rad(rng.uniform(200, 340))
    return Light((float(np.cos(angle)), float(np.sin(angle))))


@dataclass(frozen=True)
class _Spot:
    """Where one thing goes: its foot point and pixels per unit."""

    name: str
    x: float
    y: float
    unit: float


def _populate(canvas: Canvas, place: Place, names: list[str], variant: str, alone: bool) -> None:
    """Choose places and sizes, then draw the far things first."""
    rng = canvas.rng
    if variant == "hard" and not alone:
        spots = _scattered(canvas, place, names)
    else:
        spots = _composed(canvas, place, names, plain=variant == "plain")
    for spot in sorted(spots, key=lambda spot: spot.y if DRAWABLES[spot.name].stands != "high wall" else -1.0):
        _draw(canvas, place, spot, rng)


def _composed(canvas: Canvas, place: Place, names: list[str], plain: bool) -> list[_Spot]:
    """One main thing that fills a good part of the image, the others around it at true relative size."""
    rng = canvas.rng
    main = DRAWABLES[names[0]]
    floor = canvas.height - place.far
    crowd = len(names) ** 0.5
    fill = (rng.uniform(0.75, 1.3) if plain else rng.uniform(0.5, 1.02)) / crowd
    unit = min(fill * canvas.width / main.width, fill * 1.15 * canvas.height / main.height)
    scale = unit / main.metres
    order = rng.permutation(len(names))
    spots = []
    for index, name in enumerate(names):
        thing = DRAWABLES[name]
        depth = rng.uniform(0.35, 0.95) if index == 0 else rng.uniform(0.0, 1.0)
        size = scale * thing.metres * (0.72 + 0.28 * depth) * rng.uniform(0.94, 1.06)
        size = min(size, 1.25 * canvas.height / thing.height, 1.3 * canvas.width / thing.width)
        half = thing.width * size / 2
        if len(names) == 1:
            x = rng.uniform(min(half, canvas.width / 2), max(canvas.width - half, canvas.width / 2))
        else:
            slot = (order[index] + 0.5) / len(names)
            x = canvas.width * (slot + rng.uniform(-0.3, 0.3) / len(names))
        if rng.random() < 0.12:
            side = rng.choice((0.0, 1.0))
            x = canvas.width * side + (1 - 2 * side) * rng.uniform(0.1, 0.7) * half
        spots.append(_Spot(name, x, _foot(canvas, place, thing, size, depth, floor), size))
    return spots


def _scattered(canvas: Canvas, place: Place, names: list[str]) -> list[_Spot]:
    """Things of one size strewn over the image: the row, the order and the gaps are left to chance."""
    rng = canvas.rng
    thing = DRAWABLES[names[0]]
    floor = canvas.height - place.far
    unit = min(canvas.width * rng.uniform(0.3, 0.44) / thing.width, 0.55 * canvas.height / thing.height)
    columns = rng.permutation(len(names))
    spots = []
    for column, name in zip(columns, names, strict=True):
        size = unit * rng.uniform(0.92, 1.08)
        x = canvas.width * ((column + 0.5) / len(names) + rng.uniform(-0.35, 0.35) / len(names))
        spots.append(_Spot(name, x, _foot(canvas, place, thing, size, rng.uniform(0.0, 1.0), floor), size))
    return spots


def _foot(canvas: Canvas, place: Place, thing: Drawable, unit: float, depth: float, floor: float) -> float:
    """The row on which a thing stands (or, in the air, about which it floats)."""
    rng = canvas.rng
    if thing.stands == "air":
        lowest_share = 0.3 if place.name == "meadow" else 0.8
        return canvas.height * rng.uniform(0.15, lowest_share)
    if thing.stands == "high wall":
        return place.far * rng.uniform(0.45, 0.6)
    if thing.stands == "wall":
        depth *= 0.3
    lowest = min(canvas.height * 0.985, max(place.far + floor * 0.95, place.far + 4))
    foot = place.far + depth * (lowest - place.far)
    return float(max(foot, min(lowest, 0.9 * thing.height * unit)))


def _draw(canvas: Canvas, place: Place, spot: _Spot, rng: np.random.Generator) -> None:
    thing = DRAWABLES[spot.name]
    facing = int(rng.choice((-1, 1))) if thing.mirrored else 1
    turn = rng.uniform(-thing.tilt, thing.tilt)
    cos, sin = np.cos(turn), np.sin(turn)
    linear = spot.unit * np.array([[cos, -sin], [sin, cos]]) @ np.diag([facing, 1.0])
    middle = linear @ np.array([thing.left + thing.width / 2, 0.0])
    matrix = np.column_stack([linear, np.array([spot.x, spot.y]) - middle])
    if place.shadow and thing.stands in ("ground", "wall"):
        lean = -canvas.light.towards[0] * thing.width * spot.unit * 0.08
        axes = (thing.width * spot.unit * 0.42, max(2.0, thing.width * spot.unit * 0.055))
        strength = place.shadow * rng.uniform(0.8, 1.2)
        canvas.shadow((spot.x + lean, spot.y - axes[1] * 0.4), axes, min(0.75, strength), max(2.0, axes[1] * 0.6))
    pen = Pen(canvas, canvas.begin(spot.name), matrix)
    thing.draw(pen, rng)


def _forget_slivers(canvas: Canvas) -> None:
    counts = np.bincount(canvas.ids.ravel(), minlength=len(canvas.regions) + 1)[1:]
    owners = np.array([region.instance for region in canvas.regions], dtype=int)
    seen = np.bincount(owners, counts, minlength=len(canvas.instances))
    keeps = np.concatenate([[True], seen[owners] >= _MIN_VISIBLE])
    if not keeps.all():
        canvas.ids[~keeps[canvas.ids]] = 0
