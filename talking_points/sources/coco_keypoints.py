"""A user's own COCO keypoint file: any categories, with the names that the file itself gives to their keypoints.

::

    root/annotations/*.json     or root/*.json
    root/images/...             or root/images/<split>/..., root/data/..., root/<split>/..., root/<split>2017/...,
                                root/...

    root/{train,valid,test}/*.json with the images beside

A file is of the split that its name tells (``birds_train.json``: train; val and test likewise), else of "all"; where
none is of "train", those of "all" are. Where
some files have "keypoint" in their names (COCO's own ``person_keypoints_train2017.json``), the others are left alone.
Every category that is annotated needs a list "keypoints" of different names in "categories".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from talking_points.escaping import in_one_line
from talking_points.records import AnnotatedObject, ImageRecord
from talking_points.sources.coco_index import CocoIndex, category_number, list_categories, list_entries
from talking_points.sources.coco_parts import BadAnnotationError, clip_box, usable_category
from talking_points.sources.images import image_record, open_listed_image
from talking_points.sources.keypoint_annotations import (
    check_count,
    name_keypoints,
    raw_keypoints,
    refuse_scores,
    usable_skeleton,
    without_placeholders,
)
from talking_points.sources.keypoint_sets import KeypointSet, KeypointSetError
from talking_points.sources.labels import clean_name
from talking_points.sources.layout import ImageFinder, child, choose_splits, find_root, split_in_name, subset_folders
from talking_points.sources.protocol import SkippedImage, Source, SourceEntry, SourceError

_SPLIT_FOLDERS = ("train", "val", "valid", "test")
_PARTITION = re.compile(r"(?:split|fold|partition)[-_]?(\d{1,3})(?!\d)", re.IGNORECASE)
"""AP-10K's files, ``ap10k-train-split2.json``, and those of a cross-validation."""


