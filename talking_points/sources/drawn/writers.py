"""Put drawn scenes on disk in the true layouts of PascalPart116, ADE20KPart234, PartImageNet, AP-10K and refCOCO.

Each layout is an ``encode`` function that writes the files of one image and returns its JSON entries as
text, and a list of joint JSON files into which the entries are streamed in the order of the images.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from talking_points.records import derive_seed
from talking_points.sources.drawn import references
from talking_points.sources.drawn.scenes import DrawnScene, draw_scene, split_of
from talking_points.sources.labels import load_labels

FIRST_NUMBER = 900_000
"""Drawn images are numbered from here: above every number of the real datasets, so they cannot be confused."""

MAX_IMAGES = 100_000

FOLDERS = {
    "pascal_part116": "PascalPart116",
    "ade20k_part234": "ADE20KPart234",
    "partimagenet": "PartImageNet",
    "ap10k": "ap-10k",
    "refcoco": "refer",
}

_CATEGORIES: dict[str, dict[str, str]] = {
    "pascal_part116": {"songbird": "bird", "robin": "bird", "blue tit": "bird", "goose": "bird", "screen": "tvmonitor"},
    "ade20k_part234": {"screen": "television receiver", "aeroplane": "airplane"},
}
"""What a source calls a drawn thing where it does not use the drawing's own name."""

_PART_NAMES: dict[str, tuple[str, ...]] = {
    "hoof": ("hoof", "leg", "foot"),
    "paw": ("paw", "leg", "foot"),
    "leg": ("leg", "foot"),
    "foot": ("foot", "leg"),
    "torso": ("torso", "body"),
    "neck": ("neck", "torso", "body"),
    "ear": ("ear", "head"),
    "eye": ("eye", "head"),
    "nose": ("nose", "muzzle", "head"),
    "muzzle": ("muzzle", "head"),
    "horn": ("horn", "head"),
    "beak": ("beak", "head"),
    "hair": ("hair", "head"),
    "mouth": ("mouth", "head"),
    "eyebrow": ("eyebrow", "head"),
    "hand": ("hand", "arm"),
    "lower arm": ("lower arm", "arm"),
    "upper arm": ("upper arm", "arm"),
    "front bumper": ("bumper", "front", "body"),
    "rear bumper": ("bumper", "back", "body"),
    "hood": ("hood", "front", "body"),
    "trunk": ("back", "body"),
    "front": ("front", "body"),
    "back": ("back", "body"),
    "side": ("side", "body"),
    "roof": ("roof", "body"),
    "door": ("door", "fuselage", "body"),
    "window": ("window", "body"),
    "windshield": ("window", "body"),
    "rear window": ("window", "body"),
    "headlight": ("headlight", "body"),
    "taillight": ("taillight", "back", "body"),
    "license plate": ("license plate", "body"),
    "logo": ("logo", "front", "body"),
    "wheel": ("wheel", "tier", "landing gear", "body"),
    "mirror": ("mirror", "side mirror"),
    "frame": ("frame", "body"),
    "chainwheel": ("chainwheel", "body"),
    "saddle": ("saddle", "seat"),
    "handlebar": ("handlebar", "head"),
    "pedal": ("body",),
    "fin": ("fin", "body"),
    "body": ("body", "fuselage"),
    "stern": ("stern", "fuselage", "body"),
    "nose cone": ("head", "body", "fuselage"),
    "stabilizer": ("stabilizer", "tail"),
    "tail": ("tail", "stabilizer"),
    "engine": ("engine", "turbine engine"),
    "landing gear": ("landing gear", "wheel", "body"),
    "hull": ("body",),
    "deck": ("body",),
    "mast": ("body",),
    "cap": ("cap", "mouth"),
}
"""For each drawn part the names under which a source may know it, the finest first; others go by their own name."""


@lru_cache(maxsize=8)
def _object_ids(source: str) -> dict[str, int]:
    return {entry["name"]: entry["id"] for entry in load_labels(source)["objects"]}


