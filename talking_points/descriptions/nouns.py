"""Names of objects and parts as people say them: spoken forms, synonyms, articles, number, possessives.

Categories keep the spelling of their source in every record; this file is only about how they sound in a
sentence and what else a description may call them.
"""

from __future__ import annotations

import re
from functools import lru_cache

_SPOKEN_OBJECTS = {
    "aeroplane": "airplane",
    "tvmonitor": "TV monitor",
    "tv monitor": "TV monitor",
    "television receiver": "television",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "cooking stove": "stove",
    "washer": "washing machine",
    "ice bear": "polar bear",
}

_SPOKEN_PARTS = {
    "tier": "tire",
    "gaze": "eye area",
    "diffusor": "diffuser",
    "back pillow": "back cushion",
    "computer case": "case",
}

_SPOKEN_PAIRS = {
    ("shelf", "shelf"): "shelf board",
    ("cooking stove", "stove"): "stovetop",
    ("bicycle", "head"): "handlebar area",
    ("potted plant", "plant"): "foliage",
    ("pottedplant", "plant"): "foliage",
}
"""Pairs whose bare part name misleads or repeats the object."""

# What an object of the given name may also be called; not symmetric: a couch is a sofa, an armchair may be a chair.
_OBJECT_SYNONYMS: dict[str, str] = {
    "airplane": "aeroplane, plane, aircraft, jet, airliner, jetliner, warplane, biplane, fighter",
    "bicycle": "bike, cycle, mountain bike, tricycle",
    "motorbike": "motorcycle, minibike, bike, moped, scooter, motor scooter",
    "person": "man, woman, child, boy, girl, kid, human, individual, people, player, rider, pedestrian, baby, lady, guy",  # noqa: E501
    "tv monitor": "television, television receiver, television set, tv, tv set, monitor, screen, computer monitor",
    "sofa": "couch, settee, loveseat",
    "potted plant": "plant, houseplant, pot plant",
    "dining table": "table",
    "coffee table": "table, cocktail table",
    "pool table": "billiard table, snooker table",
    "sheep": "lamb, ewe, ram",
    "cow": "bull, calf, ox, cattle",
    "cat": "kitten, kitty",
    "dog": "puppy, hound, pup, terrier, spaniel, retriever, beagle",
    "horse": "pony, foal, mare, stallion",
    "car": "automobile, vehicle, cab, taxi, jeep, convertible, limousine, sedan, racer, ambulance, truck, tractor, minivan",  # noqa: E501
    "van": "minivan, vehicle",
    "truck": "lorry, pickup, vehicle",
    "bus": "coach, minibus, autobus, school bus",
    "train": "locomotive, railcar",
    "boat": "ship, vessel, sailboat, yacht, schooner, yawl, trimaran",
    "bird": "fowl, goose, stork, heron, egret, eagle, albatross, spoonbill, kite",
    "fish": "shark, tench, goldfish",
    "snake": "serpent, cobra, viper, python, mamba, rattlesnake",
    "reptile": "lizard, turtle, tortoise, frog, bullfrog, crocodile, alligator, newt, salamander, gecko, chameleon, iguana, animal",  # noqa: E501
    "quadruped": "animal, dog, wolf, cat, fox, bear, tiger, leopard, cheetah, cougar, jaguar, lion, gazelle, impala, antelope, ox, buffalo, ram, camel, weasel, mink, polecat, otter, squirrel, warthog, hartebeest, bighorn, panda, spaniel, terrier, retriever",  # noqa: E501
    "biped": "animal, monkey, ape, gorilla, chimpanzee, orangutan, gibbon, siamang, baboon, macaque, colobus, marmoset, guenon, capuchin, panda",  # noqa: E501
    "bottle": "flask, jar, beer bottle, wine bottle, water bottle",
    "cooking stove": "stove, range, cooker, oven",
    "refrigerator": "fridge, freezer",
    "washer": "washing machine",
    "chest of drawers": "chest, dresser, bureau",
    "wardrobe": "closet, armoire",
    "armchair": "chair",
    "swivel chair": "chair, office chair, desk chair",
    "stool": "seat, barstool",
    "ottoman": "pouf, footstool, hassock",
    "glass": "wine glass, drinking glass, goblet, tumbler",
    "light": "lamp, light fixture, ceiling light",
    "lamp": "light, light fixture, floor lamp, table lamp",
    "sconce": "wall lamp, wall light, light",
    "chandelier": "pendant, light fixture",
    "traffic light": "traffic signal, stoplight",
    "bookcase": "bookshelf, shelf",
    "shelf": "shelves, shelving, shelving unit",
    "cabinet": "cupboard",
    "sink": "basin, washbasin",
    "toilet": "commode",
    "microwave": "microwave oven",
    "computer": "pc, desktop computer",
    "kitchen island": "island, counter",
    "ice bear": "polar bear",
}

