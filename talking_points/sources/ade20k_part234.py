"""ADE20K-Part-234 (OV-PARTS, Wei et al. 2023): ADE20K photographs with object instances and a part label map.

::

    ADE20KPart234/images/{training,validation}/<stem>.jpg
    ADE20KPart234/annotations_detectron2_part/{training,validation}/<stem>.png   16 bit: 0..233 part, 65535 ignore
    ADE20KPart234/ade20k_instance_{train,val}.json                               COCO instances of 44 objects

The part map is semantic; a part of an instance is its class's part pixels inside the instance's mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.records import ImageRecord
from talking_points.sources.coco_index import CocoImage, CocoIndex, count_unlisted, list_entries
from talking_points.sources.coco_parts import BadAnnotationError, outline, usable_category
from talking_points.sources.images import check_listed_size, image_record, open_image, open_labels
from talking_points.sources.label_maps import NO_PART, ObjectCrop, part_tables, present_values
from talking_points.sources.labels import vocabulary
from talking_points.sources.layout import ImageFinder, child, choose_splits, descend, find_root, stems
from talking_points.sources.protocol import SkippedImage, Source, SourceEntry, SourceError

SPLITS = {"training": "ade20k_instance_train.json", "validation": "ade20k_instance_val.json"}


def _is_dataset(folder: Path) -> bool:
    return child(folder, "images") is not None and child(folder, *SPLITS.values()) is not None


@dataclass(frozen=True)
class _Instance:
    """An object, the part ids its annotation lists, and whether its mask is the annotated outline."""

    category: int
    crop: ObjectCrop
    exact: bool
    listed: frozenset[int]


class Ade20kPart234(Source):
    """Records of ADE20K-Part-234. Part ids 0..233, object ids 0..43 (``labels/ade20k_part234.json``)."""

    name = "ade20k_part234"

    def __init__(self, root: str | Path, split: str | None = None) -> None:
        expected = "a folder images and ade20k_instance_{train,val}.json"
        super().__init__(find_root(root, ("ADE20KPart234", "ADE20K-Part-234"), _is_dataset, expected), split)
        self._images = {name: descend(self.root, "images", name) for name in SPLITS}
        self._files = {name: child(self.root, file) for name, file in SPLITS.items()}
        available = [name for name in SPLITS if self._files[name] is not None and self._images[name] is not None]
        self._splits = choose_splits(available, split, self.root)
        if child(self.root, "annotations_detectron2_part") is None:
            raise SourceError(
                f"expected annotations_detectron2_part in {self.root}, found none; unpack the archive again"
            )
        self._vocabulary = vocabulary(self.name)
        self._part_tables = part_tables(self._vocabulary)

    def entries(self) -> Iterator[SourceEntry]:
        finders, maps = {}, {}
        with CocoIndex(self) as index:
            for split in self._splits:
                file, images = self._files[split], self._images[split]
                assert file is not None  # chosen splits have both
                assert images is not None
                index.add(file, split, lambda name: PurePosixPath(name).with_suffix("").as_posix())
                finders[split] = ImageFinder(self.root, [images])
                folder = descend(self.root, "annotations_detectron2_part", split)
                prefix = "" if folder is None else folder.relative_to(self.root).as_posix()
                names = {} if folder is None else stems(folder, frozenset({".png"}))
                maps[split] = {stem: f"{prefix}/{name}" for stem, name in names.items()}

            def part_map(image: CocoImage, path: str) -> tuple[str, ...] | None:
                file = maps[image.split].get(PurePosixPath(path).stem)
                return None if file is None else (file,)

            yield from list_entries(index, finders, part_map)
            listed = count_unlisted(index, finders)
            for split in self._splits:
                for stem in sorted(maps[split].keys() - finders[split].all_stems()):
                    if f"{split}/{stem}" not in listed:  # listed ones have been counted
                        self.skip("missing_image", maps[split][stem])

    def read(self, entry: SourceEntry) -> ImageRecord:
        path, pixels = open_image(self.root, entry)
        check_listed_size(entry.annotation["width"], entry.annotation["height"], pixels, entry.image_path)
        parts, present = self._part_map(entry.files[1], pixels)
        instances = self._instances(entry, parts)
        if not instances:
            raise SkippedImage("no_usable_annotation")
        share_overlaps([(instance.category, instance.crop) for instance in instances], parts)
        objects = []
        for item in instances:
            objects.append(item.crop.annotate(item.category, self._vocabulary, present, True, item.exact))
            for part_id in sorted(item.listed - {part.id for part in objects[-1].parts}):
                self.skip("part_without_pixels", f"{entry.image_path}: part id {part_id} of {objects[-1].label}")
        found = {part.id for item in objects for part in item.parts}
        for part_id in present:
            if part_id not in found:
                self.skip("part_outside_object", f"{entry.files[1]}: {self._vocabulary.parts[part_id].label}")
        return image_record(self.name, entry, path, pixels, objects, entry.files[1])

    def _part_map(self, file: str, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[int]]:
        """Part ids as uint8 with ``NO_PART``, and those that occur. The stored depth decides the ignore value."""
        labels = open_labels(self.root, file, pixels)
        ignore = 255 if labels.dtype == np.uint8 else 65535
        present = present_values(labels, len(self._vocabulary.parts), frozenset({ignore}), file)
        return np.minimum(labels, NO_PART).astype(np.uint8), present

    def _instances(self, entry: SourceEntry, parts: NDArray[np.uint8]) -> list[_Instance]:
        height, width = parts.shape
        found = []
        for annotation in entry.annotation["annotations"]:
            try:
                category = usable_category(annotation, self._vocabulary.objects)
                region = outline(annotation, width, height)
                if not region.area:
                    raise BadAnnotationError("empty_object")
            except BadAnnotationError as error:
                self.skip(error.reason, f"{entry.image_path}: {error.detail}")
                continue
            _, rows, columns, mask = region.crop()
            crop = ObjectCrop.cut(mask, rows, columns, parts, self._part_tables[category])
            found.append(_Instance(category, crop, region.exact, _list_parts(annotation)))
        return found


def _list_parts(annotation: dict[str, Any]) -> frozenset[int]:
    listed = annotation.get("part_category_id")
    return frozenset(item for item in listed if isinstance(item, int)) if isinstance(listed, list) else frozenset()


def share_overlaps(objects: Sequence[tuple[int, ObjectCrop]], parts: NDArray[np.uint8]) -> None:
    """Give part pixels inside several objects of one class to one of them, in place.

    ``objects``: class id and crop; ``parts``: the part map (height, width). Among the objects that hold a contested
    pixel, it goes to the one that holds most of the connected piece of the part map it belongs to; at a tie to
    the first.
    """
    for category in {category for category, _ in objects}:
        same = [crop for other, crop in objects if other == category]
        if len(same) < 2:
            continue
        holders = np.zeros(parts.shape, dtype=np.uint16)
        for crop in same:
            holders[crop.rows, crop.columns] += crop.parts != NO_PART
        contested = holders > 1
        for part_id in np.unique(parts[contested]):
            _, pieces = cv2.connectedComponents((parts == part_id).view(np.uint8), connectivity=8)
            for piece in np.unique(pieces[contested & (parts == part_id)]):
                held = [(pieces[crop.rows, crop.columns] == piece) & (crop.parts == part_id) for crop in same]
                taken = np.zeros(parts.shape, dtype=np.bool_)
                for number in sorted(range(len(same)), key=lambda number: -int(held[number].sum())):
                    crop = same[number]
                    crop.parts[held[number] & taken[crop.rows, crop.columns]] = NO_PART
                    taken[crop.rows, crop.columns] |= held[number]
