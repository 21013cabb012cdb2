"""What of MP-100 is on disk: every category's references, how many images are there, and where the others come from.

MP-100 is a set of annotation files about images of 13 datasets, which users collect themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from talking_points.sources.keypoint_sets import set_of
from talking_points.sources.labels import load_labels
from talking_points.sources.layout import ImageFinder, child
from talking_points.sources.mp100 import Mp100
from talking_points.sources.mp100_images import Mp100Finder, Reference
from talking_points.sources.protocol import SkippedImage, SourceError
from talking_points.whole_files import read_json

ANNOTATIONS = "github.com/luminxu/Pose-for-Everything"
"""Who publishes the annotation files."""

_H5 = "the images lie in an h5 file: write frame number n of its data set 'images' to {folder}/n.jpg"
_PLACES: dict[str | int, tuple[str, str, str]] = {
    "clothes": ("DeepFashion2", "github.com/switchablenorms/DeepFashion2", "its files are unlocked by a form"),
    "mammal_body": ("AP-10K", "github.com/AlexTheBad/AP-10K", ""),
    "animal_face": ("AnimalWeb", "fdmaproject.wordpress.com", ""),
    "bird_body": ("CUB-200-2011", "vision.caltech.edu/datasets/cub_200_2011", ""),
    "vehicle": ("CarFusion", "cs.cmu.edu/~ILIM/projects/IM/CarFusion", "its file names differ: rename them as listed"),
    "furniture": ("Keypoint-5", "github.com/jiajunwu/3dinn", ""),
    "human_body": ("COCO 2017", "cocodataset.org", ""),
    "human_hand": ("OneHand10K", "yangangwang.com", "many annotations do not fit their images: exclude: [80]"),
    92: ("MacaquePose", "www2.ehub.kyoto-u.ac.jp/datasets/macaquepose", ""),
    44: ("Desert Locust", "github.com/jgraving/DeepPoseKit-Data", _H5.format(folder="locust_body")),
    66: ("Vinegar Fly", "github.com/jgraving/DeepPoseKit-Data", _H5.format(folder="fly_body")),
}
_SIDES = ("width", "height")
_FACES = {
    "face_68": ("300W", "ibug.doc.ic.ac.uk/resources/300-W", ""),
    "face_19": ("AFLW", "tugraz.at, AFLW", "on request"),
}


@dataclass(frozen=True)
class CategoryCheck:
    """One category: ``references`` are different images that annotations name, ``found`` those on disk.

    ``linked``: where links in the folder lead out of it, to further ones; see ``Mp100.links``.
    """

    category: int
    name: str
    keypoints: int
    annotations: int
    references: int
    found: int
    dataset: str
    place: str
    note: str
    linked: frozenset[Path] = frozenset()

    @property
    def missing(self) -> int:
        return self.references - self.found


def check_mp100(root: str | Path) -> list[CategoryCheck]:
    """Every category of MP-100 in the order of its ids; of categories that no file lists all counts are 0.

    Raises ``SourceError`` where there are no annotation files, or one that cannot be read.
    """
    source = Mp100(root)
    finder, anywhere = Mp100Finder(source.root), Mp100Finder(source.root, [Path(source.root.anchor)])
    references: dict[int, set[str]] = defaultdict(set)
    sizes: dict[tuple[int, str], Reference] = {}
    annotations: dict[int, set[Any]] = defaultdict(set)
    folder = child(source.root, "annotations")
    assert folder is not None
    for path in sorted(folder.glob("mp100_split*_*.json")):
        for reference, number in _references(path):
            category, image = reference[:2]
            references[category].add(image)
            annotations[category].add(number)
            sizes[category, image] = reference
    finder.adopt(sizes.values())
    found = []
    for item in load_labels("mp100")["categories"]:
        own = set_of(item["id"])
        place = _PLACES.get(item["id"]) or _FACES.get(own.key) or _PLACES[item["super_type"]]
        there = sum(_is_there(finder, image) for image in references[item["id"]])
        counts = len(own), len(annotations[item["id"]]), len(references[item["id"]]), there
        linked = frozenset(_target(source.root, way) for way in _linked(finder, anywhere, references[item["id"]]))
        found.append(CategoryCheck(item["id"], item["name"], *counts, *place, linked))
    return sorted(found, key=lambda one: one.category)


def _references(path: Path) -> list[tuple[Reference, str]]:
    """Category, image and number of every annotation of a file; an entry of another form is left out."""
    try:
        content = read_json(path, "get the annotation files again")
        names = {
            image["id"]: (
                image["file_name"],
                *(side if isinstance(side := image.get(key), int) else None for key in _SIDES),
            )
            for image in content["images"]
            if isinstance(image.get("file_name"), str) and isinstance(image.get("id"), int | str)
        }
        return [
            ((one["category_id"], *names[one["image_id"]]), f"{one.get('id')}")
            for one in content["annotations"]
            if isinstance(one.get("category_id"), int) and one.get("image_id") in names
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise SourceError(
            f"expected a COCO file of keypoints in {path}, found something else ({error}): get it again from "
            f"{ANNOTATIONS}"
        ) from error


def _linked(finder: ImageFinder, anywhere: ImageFinder, images: Iterable[str]) -> Iterator[str]:
    """Of the images that are not there those that a link leads to, from the root."""
    for image in images:
        with suppress(SkippedImage):
            if not _is_there(finder, image) and (way := anywhere.find(image)) is not None:
                yield way


def _target(root: Path, way: str) -> Path:
    """Where the first link on a way below the root leads to."""
    path = root
    for part in PurePosixPath(way).parts:
        path = path / part
        if path.is_symlink():
            break
    return path.resolve() if path.is_dir() else path.resolve().parent


def _is_there(finder: ImageFinder, image: str) -> bool:
    try:
        return finder.find(image) is not None
    except SkippedImage:
        return False