class CocoKeypoints(Source):
    """Records of a user's COCO keypoint files: objects with ``keypoints`` and ``skeleton``, without masks.

    An object's ``id`` is its category's in the file. ``annotations``: one file to read, from the root, instead of all.
    Raises ``SourceError`` while listing for a category whose names cannot be asked for (missing, empty, repeated,
    mere numbers), or that two files define differently.
    """

    name = "coco_keypoints"

    def __init__(self, root: str | Path, split: str | None = None, *, annotations: str | None = None) -> None:
        expected = "COCO keypoint files (*.json), in the folder itself or in its folder annotations,"
        super().__init__(find_root(root, ("coco", "keypoints"), _is_dataset, expected), split)
        files = _annotation_files(self.root)
        if annotations is not None:
            files = [path for path in files if path == (self.root / annotations).resolve()]
            if not files:
                raise SourceError(f"expected an annotation file {annotations} in {self.root}, found none of that name")
        splits = [(path, _split_of(path)) for path in files]
        names = tuple(dict.fromkeys(name for _, name in splits))
        if split == "train" and "train" not in names and "all" in names:
            split = "all"
        chosen = choose_splits(names, split, self.root)
        self._files = [(path, name) for path, name in splits if name in chosen]
        self._refuse_partitions()

    def _refuse_partitions(self) -> None:
        """What one partition of a dataset trains on another one tests on: files of several are never read together."""
        found: dict[str, str] = {}
        for path, _ in self._files:
            if number := _PARTITION.search(path.stem):
                found.setdefault(number[1], path.name)
        if len(found) > 1:
            raise SourceError(
                f"expected the files of one partition in {self.root}, found {', '.join(found.values())}: images that "
                "one trains on are tested on in another; keep the files of one there, and the images beside"
            )

    @property
    def annotation_files(self) -> list[Path]:
        """The files that are read."""
        return [path for path, _ in self._files]

    def keypoint_sets(self) -> dict[int, KeypointSet]:
        """The keypoint set of every category id that has names; its key is the category's name."""
        return {number: keypoints for number, (keypoints, _) in self._categories().items()}

    def _categories(self) -> dict[int, tuple[KeypointSet, tuple[tuple[int, int], ...]]]:
        found: dict[int, tuple[KeypointSet, tuple[tuple[int, int], ...]]] = {}
        for path, _ in self._files:
            for item in list_categories(path):
                number, names = category_number(item.get("id")), item.get("keypoints")
                if not names:
                    continue
                if not isinstance(number, int) or isinstance(number, bool):
                    raise SourceError(
                        f'{path.name}: expected a whole number as "id" of every category with keypoints, found '
                        f"{str(number)[:60]!r} ({str(item.get('name'))[:60]}): number the categories, and write the "
                        'same numbers as "category_id" of their annotations'
                    )
                label = clean_name(in_one_line(str(item.get("name") or ""))) or str(number)
                if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                    raise SourceError(
                        f'{path.name}: expected a list of names in "keypoints" of category {label}, found '
                        f"{str(names)[:60]}"
                    )
                try:
                    keypoints = KeypointSet.from_names(label, names, (number,))
                except KeypointSetError as error:
                    raise SourceError(f"{path.name}, category {error}") from error
                same = next((one for one, (other, _) in found.items() if one != number and other.key == label), None)
                if same is not None and found[same][0].names != keypoints.names:
                    raise SourceError(
                        f"{path.name}: expected different names for categories of different keypoints, found {label} "
                        f"as that of {same} and of {number}: give one of them another name"
                    )
                before = found.setdefault(number, (keypoints, _edges(item.get("skeleton"), len(names))))
                if before[0] != keypoints:
                    raise SourceError(
                        f"{path.name} defines category {number} otherwise than a file before it ({label}, "
                        f"{before[0].key}): give different categories different ids"
                    )
        if not found:
            raise SourceError(
                f'expected a category with a list "keypoints" of names in {", ".join(p.name for p, _ in self._files)}, '
                "found none: keypoints without names cannot be asked for; add the list to each category"
            )
        return found

    def entries(self) -> Iterator[SourceEntry]:
        categories = self._categories()
        with CocoIndex(self) as index:
            for path, split in self._files:
                index.add(path, split, self._image_id)
            splits = {split for _, split in self._files}
            finders = {split: ImageFinder(self.root, self._image_folders(split)) for split in splits}
            for entry in list_entries(index, finders, lambda image, path: ()):
                there = {item["category_id"] for item in entry.annotation["annotations"]} & categories.keys()
                known = {
                    str(number): [categories[number][0].key, categories[number][0].names, categories[number][1]]
                    for number in sorted(there)
                }
                annotation = {**entry.annotation, "categories": known}
                yield SourceEntry(entry.image_id, entry.image_path, entry.split, entry.files, annotation)

    def _image_id(self, name: str) -> str:
        """The name without its ending, from the root also where a tool has written whole paths."""
        path = PurePosixPath(name).with_suffix("")
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()

    def _image_folders(self, split: str) -> list[Path]:
        folders = ("images", "data", split, f"{split}2017", f"{split}2014", *(("valid",) if split == "val" else ()))
        named = (child(self.root, name) for name in folders)
        special = subset_folders(self.root, split, [path for path, own in self._files if own == split])
        return special + [folder for folder in (*named, self.root) if folder is not None and folder.is_dir()]

    def read(self, entry: SourceEntry) -> ImageRecord:
        path, pixels = open_listed_image(self.root, entry)
        height, width = pixels.shape[:2]
        known: dict[int, Any] = {int(number): item for number, item in entry.annotation["categories"].items()}
        objects = []
        for annotation in entry.annotation["annotations"]:
            # Exporters without outlines write an area of 0, and some count no keypoint: what is labelled says itself.
            annotation = {**annotation, "area": None, "num_keypoints": None}
            try:
                category = usable_category(annotation, known)
                box = clip_box(annotation.get("bbox"), width, height)
                refuse_scores(annotation)
                triples = raw_keypoints(annotation)
                label, names, edges = known[category]
                check_count(triples, names)
                self._look_for_corners(annotation["bbox"], triples, width, height, entry.image_path)
                triples = without_placeholders(triples, box, self, entry.image_path)
                if not any(labelled for _, _, labelled in triples):
                    raise BadAnnotationError("no_keypoints")
            except BadAnnotationError as error:
                self.skip(error.reason, f"{entry.image_path}: {error.detail}")
                continue
            keypoints = name_keypoints(triples, names, width, height, self, entry.image_path)
            skeleton = tuple((one, other) for one, other in edges)
            objects.append(AnnotatedObject(label, label, category, box, keypoints=keypoints, skeleton=skeleton))
        if not objects:
            raise SkippedImage("no_usable_annotation")
        return image_record(self.name, entry, path, pixels, objects, entry.annotation["file"])

    def _look_for_corners(
        self, bbox: Sequence[float], triples: Sequence[tuple[float, float, bool]], width: int, height: int, where: str
    ) -> None:
        """Count a box that leaves the image and, were its last two numbers a corner, would hold all that is labelled.

        COCO writes width and height there; a tool that writes corners gives boxes that are too large and no error.
        """
        left, top, right, bottom = bbox
        beyond = left + right > width + 1 or top + bottom > height + 1
        fits = left < right <= width and top < bottom <= height
        if beyond and fits and all(left <= x <= right and top <= y <= bottom for x, y, known in triples if known):
            self.skip("box_like_corners", f"{where}: bbox {bbox} in {width}x{height}")


def _annotation_files(folder: Path) -> list[Path]:
    place = child(folder, "annotations")
    files = [] if place is None else sorted(place.glob("*.json"))
    files = files or sorted(folder.glob("*.json"))
    files = files or [path for name in _SPLIT_FOLDERS for path in sorted(folder.glob(f"{name}/*.json"))]
    named = [path for path in files if "keypoint" in path.name.lower()]
    return [path for path in named or files if not path.name.startswith(".")]


def _is_dataset(folder: Path) -> bool:
    return bool(_annotation_files(folder))


def _split_of(path: Path) -> str:
    places = (path.stem, path.parent.name) if path.parent.name in _SPLIT_FOLDERS else (path.stem,)
    return next((one for place in places if (one := split_in_name(place)) != "all"), "all")


def _edges(listed: Any, count: int) -> tuple[tuple[int, int], ...]:
    """Edges as indices. COCO counts keypoints from 1; a list with a 0 counts from there."""
    edges = listed if isinstance(listed, list) else []
    ends = [end for edge in edges if isinstance(edge, list) for end in edge]
    return usable_skeleton(listed, count, first=0 if 0 in ends else 1)
