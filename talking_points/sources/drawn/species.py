"""The kinds of four-legged animals: their proportions, poses and coats."""

from __future__ import annotations

from dataclasses import dataclass

from talking_points.sources.drawn.canvas import Colour, Pattern

Coat = tuple[Colour, Colour | None, Pattern | None]


@dataclass(frozen=True)
class Build:
    """Proportions in units of the height at the shoulder; facing right, ground at y = 0, up is negative."""

    length: float = 1.1
    depth: float = 0.42
    waist: float = 0.32
    leg: float = 0.075
    neck: float = 0.42
    neck_width: float = 0.17
    neck_angle: float = 50.0
    skull: float = 0.16
    muzzle: float = 0.95
    muzzle_height: float = 0.48
    head_tilt: float = 15.0
    ear: str = "pointed"
    ear_size: float = 0.9
    horn: str = ""
    tail: str = "thin"
    tail_length: float = 0.6
    foot: str = "paw"
    hump: float = 0.0
    wool: float = 0.0
    mane: str = ""
    face_muzzle: bool = True
    poses: tuple[str, ...] = ("stand", "walk")
    texture: float = 0.09
    size: float = 1.0


BLACK: Colour = (42, 38, 36)
WHITE: Colour = (236, 232, 224)

BUILDS: dict[str, Build] = {
    "dog": Build(poses=("stand", "walk", "sit", "lie"), ear="floppy", tail="curved", size=0.62),
    "cat": Build(
        length=1.15, depth=0.4, waist=0.34, leg=0.065, neck=0.24, skull=0.2, muzzle=0.45, muzzle_height=0.5,
        ear_size=1.0, tail="curved", tail_length=0.95, poses=("stand", "walk", "sit", "lie"), size=0.5, neck_angle=40,
    ),
    "horse": Build(
        length=1.12, depth=0.42, waist=0.36, leg=0.06, neck=0.56, neck_width=0.17, neck_angle=55, skull=0.15,
        muzzle=1.75, muzzle_height=0.52, head_tilt=42, ear_size=0.75, tail="hair", tail_length=0.65, foot="hoof",
        mane="neck", poses=("stand", "walk", "graze"), texture=0.05, size=1.15,
    ),
    "zebra": Build(
        length=1.1, depth=0.43, waist=0.38, leg=0.06, neck=0.48, neck_width=0.17, neck_angle=52, skull=0.15,
        muzzle=1.6, muzzle_height=0.52, head_tilt=40, ear_size=0.85, tail="tuft", tail_length=0.5, foot="hoof",
        mane="neck", poses=("stand", "walk", "graze"), texture=0.04, size=1.05,
    ),
    "cow": Build(
        length=1.3, depth=0.5, waist=0.46, leg=0.07, neck=0.36, neck_width=0.19, neck_angle=22, skull=0.16,
        muzzle=1.35, muzzle_height=0.62, head_tilt=38, ear="side", ear_size=0.9, horn="cow", tail="tuft",
        tail_length=0.72, foot="hoof", poses=("stand", "walk", "graze", "lie"), texture=0.05, size=1.05,
    ),
    "sheep": Build(
        length=1.15, depth=0.52, waist=0.5, leg=0.055, neck=0.26, neck_width=0.18, neck_angle=35, skull=0.14,
        muzzle=1.05, muzzle_height=0.55, head_tilt=30, ear="side", ear_size=0.8, tail="short", tail_length=0.2,
        foot="hoof", wool=0.05, poses=("stand", "walk", "graze", "lie"), texture=0.13, size=0.75,
    ),
    "tiger": Build(
        length=1.45, depth=0.44, waist=0.4, leg=0.09, neck=0.26, neck_width=0.2, neck_angle=22, skull=0.2, muzzle=0.7,
        muzzle_height=0.58, ear="round", ear_size=0.7, tail="curved", tail_length=0.8,
        poses=("stand", "walk", "lie"), size=0.85,
    ),
    "leopard": Build(
        length=1.4, depth=0.4, waist=0.36, leg=0.08, neck=0.26, neck_width=0.17, neck_angle=25, skull=0.18, muzzle=0.65,
        muzzle_height=0.56, ear="round", ear_size=0.7, tail="curved", tail_length=0.95,
        poses=("stand", "walk", "sit", "lie"), size=0.8,
    ),
    "bear": Build(
        length=1.25, depth=0.55, waist=0.5, leg=0.13, neck=0.28, neck_width=0.24, neck_angle=18, skull=0.2, muzzle=0.85,
        muzzle_height=0.55, ear="round", ear_size=0.65, tail="short", tail_length=0.1, poses=("stand", "walk"),
        texture=0.13, size=0.95,
    ),
    "deer": Build(
        length=1.0, depth=0.36, waist=0.28, leg=0.045, neck=0.5, neck_width=0.11, neck_angle=60, skull=0.12, muzzle=1.3,
        muzzle_height=0.5, head_tilt=22, ear="side", ear_size=1.3, horn="antler", tail="short", tail_length=0.14,
        foot="hoof", poses=("stand", "walk", "graze"), texture=0.05, size=0.95,
    ),
    "antelope": Build(
        length=1.02, depth=0.36, waist=0.27, leg=0.042, neck=0.46, neck_width=0.1, neck_angle=58, skull=0.11,
        muzzle=1.3, muzzle_height=0.5, head_tilt=22, ear="side", ear_size=1.1, horn="lyre", tail="tuft",
        tail_length=0.25, foot="hoof", poses=("stand", "walk", "graze"), texture=0.04, size=0.9,
    ),
    "argali sheep": Build(
        length=1.1, depth=0.46, waist=0.42, leg=0.06, neck=0.36, neck_width=0.19, neck_angle=42, skull=0.14,
        muzzle=1.15, muzzle_height=0.58, head_tilt=25, ear="side", ear_size=0.6, horn="ram", tail="short",
        tail_length=0.12, foot="hoof", poses=("stand", "walk", "graze"), texture=0.09, size=0.9,
    ),
    "bison": Build(
        length=1.3, depth=0.56, waist=0.36, leg=0.065, neck=0.3, neck_width=0.3, neck_angle=-6, skull=0.2, muzzle=0.95,
        muzzle_height=0.62, head_tilt=48, ear="side", ear_size=0.5, horn="short", tail="tuft", tail_length=0.4,
        foot="hoof", hump=0.2, mane="beard", poses=("stand", "walk", "graze"), texture=0.15, size=1.05,
    ),
    "buffalo": Build(
        length=1.35, depth=0.52, waist=0.46, leg=0.08, neck=0.34, neck_width=0.23, neck_angle=12, skull=0.17,
        muzzle=1.25, muzzle_height=0.66, head_tilt=36, ear="droop", ear_size=1.0, horn="sweep", tail="tuft",
        tail_length=0.6, foot="hoof", poses=("stand", "walk", "graze", "lie"), texture=0.06, size=1.05,
    ),
    "wolf": Build(
        length=1.12, depth=0.4, waist=0.29, leg=0.06, neck=0.34, neck_width=0.2, neck_angle=32, skull=0.16, muzzle=1.25,
        muzzle_height=0.44, ear_size=0.95, tail="bushy", tail_length=0.6, poses=("stand", "walk", "sit", "lie"),
        texture=0.16, size=0.72,
    ),
    "fox": Build(
        length=1.2, depth=0.36, waist=0.27, leg=0.05, neck=0.3, neck_width=0.15, neck_angle=36, skull=0.16, muzzle=1.3,
        muzzle_height=0.34, ear_size=1.35, tail="bushy", tail_length=0.9, poses=("stand", "walk", "sit", "lie"),
        texture=0.13, size=0.58,
    ),
    "arctic fox": Build(
        length=1.15, depth=0.48, waist=0.42, leg=0.07, neck=0.24, neck_width=0.2, neck_angle=32, skull=0.18,
        muzzle=0.85, muzzle_height=0.36, ear="round", ear_size=0.7, tail="bushy", tail_length=0.85, wool=0.025,
        poses=("stand", "walk", "sit", "lie"), texture=0.1, size=0.55,
    ),
    "panther": Build(
        length=1.42, depth=0.42, waist=0.37, leg=0.085, neck=0.26, neck_width=0.18, neck_angle=25, skull=0.19,
        muzzle=0.65, muzzle_height=0.57, ear="round", ear_size=0.65, tail="curved", tail_length=0.9,
        poses=("stand", "walk", "sit", "lie"), texture=0.06, size=0.8,
    ),
    "cheetah": Build(
        length=1.3, depth=0.36, waist=0.26, leg=0.06, neck=0.32, neck_width=0.14, neck_angle=34, skull=0.14, muzzle=0.6,
        muzzle_height=0.56, ear="round", ear_size=0.8, tail="curved", tail_length=0.95,
        poses=("stand", "walk", "sit", "lie"), size=0.8,
    ),
    "pig": Build(
        length=1.5, depth=0.62, waist=0.6, leg=0.085, neck=0.2, neck_width=0.28, neck_angle=8, skull=0.22, muzzle=1.0,
        muzzle_height=0.55, head_tilt=28, ear="pointed", ear_size=0.6, tail="thin", tail_length=0.3, foot="hoof",
        poses=("stand", "walk", "lie"), texture=0.03, size=0.75,
    ),
    "giraffe": Build(
        length=0.98, depth=0.42, waist=0.34, leg=0.05, neck=1.0, neck_width=0.13, neck_angle=64, skull=0.12, muzzle=1.5,
        muzzle_height=0.46, head_tilt=34, ear="side", ear_size=0.9, horn="short", tail="tuft", tail_length=0.5,
        foot="hoof", poses=("stand", "walk"), texture=0.04, size=1.4,
    ),
}  # fmt: skip