_PART_SYNONYMS: dict[str, str] = {
    "torso": "body, trunk, chest, belly, flank",
    "body": "torso, hull, fuselage, frame, bodywork, shell",
    "fuselage": "body, hull",
    "muzzle": "snout, nose",
    "nose": "snout, muzzle",
    "paw": "foot",
    "foot": "paw, hoof, claw, feet",
    "hoof": "foot, feet",
    "hand": "paw, fist",
    "leg": "limb, thigh, foreleg, hind leg",
    "beak": "bill",
    "horn": "antler",
    "lower arm": "forearm, arm",
    "upper arm": "arm",
    "eye area": "gaze, eye, eyes, face",
    "head": "face, nose, front",
    "hair": "hairline, hairdo",
    "mouth": "lip, lips, opening, neck",
    "saddle": "seat",
    "seat": "saddle",
    "handlebar": "handlebars, bar",
    "handlebar area": "head, handlebar, handlebars, front",
    "chainwheel": "chainring, crankset, crank, sprocket, pedal",
    "headlight": "headlamp, light, front light",
    "taillight": "tail light, rear light",
    "wheel": "tire, tyre",
    "tire": "tier, tyre, wheel",
    "license plate": "number plate, licence plate, plate",
    "mirror": "side mirror, wing mirror, rearview mirror, rear-view mirror",
    "side mirror": "mirror, wing mirror",
    "hood": "bonnet",
    "window": "windshield, windscreen, glass, pane",
    "wiper": "windshield wiper",
    "stern": "rear, back, tail",
    "tail": "rear, fin",
    "engine": "turbine, turbine engine, propeller",
    "turbine engine": "engine, turbine",
    "landing gear": "wheel, undercarriage",
    "coach": "carriage, railcar",
    "roof": "top",
    "front": "front panel, face",
    "back": "backrest, back rest, rear",
    "back cushion": "back pillow, pillow, cushion",
    "seat cushion": "cushion, seat",
    "seat base": "base",
    "arm": "armrest",
    "top": "tabletop, table top, countertop, surface, desktop",
    "shelf board": "shelf",
    "stovetop": "stove, cooktop, hob",
    "burner": "hob",
    "button panel": "control panel, panel, buttons, controls",
    "buttons": "button",
    "keys": "key",
    "knob": "doorknob",
    "handle": "doorhandle, door handle",
    "door frame": "frame, doorframe",
    "faucet": "tap",
    "tap": "faucet",
    "cistern": "tank",
    "lid": "cover",
    "screen": "display",
    "shade": "lampshade",
    "light source": "bulb, light",
    "bulb": "light bulb",
    "column": "pole, stem, post",
    "tube": "pole, rod",
    "diffuser": "diffusor",
    "highlight": "bright spot, glow",
    "case": "computer case, tower",
    "pot": "planter, flowerpot",
    "foliage": "plant, leaves, leaf",
    "cap": "lid, top",
    "face": "dial",
    "stretcher": "crossbar, rung",
    "side rail": "rail",
    "monitor": "screen, display",
}