@lru_cache(maxsize=8)
def _part_ids(source: str) -> dict[tuple[str, str], int]:
    """(object or supercategory, part) -> id."""
    if source == "partimagenet":
        return {(part["supercategory"], part["part"].lower()): part["id"] for part in load_labels(source)["parts"]}
    return {(part["object"], part["part"]): part["id"] for part in load_labels(source)["parts"]}


def part_id(source: str, category: str, drawn_part: str | None) -> int | None:
    """The source's id of a drawn part of a category (its supercategory in PartImageNet), None if it has none."""
    if drawn_part is None:
        return None
    ids = _part_ids(source)
    names = _PART_NAMES.get(drawn_part, (drawn_part,))
    return next((ids[category, name] for name in names if (category, name) in ids), None)


@dataclass(frozen=True)
class Entries:
    """One image's share of the joint files: for each JSON file, its image entry and its annotation entries, and for
    each folder of ``references.FILES`` the entries of its refs file."""

    files: tuple[str, ...] = ()
    image: str = ""
    annotations: tuple[str, ...] = ()
    refs: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)


def encode_image(source: str, root: Path, seed: int, index: int, variant: str) -> Entries:
    """Draw one image and write its files below ``root``; returns what belongs in the joint JSON files."""
    return _ENCODERS[source](root, index, draw_scene(source, seed, index, variant))


