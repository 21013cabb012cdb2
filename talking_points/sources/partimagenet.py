"""PartImageNet (He et al. 2022): ImageNet photographs with 40 part categories of 11 supercategories.

The original release ("OOD" split, older and flattened copies) is COCO JSON::

    PartImageNet_OOD/images/{train,val,test}/[<wnid>/]<stem>.JPEG      or <root>/{train,val,test}/...
    PartImageNet_OOD/{train,val,test}.json                             or annotations/<split>/<split>.json

``PartImageNet_Seg`` adds label maps, which are read in preference to its JSON::

    PartImageNet/images/{train,val,test}/<stem>.JPEG
    PartImageNet/annotations/{train,val,test}/<stem>.png               0..39 part, 40 (or 255) background
    PartImageNet/annotations/{train,val,test}_whole/<stem>.png         0..157 class, 158 (or 255) background

Objects are not annotated: an object is the union of the image's parts of one supercategory (or the region of the
object map). Images were filtered to hold one object each; two separate heads show that one was not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.records import AnnotatedObject, ImageRecord, Mask
from talking_points.sources.coco_index import CocoIndex, count_unlisted, list_entries
from talking_points.sources.coco_parts import (
    BadAnnotationError,
    Outline,
    make_outlined_object,
    outline,
    union,
    usable_category,
)
from talking_points.sources.images import check_listed_size, image_record, open_image, open_labels
from talking_points.sources.label_maps import NO_PART, ObjectCrop, bounds, part_tables, present_values
from talking_points.sources.labels import PartLabel, vocabulary
from talking_points.sources.layout import (
    ImageFinder,
    all_inside,
    child,
    choose_splits,
    descend,
    find_root,
    has_files,
    stems,
)
from talking_points.sources.protocol import SkippedImage, Source, SourceEntry, SourceError

SPLITS = ("train", "val", "test")
_BACKGROUND = 40
_CLASSES = 158
_PNG = frozenset({".png"})


@dataclass(frozen=True)
class _Split:
    """Where one split lies. ``maps`` is set for PartImageNet_Seg, ``json`` otherwise."""

    images: Path
    own_images: bool
    json: Path | None
    maps: Path | None
    whole: Path | None


def _find_split(root: Path, name: str) -> _Split | None:
    folder = descend(root, "images", name) or child(root, name)
    images = folder if folder is not None and folder.is_dir() else child(root, "images")
    annotations = descend(root, "annotations", name)
    file = f"{name}.json"
    joint = child(root, file, f"{name}_format.json") or descend(root, "annotations", name, file)
    joint = joint or descend(root, "annotations", file)
    maps = annotations if annotations is not None and annotations.is_dir() and has_files(annotations, _PNG) else None
    if images is None or (joint is None and maps is None):
        return None
    return _Split(
        images, images == folder, None if maps else joint, maps, descend(root, "annotations", f"{name}_whole")
    )


def _is_dataset(folder: Path) -> bool:
    return any(_find_split(folder, name) is not None for name in SPLITS)


class PartImageNet(Source):
    """Records of PartImageNet. Part ids 0..39, object ids 0..10 = supercategories (``labels/partimagenet.json``)."""

    name = "partimagenet"

    def __init__(self, root: str | Path, split: str | None = None) -> None:
        spellings = ("PartImageNet", "PartImageNet_OOD", "PartImageNet_Seg")
        expected = "images and a COCO train.json / val.json / test.json, or annotations/<split>/*.png label maps"
        super().__init__(find_root(root, spellings, _is_dataset, expected), split)
        found = {name: _find_split(self.root, name) for name in SPLITS}
        self._all = {name: place for name, place in found.items() if place is not None}
        self._splits = choose_splits(tuple(self._all), split, self.root)
        self._vocabulary = vocabulary(self.name)
        self._part_tables = part_tables(self._vocabulary)

    def entries(self) -> Iterator[SourceEntry]:
        mapped = [name for name in self._splits if self._all[name].maps is not None]
        for name in sorted(self._splits):
            yield from self._map_entries(name) if name in mapped else self._joint_entries(name)

    def _joint_entries(self, split: str) -> Iterator[SourceEntry]:
        place = self._all[split]
        assert place.json is not None  # a split without maps has JSON
        finders = {split: ImageFinder(self.root, [place.images])}
        with CocoIndex(self) as index:
            self._check_categories(index.add(place.json, split, lambda name: PurePosixPath(name).stem), place.json)
            yield from list_entries(index, finders, lambda image, path: ())
            if place.own_images:
                count_unlisted(index, finders)

    def _check_categories(self, categories: Sequence[Mapping[str, Any]], path: Path) -> None:
        names = {item.get("id"): str(item.get("name")) for item in categories}
        # The names are the giveaway: the derived files keep category_id 0..39 in their annotations.
        if len(names) > len(self._vocabulary.parts) or any("'s " in name for name in names.values()):
            raise SourceError(
                f"expected the 40 part categories of PartImageNet in {path}, found {len(names)}: a derived file "
                "(PartCLIPSeg / PartCATSeg preprocessing) whose names and ids disagree; "
                "unpack the original archive again"
            )
        for part in self._vocabulary.parts:
            name = names.get(part.id, part.label)
            if name.lower() not in (part.label.lower(), part.label.lower().replace("tier", "tire")):
                raise SourceError(
                    f"expected category {part.id} = {part.label!r} in {path}, found {name!r}: another dataset or a "
                    "derived file; unpack the original archive again"
                )

    def _map_entries(self, split: str) -> Iterator[SourceEntry]:
        place = self._all[split]
        assert place.maps is not None
        images = {stem: place.images / name for stem, name in stems(place.images).items()}
        maps = stems(place.maps, _PNG)
        whole = stems(place.whole, _PNG) if place.whole is not None else {}
        if not place.own_images:  # one folder for all splits: the label maps say which images are meant
            images = {stem: path for stem, path in images.items() if stem in maps}
        for stem in sorted(images | maps):
            if stem not in images:
                self.skip("missing_image", f"{split}/{maps[stem]}")
                continue
            if stem not in maps:
                self.skip("missing_label", images[stem].relative_to(self.root).as_posix())
                continue
            paths = [images[stem], place.maps / maps[stem]]
            if stem in whole and place.whole is not None:
                paths.append(place.whole / whole[stem])
            files = tuple(path.relative_to(self.root).as_posix() for path in paths)
            if all_inside(self, files):
                yield SourceEntry(f"{split}/{stem}", files[0], split, files)

    def read(self, entry: SourceEntry) -> ImageRecord:
        path, pixels = open_image(self.root, entry)
        if len(entry.files) > 1:
            objects, labels = self._from_maps(entry, pixels), entry.files[1]
        else:
            check_listed_size(entry.annotation["width"], entry.annotation["height"], pixels, entry.image_path)
            objects, labels = self._from_annotations(entry, pixels), entry.annotation["file"]
        return image_record(self.name, entry, path, pixels, objects, labels)

    def _from_annotations(self, entry: SourceEntry, pixels: NDArray[np.uint8]) -> tuple[AnnotatedObject, ...]:
        height, width = pixels.shape[:2]
        found: list[tuple[PartLabel, Outline]] = []
        for annotation in entry.annotation["annotations"]:
            try:
                part = self._vocabulary.parts[usable_category(annotation, self._vocabulary.parts)]
                region = outline(annotation, width, height)
                if not region.area:
                    raise BadAnnotationError("empty_part", part.label)
                found.append((part, region))
            except BadAnnotationError as error:
                self.skip(error.reason, f"{entry.image_path}: {error.detail}")
        objects = []
        for object_id in sorted({part.object_id for part, _ in found}):
            own = [(part, region) for part, region in found if part.object_id == object_id]
            whole = union([region for _, region in own])
            heads = [region for part, region in own if part.part == "head"]
            several = bool(heads) and separate_heads(union(heads).mask(), whole.mask())
            objects.append(make_outlined_object(self._vocabulary.objects[object_id], whole, own, not several))
        if not objects:
            raise SkippedImage("no_usable_annotation")
        return tuple(objects)

    def _from_maps(self, entry: SourceEntry, pixels: NDArray[np.uint8]) -> tuple[AnnotatedObject, ...]:
        labels = open_labels(self.root, entry.files[1], pixels)
        present = present_values(labels, _BACKGROUND, frozenset({_BACKGROUND, 255}), entry.files[1])
        parts = labels.astype(np.uint8)
        parts[labels == _BACKGROUND] = NO_PART
        whole = self._whole(entry, pixels)
        owners = sorted({self._vocabulary.parts[part_id].object_id for part_id in present})
        if not owners:
            raise SkippedImage("no_usable_annotation")
        objects = []
        for object_id in owners:
            table = self._part_tables[object_id]
            mask = whole if whole is not None and len(owners) == 1 else cv2.LUT(parts, table) != NO_PART
            rows, columns = bounds(mask)
            crop = ObjectCrop.cut(np.ascontiguousarray(mask[rows, columns]), rows, columns, parts, table)
            heads = [crop.parts == part.id for part in self._vocabulary.parts if part.part == "head"]
            several = separate_heads(np.logical_or.reduce(heads), crop.mask)
            objects.append(crop.annotate(object_id, self._vocabulary, present, not several))
        found = {part.id for item in objects for part in item.parts}
        for part_id in present:
            if part_id not in found:
                self.skip("part_outside_object", f"{entry.files[1]}: {self._vocabulary.parts[part_id].label}")
        return tuple(objects)

    def _whole(self, entry: SourceEntry, pixels: NDArray[np.uint8]) -> Mask | None:
        """The object's mask of the ``_whole`` map; None without one. Its class numbering is not published."""
        if len(entry.files) < 3:
            return None
        labels = open_labels(self.root, entry.files[2], pixels)
        values = present_values(labels, _CLASSES, frozenset({_CLASSES, 255}), entry.files[2])
        if len(values) > 1:
            raise SkippedImage("several_whole_classes", f"{entry.files[2]}: {values}")
        return labels == values[0] if values else None


def separate_heads(heads: Mask, whole: Mask) -> bool:
    """Whether unconnected pieces of ``whole`` both have pixels of ``heads``: then the "object" is several."""
    count, _ = cv2.connectedComponents(heads.view(np.uint8), connectivity=8)
    if count <= 2:  # the background and one piece of head
        return False
    _, pieces = cv2.connectedComponents(whole.view(np.uint8), connectivity=8)
    return len(set(np.unique(pieces[heads]).tolist()) - {0}) > 1