_TIGER_MARKS = Pattern("stripes", (40, 30, 26), 0.55)
_LEOPARD_MARKS = Pattern("spots", (52, 38, 28), 0.9)

COATS: dict[str, tuple[Coat, ...]] = {
    "dog": (
        ((182, 130, 78), (222, 190, 150), None), ((92, 62, 42), None, None), ((58, 54, 54), None, None),
        ((224, 206, 172), (240, 230, 210), None), ((220, 214, 204), None, Pattern("blotch", (120, 76, 46), 0.4)),
        ((228, 226, 222), None, Pattern("blotch", (50, 46, 46), 0.5)), ((150, 92, 54), (186, 136, 92), None),
    ),
    "cat": (
        ((202, 138, 76), (238, 214, 180), Pattern("stripes", (160, 96, 48), 0.5)), ((66, 62, 64), None, None),
        ((150, 146, 142), (200, 196, 190), Pattern("stripes", (96, 92, 90), 0.5)),
        ((232, 228, 222), None, Pattern("blotch", (64, 60, 60), 0.6)), ((170, 164, 164), (205, 200, 198), None),
        ((228, 222, 210), None, Pattern("blotch", (206, 140, 78), 0.3)),
    ),
    "horse": (
        ((124, 74, 46), None, None), ((70, 48, 38), None, None), ((196, 190, 184), None, None),
        ((168, 110, 66), None, None), ((226, 220, 212), None, Pattern("blotch", (118, 72, 46), 0.1, 1.6)),
    ),
    "zebra": (((236, 232, 226), None, Pattern("stripes", (36, 34, 36), 0.0, 0.8)),),
    "cow": (
        (WHITE, None, Pattern("blotch", (46, 42, 42), 0.1, 1.4)), ((150, 92, 56), None, None),
        (WHITE, None, Pattern("blotch", (142, 80, 48), 0.0, 1.4)), ((70, 56, 48), None, None),
        ((212, 178, 136), (232, 214, 190), None),
    ),
    "sheep": (((228, 220, 204), None, None), ((206, 196, 178), None, None), ((120, 104, 92), None, None)),
    "tiger": (((214, 140, 66), (238, 226, 206), _TIGER_MARKS), ((196, 118, 54), (230, 216, 196), _TIGER_MARKS)),
    "leopard": (((212, 166, 98), (236, 218, 184), _LEOPARD_MARKS), ((196, 152, 90), (226, 206, 170), _LEOPARD_MARKS)),
    "bear": (((112, 80, 56), None, None), ((56, 50, 50), None, None), ((228, 222, 204), None, None)),
    "deer": (((166, 116, 76), (214, 186, 156), None), ((142, 104, 74), (196, 172, 146), None)),
    "antelope": (((198, 144, 92), (240, 232, 218), None), ((176, 122, 76), (232, 220, 204), None)),
    "argali sheep": (((156, 134, 112), (220, 208, 192), None), ((182, 160, 132), (226, 214, 196), None)),
    "bison": (((104, 74, 52), None, None), ((84, 62, 48), None, None)),
    "buffalo": (((74, 68, 68), None, None), ((92, 82, 78), None, None)),
    "wolf": (((136, 132, 126), (196, 188, 176), None), ((106, 100, 98), (168, 158, 146), None)),
    "fox": (((206, 108, 48), (238, 226, 212), None), ((190, 96, 46), (232, 218, 202), None)),
    "arctic fox": (((234, 234, 236), None, None), ((214, 218, 224), (240, 240, 240), None)),
    "panther": (((40, 38, 42), None, None), ((54, 48, 48), None, None)),
    "cheetah": (((222, 182, 116), (240, 228, 200), Pattern("spots", (40, 32, 28), 1.1)),),
    "pig": (((226, 170, 156), None, None), ((206, 156, 140), None, Pattern("blotch", (70, 62, 62), 0.6))),
    "giraffe": (((222, 190, 138), (236, 220, 190), Pattern("blotch", (150, 96, 54), -0.1, 0.5)),),
}  # fmt: skip