def _joint_files(source: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The source's joint JSON files below its root, and the constant content they share."""
    if source == "ade20k_part234":
        categories = [{"id": value, "name": name} for name, value in _object_ids(source).items()]
        return ("ade20k_instance_train.json", "ade20k_instance_val.json"), {"categories": categories}
    if source == "partimagenet":
        fields = ("id", "name", "supercategory")
        categories = [{field: part[field] for field in fields} for part in load_labels(source)["parts"]]
        return ("train.json", "val.json"), {"info": {}, "licenses": [], "categories": categories}
    if source == "ap10k":
        names = [f"annotations/ap10k-{part}-split{n}.json" for n in (1, 2, 3) for part in ("train", "val", "test")]
        info = {"description": "drawn animals in the layout of AP-10K"}
        return tuple(names), {"info": info, "licenses": _AP10K_LICENSES, "categories": _ap10k_categories()}
    if source == "refcoco":
        names = [f"{folder}/instances.json" for folder in references.FILES]
        return tuple(names), {"info": {}, "licenses": [], "categories": load_labels("coco")["objects"]}
    return (), {}


def prepare_folders(source: str, root: Path) -> None:
    """Create the folders that exist whatever is drawn, and remove the images and maps of an earlier drawing.

    Only files that bear the number of a drawn image are removed.
    """
    for folder in _SUBFOLDERS[source]:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for path in root.rglob("*"):
        number = re.search(r"\d+$", path.stem)
        if path.suffix in (".jpg", ".JPEG", ".png") and number and int(number[0]) >= FIRST_NUMBER:
            path.unlink()


_SUBFOLDERS: dict[str, tuple[str, ...]] = {
    "pascal_part116": tuple(
        f"{kind}/{split}"
        for kind in ("images", "annotations_detectron2_obj", "annotations_detectron2_part")
        for split in ("train", "val")
    ),
    "ade20k_part234": tuple(
        f"{kind}/{split}" for kind in ("images", "annotations_detectron2_part") for split in ("training", "validation")
    ),
    "partimagenet": ("images/train", "images/val"),
    "ap10k": ("annotations", "data"),
    "refcoco": (*references.FILES, "images/train2014"),
}


class JointFiles:
    """Streams the entries of many images into a source's joint files; only entries of images and refs are kept.

    Use as a context manager: the files are complete after it, and empty lists where nothing was added.
    """

    def __init__(self, source: str, root: Path) -> None:
        names, self._head = _joint_files(source)
        self._paths = {name: root / name for name in names}
        self._streams: dict[str, TextIO] = {}
        self._separators = dict.fromkeys(names, "\n")
        self._images: dict[str, list[str]] = {name: [] for name in names}
        folders = references.FILES if source == "refcoco" else {}
        self._refs: dict[Path, list[dict[str, Any]]] = {root / name / file: [] for name, file in folders.items()}

    def __enter__(self) -> JointFiles:
        for name, path in self._paths.items():
            self._streams[name] = path.open("w", encoding="utf-8")
            self._streams[name].write('{"annotations": [')
        return self

    def add(self, entries: Entries) -> None:
        """Append one image."""
        for name in entries.files:
            self._images[name].append(entries.image)
            for annotation in entries.annotations:
                self._streams[name].write(self._separators[name] + annotation)
                self._separators[name] = ",\n"
        for path, refs in self._refs.items():
            refs += entries.refs.get(path.parent.name, [])

    def __exit__(self, *_: object) -> None:
        for name, stream in self._streams.items():
            stream.write('],\n"images": [' + ",\n".join(self._images[name]) + "]")
            for key, value in self._head.items():
                stream.write(f',\n"{key}": ' + json.dumps(value))
            stream.write("}\n")
            stream.close()
        for path, refs in self._refs.items():
            path.write_bytes(pickle.dumps(refs, protocol=2))


def _write_image(path: Path, pixels: NDArray[np.uint8], quality: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    path.write_bytes(data.tobytes())


def _write_map(path: Path, values: NDArray[Any]) -> None:
    _, data = cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    path.write_bytes(data.tobytes())


def _category(source: str, drawn: str) -> str:
    return _CATEGORIES[source].get(drawn, drawn)


def _lookups(source: str, scene: DrawnScene, dtype: type[np.unsignedinteger[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Tables from region number to object id and to part id, with the dtype's largest value for neither."""
    ignore = np.iinfo(dtype).max
    objects = np.full(len(scene.regions) + 1, ignore, dtype)
    parts = objects.copy()
    for number, region in enumerate(scene.regions, start=1):
        category = _category(source, scene.instances[region.instance].category)
        objects[number] = _object_ids(source)[category]
        known = part_id(source, category, region.part)
        if known is not None:
            parts[number] = known
    return objects, parts


def _encode_pascal(root: Path, index: int, scene: DrawnScene) -> Entries:
    source = "pascal_part116"
    split, stem = split_of(source, index), f"2008_{FIRST_NUMBER + index:06d}"
    objects, parts = _lookups(source, scene, np.uint8)
    _write_image(root / "images" / split / f"{stem}.jpg", scene.pixels, scene.quality)
    _write_map(root / "annotations_detectron2_obj" / split / f"{stem}.png", objects[scene.ids])
    _write_map(root / "annotations_detectron2_part" / split / f"{stem}.png", parts[scene.ids])
    return Entries()


def _box(mask: NDArray[np.bool_]) -> list[int]:
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return [x, y, width, height]


def _owner_map(scene: DrawnScene) -> NDArray[np.int16]:
    """For each pixel the number of its object from 1, 0 for the background."""
    owners = np.array([0, *(region.instance + 1 for region in scene.regions)], np.int16)
    return owners[scene.ids]


def _encode_ade(root: Path, index: int, scene: DrawnScene) -> Entries:
    source = "ade20k_part234"
    split = split_of(source, index)
    number = FIRST_NUMBER + index
    stem, folder = f"ADE_{split}_{number:08d}", {"train": "training", "val": "validation"}[split]
    _, parts = _lookups(source, scene, np.uint16)
    part_map, owners = parts[scene.ids], _owner_map(scene)
    _write_image(root / "images" / folder / f"{stem}.jpg", scene.pixels, scene.quality)
    _write_map(root / "annotations_detectron2_part" / folder / f"{stem}.png", part_map)
    height, width = scene.ids.shape
    annotations = []
    for position, instance in enumerate(scene.instances):
        mask = owners == position + 1
        if not mask.any():
            continue
        rle = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
        entry: dict[str, Any] = {
            "id": number * 100 + position, "image_id": number,
            "category_id": _object_ids(source)[_category(source, instance.category)], "iscrowd": 0,
            "bbox": [float(value) for value in _box(mask)], "area": int(mask.sum()),
            "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
        }  # fmt: skip
        present = [int(value) for value in np.unique(part_map[mask]) if value != 65535]
        if present:
            entry["part_category_id"] = present
        annotations.append(json.dumps(entry))
    image = {"id": number, "file_name": f"{stem}.jpg", "width": width, "height": height}
    return Entries((f"ade20k_instance_{split}.json",), json.dumps(image), tuple(annotations))


def polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Outlines of a mask, bool (height, width), as COCO polygons [x, y, ...]; a mask with holes is cut through
    them into pieces without holes. Pieces too small for three corners are left out."""
    contours, tree = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if tree is None:
        return []
    for contour, (_, _, _, parent) in zip(contours, tree[0], strict=True):
        if parent >= 0 and cv2.contourArea(contour) > 6:
            x, _, width, _ = cv2.boundingRect(contour)
            left, right = mask.copy(), mask.copy()
            left[:, x + width // 2 :] = False
            right[:, : x + width // 2] = False
            return polygons(left) + polygons(right)
    outlines = []
    for contour, (_, _, _, parent) in zip(contours, tree[0], strict=True):
        corners = cv2.approxPolyDP(contour, 0.6, True)
        if parent < 0 and len(corners) >= 3:
            outlines.append([float(value) + 0.5 for value in corners.ravel()])
    return outlines


def _encode_partimagenet(root: Path, index: int, scene: DrawnScene) -> Entries:
    source = "partimagenet"
    split, number = split_of(source, index), FIRST_NUMBER + index
    name = f"{scene.label}_{number}.JPEG"
    _write_image(root / "images" / split / scene.label / name, scene.pixels, scene.quality)
    classes = {entry["wnid"]: entry["supercategory"] for entry in load_labels(source)["classes_known"]}
    groups: dict[tuple[int, int], list[int]] = {}
    for region_number, region in enumerate(scene.regions, start=1):
        known = part_id(source, classes[scene.label], region.part)
        if known is not None:
            groups.setdefault((known, region.copy if known in _repeated() else 0), []).append(region_number)
    annotations = []
    for position, ((category, _), numbers) in enumerate(sorted(groups.items())):
        mask = np.isin(scene.ids, numbers)
        outlines = polygons(mask)
        if not outlines:
            continue
        entry = {"id": number * 100 + position, "image_id": number, "category_id": category, "iscrowd": 0,
                 "area": float(mask.sum()), "bbox": [float(value) for value in _box(mask)],
                 "segmentation": outlines}  # fmt: skip
        annotations.append(json.dumps(entry))
    height, width = scene.ids.shape
    image = {"id": number, "file_name": name, "height": height, "width": width}
    return Entries((f"{split}.json",), json.dumps(image), tuple(annotations))


@lru_cache(maxsize=1)
def _repeated() -> frozenset[int]:
    """Part categories that PartImageNet annotates one by one: feet, fins, tires, wings, engines, sails, mirrors."""
    several = ("foot", "fin", "tier", "wing", "engine", "sail", "side mirror")
    return frozenset(value for (_, part), value in _part_ids("partimagenet").items() if part in several)


_AP10K_LICENSES = [{"id": 1, "name": "The MIT License", "url": "https://www.mit.edu/~amini/LICENSE.md"}]
_AP10K_BACKGROUNDS = {"meadow": 1, "plain": 3, "beach": 6, "street": 5, "room": 5, "studio": 8}


@lru_cache(maxsize=1)
def _ap10k_categories() -> list[dict[str, Any]]:
    labels = load_labels("ap10k")
    names = [keypoint["name"] for keypoint in labels["keypoints"]]
    skeleton = labels["skeleton_one_based"]
    return [
        {
            "id": kind["id"],
            "name": kind["name"],
            "supercategory": kind["family"],
            "keypoints": names,
            "skeleton": skeleton,
        }
        for kind in labels["species"]
    ]


def _ap10k_files(index: int) -> tuple[str, ...]:
    """Where an image goes: each of the three splits is its own 7:1:2 division of the same images."""
    names = []
    for number in (1, 2, 3):
        share = derive_seed(0, "drawn ap10k split", number, index) % 10
        part = "train" if share < 7 else "val" if share < 8 else "test"
        names.append(f"annotations/ap10k-{part}-split{number}.json")
    return tuple(names)


def _encode_ap10k(root: Path, index: int, scene: DrawnScene) -> Entries:
    number = FIRST_NUMBER + index
    name = f"{number:012d}.jpg"
    _write_image(root / "data" / name, scene.pixels, scene.quality)
    height, width = scene.ids.shape
    owners = _owner_map(scene)
    species = {kind["name"]: kind["id"] for kind in load_labels("ap10k")["species"]}
    annotations = []
    for position in range(len(scene.instances)):
        mask = owners == position + 1
        keypoints = _keypoints(scene, position)
        if not mask.any() or not any(keypoints):
            continue
        x, y, box_width, box_height = _box(mask)
        entry = {"id": number * 100 + position, "image_id": number, "category_id": species[scene.label],
                 "bbox": [x, y, box_width, box_height], "area": box_width * box_height, "iscrowd": 0,
                 "num_keypoints": sum(value > 0 for value in keypoints[2::3]), "keypoints": keypoints}  # fmt: skip
        annotations.append(json.dumps(entry))
    image = {"license": 1, "id": number, "file_name": name, "width": width, "height": height,
             "background": _AP10K_BACKGROUNDS[scene.place]}  # fmt: skip
    return Entries(_ap10k_files(index), json.dumps(image), tuple(annotations))


def _keypoints(scene: DrawnScene, position: int) -> list[int]:
    """51 numbers x, y, v in AP-10K's order; v = 2 where the id map shows the animal there, else all three 0."""
    height, width = scene.ids.shape
    found = {landmark.name: landmark for landmark in scene.instances[position].landmarks}
    values: list[int] = []
    for keypoint in load_labels("ap10k")["keypoints"]:
        landmark = found.get(keypoint["name"])
        x, y = (round(landmark.x), round(landmark.y)) if landmark else (-1, -1)
        seen = False
        if landmark and 0 <= x < width and 0 <= y < height and scene.ids[y, x] > 0:
            region = scene.regions[scene.ids[y, x] - 1]
            seen = region.instance == position
            if landmark.part is not None:
                seen = seen and (region.part, region.copy) == (landmark.part, landmark.copy)
        values += [x, y, 2] if seen else [0, 0, 0]
    return values


def _encode_refcoco(root: Path, index: int, scene: DrawnScene) -> Entries:
    number = FIRST_NUMBER + index
    name = f"COCO_train2014_{number:012d}.jpg"
    _write_image(root / "images" / "train2014" / name, scene.pixels, scene.quality)
    height, width = scene.ids.shape
    owners, ids = _owner_map(scene), _object_ids("coco")
    annotations, things = [], []
    for position, instance in enumerate(scene.instances):
        mask = owners == position + 1
        outlines = polygons(mask)
        if not outlines:
            continue
        category = references.CATEGORIES.get(instance.category, instance.category)
        x, y, box_width, box_height = map(float, _box(mask))
        box, area = (x, y, box_width, box_height), float(mask.sum())
        entry = {"id": number * 100 + position, "image_id": number, "category_id": ids[category], "iscrowd": 0,
                 "area": area, "bbox": box, "segmentation": outlines}  # fmt: skip
        annotations.append(json.dumps(entry))
        things.append(references.Referred(number * 100 + position, ids[category], category, box, area))
    refs = references.references(number, index, width, things)
    image = {"license": 1, "id": number, "file_name": name, "width": width, "height": height}
    return Entries(_joint_files("refcoco")[0], json.dumps(image), tuple(annotations), refs)


_ENCODERS: dict[str, Callable[[Path, int, DrawnScene], Entries]] = {
    "pascal_part116": _encode_pascal,
    "ade20k_part234": _encode_ade,
    "partimagenet": _encode_partimagenet,
    "ap10k": _encode_ap10k,
    "refcoco": _encode_refcoco,
}
