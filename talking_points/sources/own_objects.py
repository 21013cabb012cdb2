"""A user's own images with objects in COCO JSON: from a labelling tool (``CocoParts``) or a detector (``Images``).

::

    root/annotations/*.json     or root/*.json
    root/images/...             or root/images/<split>/..., root/data/..., root/<split>/..., root/<split>2017/...,
                                root/...

A file is of the split that its name tells (``birds_train.json``: train; val and test likewise), else of "all".

Parts are annotations whose category names its object, in one file with the objects or in a file of its own
(``parts_train.json`` beside ``objects_train.json``). A category is a part of the object "dog" if it is called
``dog's head``, ``dog:head`` or ``dog/head``, or is called ``head`` or ``dog head`` and has "dog" as its supercategory.
A part belongs to the object that its annotation names by id (``object_id``, ``parent_id`` or ``obj_ann_id``), else to
the object of its class that holds most of its pixels.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from talking_points.records import ImageRecord
from talking_points.sources.coco_index import CocoIndex, category_number, list_categories, list_entries
from talking_points.sources.coco_parts import (
    BadAnnotationError,
    Outline,
    make_outlined_object,
    outline,
    usable_category,
)
from talking_points.sources.images import image_record, open_listed_image
from talking_points.sources.labels import ObjectLabel, PartLabel, clean_name
from talking_points.sources.layout import (
    ImageFinder,
    child,
    choose_splits,
    find_root,
    inside,
    split_in_name,
    subset_folders,
)
from talking_points.sources.protocol import SkippedImage, Source, SourceEntry, SourceError

_OWNER_AND_PART = re.compile(r"^(.+?)(?:'s |\s*[:/]\s*)(.+)$")
_OWNER_IDS = ("object_id", "parent_id", "obj_ann_id")

_Annotation = Mapping[str, Any]
_Pair = tuple[ObjectLabel, Outline]


class OwnObjects(Source):
    """Files, splits and objects: what both sources have in common."""

    def __init__(
        self,
        root: str | Path,
        split: str | None,
        spellings: Sequence[str],
        image_folder: str | None,
        *,
        bare: bool = False,
    ) -> None:
        expected = "COCO files (*.json), in the folder itself or in its folder annotations,"
        found = (lambda folder: folder.is_dir()) if bare else (lambda folder: bool(json_files(folder)))
        super().__init__(find_root(root, () if bare else spellings, found, expected), split)
        self._image_folder = image_folder
        if image_folder is not None and not find_named(self.root, image_folder).is_dir():
            raise SourceError(f"expected the images in {self.root / image_folder}, found no such folder")

    def _choose(self, files: Sequence[Path]) -> list[tuple[Path, str]]:
        """The files of the wanted splits, each with its split."""
        splits = [(path, split_in_name(path.stem)) for path in files]
        chosen = choose_splits(tuple(dict.fromkeys(name for _, name in splits)), self.split, self.root)
        return [(path, name) for path, name in splits if name in chosen]

    def _finder(self, split: str, files: Sequence[Path]) -> ImageFinder:
        if self._image_folder is not None:
            return ImageFinder(self.root, [find_named(self.root, self._image_folder)])
        named = (child(self.root, name) for name in ("images", "data", split, f"{split}2017", f"{split}2014"))
        special = subset_folders(self.root, split, files)
        return ImageFinder(self.root, special + [one for one in (*named, self.root) if one and one.is_dir()])

    def _list_entries(self, files: Sequence[tuple[Path, str]], bare: bool = False) -> Iterator[SourceEntry]:
        with CocoIndex(self) as index:
            for path, split in files:
                index.add(path, split, image_id_of)
            finders = {one: self._finder(one, [path for path, own in files if own == one]) for _, one in files}
            yield from list_entries(index, finders, lambda image, path: (), bare=bare)

    def _regions(
        self,
        entry: SourceEntry,
        annotations: Sequence[_Annotation],
        known: Collection[int],
        size: tuple[int, int],
    ) -> Iterator[tuple[_Annotation, Outline]]:
        """Usable annotations with their outlines; what cannot be used is counted. ``size``: width and height."""
        for annotation in annotations:
            try:
                usable_category(annotation, dict.fromkeys(known))
                region = outline(annotation, *size)
                if not region.area:
                    raise BadAnnotationError("empty_object", f"annotation {annotation.get('id')}")
            except BadAnnotationError as error:
                self.skip(error.reason, f"{entry.image_path}: {error.detail}")
                continue
            yield annotation, region


class CocoParts(OwnObjects):
    """Records of a user's own objects with parts. An object's or part's ``id`` is that of its category in the file.

    ``objects``, ``parts``: one annotation file each, from the root, instead of all (by default a file with "part" in
    its name that stands beside another of the same split holds the parts); ``images``: the folder of the images.
    Raises ``SourceError`` while listing for files in which no category is a part of another.
    """

    name = "coco_parts"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        *,
        objects: str | None = None,
        parts: str | None = None,
        images: str | None = None,
    ) -> None:
        super().__init__(root, split, ("coco", "parts"), images)
        listed = json_files(self.root)
        if objects is not None:
            listed = [find_named(self.root, name) for name in (objects, parts) if name is not None]
        separate = {find_named(self.root, parts)} if parts is not None else _part_files(listed)
        self._objects = self._choose([path for path in listed if path not in separate])
        self._parts = [(path, name) for path in separate for name in [split_in_name(path.stem)]]

    def entries(self) -> Iterator[SourceEntry]:
        objects, parts = self._categories()
        with ExitStack() as stack:
            indices = {}
            for path, split in self._parts:
                indices[split] = stack.enter_context(CocoIndex(self))
                indices[split].add(path, split, image_id_of)
            for entry in self._list_entries(self._objects):
                listed = entry.annotation["annotations"]
                own = [item for item in listed if item["category_id"] in parts[False]]
                apart = indices.get(entry.split)
                further = apart.annotations(entry.image_id) if apart is not None else []
                whole = [item for item in listed if item["category_id"] not in parts[False]]
                # Of the categories, which may be thousands, an entry names its own.
                names = {item["category_id"] for item in (*own, *further)} & parts[apart is not None].keys()
                annotation = {
                    **entry.annotation,
                    "annotations": whole,
                    "parts": [*own, *further],
                    "objects": {
                        str(number): objects[number]
                        for number in sorted({item["category_id"] for item in whole} & objects.keys())
                    },
                    "part_names": {str(number): parts[apart is not None][number] for number in sorted(names)},
                }
                yield SourceEntry(entry.image_id, entry.image_path, entry.split, entry.files, annotation)

    def _categories(self) -> tuple[dict[int, str], dict[bool, dict[int, tuple[str, str, int]]]]:
        """Names of the object categories, and of the part categories (spelling, part, object id) in the files of the
        objects (False) and in those of the parts (True)."""
        names = category_names(self._objects)
        inside_files = _part_categories(names, names)
        objects = {number: name for number, (name, _) in names.items() if number not in inside_files}
        apart = _part_categories(category_names(self._parts), {key: names[key] for key in objects})
        if not inside_files and not apart:
            shown = ", ".join(sorted(name for name, _ in names.values())[:8]) or "none"
            raise SourceError(
                f"expected categories that are parts of others in {self.root} (dog's head, dog:head, or head with the "
                f"supercategory dog), found {shown}: rename them, or read whole objects with the source images"
            )
        return objects, {False: inside_files, True: apart or inside_files}

    def read(self, entry: SourceEntry) -> ImageRecord:
        path, pixels = open_listed_image(self.root, entry)
        size = (pixels.shape[1], pixels.shape[0])
        labels = {
            int(key): ObjectLabel(int(key), name, clean_name(name)) for key, name in entry.annotation["objects"].items()
        }
        names = {int(key): value for key, value in entry.annotation["part_names"].items()}
        found = list(self._regions(entry, entry.annotation["annotations"], labels, size))
        pairs = [(labels[item["category_id"]], region) for item, region in found]
        owned: list[list[tuple[PartLabel, Outline]]] = [[] for _ in found]
        for item, region in self._regions(entry, entry.annotation["parts"], names, size):
            spelling, part, owner = names[item["category_id"]]
            number = _owner(item, [other for other, _ in found], pairs, owner, region)
            if number is None:
                self.skip("part_outside_object", f"{entry.image_path}: {spelling}")
                continue
            label = PartLabel(item["category_id"], spelling, owner, labels[owner].name, clean_name(part))
            owned[number].append((label, region.intersection(pairs[number][1])))
        objects = [make_outlined_object(*pair, parts, True) for pair, parts in zip(pairs, owned, strict=True)]
        if not objects:
            raise SkippedImage("no_usable_annotation")
        return image_record(self.name, entry, path, pixels, objects, entry.annotation["file"])


def image_id_of(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def json_files(folder: Path) -> list[Path]:
    place = child(folder, "annotations")
    files = [] if place is None or not place.is_dir() else sorted(place.glob("*.json"))
    return [path for path in files or sorted(folder.glob("*.json")) if not path.name.startswith(".")]


def find_named(root: Path, name: str) -> Path:
    """A file or folder of the options, which must lie in the root."""
    try:
        path = inside(root, PurePosixPath(name).as_posix())
    except SkippedImage as skipped:
        raise SourceError(f"expected a path below {root}, found {name!r} ({skipped.reason})") from skipped
    if not path.exists():
        raise SourceError(f"expected {name} in {root}, found nothing there")
    return path


def _part_files(files: Sequence[Path]) -> set[Path]:
    """Files with "part" in their names that stand beside another file of their split."""
    named = {path for path in files if "part" in path.stem.lower()}
    beside = {split_in_name(path.stem) for path in files if path not in named}
    return {path for path in named if split_in_name(path.stem) in beside}


def category_names(files: Sequence[tuple[Path, str]]) -> dict[int, tuple[str, str]]:
    """Name and supercategory of every category id. Raises ``SourceError`` where two files disagree."""
    found: dict[int, tuple[str, str]] = {}
    for path, _ in files:
        for item in list_categories(path):
            number, name = category_number(item.get("id")), item.get("name")
            if isinstance(number, bool) or not isinstance(number, int) or not isinstance(name, str) or not name.strip():
                raise SourceError(f"{path.name}: expected categories with an id and a name, found {str(item)[:80]}")
            category = (name.strip(), str(item.get("supercategory") or "").strip())
            if found.setdefault(number, category)[0] != category[0]:
                raise SourceError(
                    f"{path.name}: category {number} is {category[0]!r} here and {found[number][0]!r} in a file "
                    "before it: give different categories different ids"
                )
    return found


def _part_categories(
    names: Mapping[int, tuple[str, str]], objects: Mapping[int, tuple[str, str]]
) -> dict[int, tuple[str, str, int]]:
    """The categories of ``names`` that are parts of one of ``objects``: spelling, part and object id by their ids.

    Where both are of the same files, ``names`` is ``objects``.
    """
    ids = {clean_name(name): number for number, (name, _) in objects.items()}
    found = {}
    for number, (name, above) in names.items():
        split = _OWNER_AND_PART.match(name)
        if split and clean_name(split[1]) in ids:
            found[number] = (name, split[2], ids[clean_name(split[1])])
        elif above and clean_name(above) in ids and clean_name(above) != clean_name(name):
            prefix = clean_name(above) + " "
            part = clean_name(name).removeprefix(prefix)
            found[number] = (name, part, ids[clean_name(above)])
        elif len(ids) == 1 and names is not objects and clean_name(name) not in ids:  # a file of the parts of one class
            found[number] = (name, name, next(iter(ids.values())))
    return found


def _owner(
    item: _Annotation, objects: Sequence[_Annotation], pairs: Sequence[_Pair], owner: int, region: Outline
) -> int | None:
    """Which object a part belongs to: the one that it names, else the one of its class with most of its pixels."""
    named = [item[key] for key in _OWNER_IDS if item.get(key) is not None]
    shared = [
        (region.intersection(whole).area if label.id == owner else 0, -number)
        for number, (label, whole) in enumerate(pairs)
    ]
    for number, annotation in enumerate(objects):
        if named and annotation.get("id") == named[0]:
            return number if shared[number][0] else None
    best = max(shared, default=(0, 0))
    return -best[1] if best[0] else None