_SINGULAR_IN_S = frozenset(("bus", "minibus", "gas", "canvas", "chassis", "patas", "colobus", "lens", "chess", "iris"))
_PLURALS_WITHOUT_S = frozenset(("feet", "people", "men", "women", "children"))
_VOWEL_SOUND = re.compile(r"(?:[aio]|e(?!u)|u(?!ni|se|te)|hour|honest|heir)", re.IGNORECASE)


def say_object(name: str) -> str:
    """The object's name as one says it: ``tvmonitor`` is a ``TV monitor``."""
    return _SPOKEN_OBJECTS.get(name.lower(), name)


def say_part(object_name: str, part_name: str) -> str:
    """The part's name as one says it on this object: a bicycle's ``tier`` is a ``tire``."""
    pair = (object_name.lower(), part_name.lower())
    return _SPOKEN_PAIRS.get(pair) or _SPOKEN_PARTS.get(pair[1], part_name)


@lru_cache(maxsize=4096)
def object_names(name: str) -> frozenset[str]:
    """Everything a description may call this object, lower case, singular: its name, spoken form, synonyms."""
    return _names({name.lower(), say_object(name).lower()}, _OBJECT_SYNONYMS)


@lru_cache(maxsize=4096)
def part_names(object_name: str, part_name: str) -> frozenset[str]:
    """Everything a description may call this part of this object, lower case, singular."""
    return _names({part_name.lower(), say_part(object_name, part_name).lower()}, _PART_SYNONYMS)


def _names(own: set[str], synonyms: dict[str, str]) -> frozenset[str]:
    heads = {head_noun(name) for name in own}
    return frozenset(own | heads).union(*(synonyms[name].split(", ") for name in own if name in synonyms))


def head_noun(name: str) -> str:
    """The noun that carries number and article: ``chest of drawers`` -> ``chest``, ``side mirror`` -> ``mirror``."""
    return re.split(r" (?:of|with|for) ", name)[0].split()[-1]


def is_plural(name: str) -> bool:
    """Whether the name takes ``are``: ``buttons``, ``keys``, ``scissors``; but not ``bus`` or ``glass``."""
    head = head_noun(name).lower()
    if head in _SINGULAR_IN_S:
        return False
    return head in _PLURALS_WITHOUT_S or (head.endswith("s") and not head.endswith(("ss", "us", "is")))


def indefinite(phrase: str) -> str:
    """A singular phrase with its indefinite article: ``an eye``, ``a unicycle``, ``an oval, dark spot``."""
    return f"{'an' if _VOWEL_SOUND.match(phrase) else 'a'} {phrase}"


def possessive(name: str) -> str:
    """The owner with its article: ``the dog's``, ``the bus's``, ``the scissors'``, ``the chest of drawers'``."""
    return f"the {name}'" if name.endswith("s") and (is_plural(name) or " of " in name) else f"the {name}'s"


def pronoun(name: str) -> str:
    """The possessive pronoun for this object: ``its``, or ``their`` for people and plural nouns."""
    return "their" if name == "person" or is_plural(name) else "its"


_FAMILIAR = re.compile(
    r"\b(airplane|bicycle|bike|motorcycle|motorbike|bird|boat|ship|bottle|bus|car|truck|van|cat|chair|sofa|couch|cow|dog"
    r"|horse|sheep|person|man|woman|child|boy|girl|people|train|television|tv|table|bed|desk|cabinet|refrigerator|oven"
    r"|microwave|sink|toilet|snake|turtle|lizard|frog|monkey|tree|fence|house|building|grass|sky|road|wall|floor|curtain"
    r"|carpet|rug|pillow|book|cup|vase|flower|mountain|river|beach)(?:s|es)?\b"
)


def familiar_objects(text: str) -> frozenset[str]:
    """Everyday objects and surroundings that a text names, singular: what a model may have invented."""
    return frozenset(match[1] for match in _FAMILIAR.finditer(text.lower()))
