"""Pascal-Part-116 (OV-PARTS, Wei et al. 2023): PASCAL VOC 2010 photographs with class and part label maps.

::

    PascalPart116/images/{train,val}/<stem>.jpg
    PascalPart116/annotations_detectron2_obj/{train,val}/<stem>.png    0..19 object, 255 ignore
    PascalPart116/annotations_detectron2_part/{train,val}/<stem>.png   0..115 part, 255 ignore

The maps are semantic: two dogs share one value. Instances come, for each image, from the first of

1. ``Annotations_Part/<stem>.mat``, the original PASCAL-Part (Chen et al. 2014),
2. ``SegmentationObject/<stem>.png`` of VOC 2010,
3. ``pascalvoc_joint_{train,val}.json``, a COCO file of objects (categories 0..19) and parts (20..135),
4. connected components, exact only where a class has a single one.

Without label maps the joint COCO files alone are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talking_points.records import AnnotatedObject, ImageRecord
from talking_points.sources.coco_index import CocoIndex, count_unlisted, list_entries
from talking_points.sources.coco_parts import (
    BadAnnotationError,
    Outline,
    make_outlined_object,
    outline,
    usable_category,
)
from talking_points.sources.images import check_listed_size, decode_labels, image_record, open_image, open_labels
from talking_points.sources.label_maps import ObjectCrop, part_tables, present_values
from talking_points.sources.labels import PartLabel, vocabulary
from talking_points.sources.layout import (
    IMAGE_EXTENSIONS,
    ImageFinder,
    all_inside,
    child,
    choose_splits,
    descend,
    find_root,
    inside,
    stems,
)
from talking_points.sources.pascal_instances import (
    ClassMask,
    UnusableInstancesError,
    find_instances,
    instances_from_mat,
    instances_from_voc,
)
from talking_points.sources.protocol import SkippedImage, Source, SourceEntry, SourceError

SPLITS = ("train", "val")
_IGNORE = 255
"""Background and unlabelled, in both maps: 0 is a real class (aeroplane, aeroplane's body)."""
_FIRST_JOINT_PART = 20
_PNG = frozenset({".png"})
_OBJECT_MAPS = "annotations_detectron2_obj"
_PART_MAPS = "annotations_detectron2_part"


def _joint_files(folder: Path) -> dict[str, Path]:
    found = {split: child(folder, f"pascalvoc_joint_{split}.json") for split in SPLITS}
    return {split: path for split, path in found.items() if path is not None}


def _is_dataset(folder: Path) -> bool:
    has_labels = child(folder, _PART_MAPS) is not None or bool(_joint_files(folder))
    return has_labels and child(folder, "images") is not None


class PascalPart116(Source):
    """Records of Pascal-Part-116. Part ids 0..115, object ids 0..19 (``labels/pascal_part116.json``).

    ``part_annotations``, ``segmentation_objects`` and ``joint_annotations`` name the folders of the optional instance
    files when they lie elsewhere than in the dataset folder.
    """

    name = "pascal_part116"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        *,
        part_annotations: str | Path | None = None,
        segmentation_objects: str | Path | None = None,
        joint_annotations: str | Path | None = None,
    ) -> None:
        spellings = ("PascalPart116", "Pascal-Part-116", "pascal_part_116")
        expected = "folders images and annotations_detectron2_obj/_part, or pascalvoc_joint_{train,val}.json"
        super().__init__(find_root(root, spellings, _is_dataset, expected), split)
        images = child(self.root, "images")
        assert images is not None  # find_root has looked
        folders = {name: child(images, name) for name in SPLITS}
        self._images = {name: folder for name, folder in folders.items() if folder is not None}
        self._splits = choose_splits(tuple(self._images), split, images)
        joint = _joint_files(_optional_folder(joint_annotations) or self.root)
        self._joint = {name: path for name, path in joint.items() if name in self._splits}
        self._has_maps = child(self.root, _PART_MAPS) is not None
        if self._has_maps:
            self._check_maps()
        elif not self._joint:
            names = ", ".join(f"pascalvoc_joint_{name}.json" for name in self._splits)
            raise SourceError(f"expected label maps or {names} in {self.root}, found neither; unpack the dataset again")
        self._instance_folders = {
            "mat": _optional_folder(part_annotations) or self._own_folder("Annotations_Part", "part_annotations"),
            "voc": _optional_folder(segmentation_objects)
            or self._own_folder("SegmentationObject", "segmentation_objects"),
        }
        self._vocabulary = vocabulary(self.name)
        self._part_tables = part_tables(self._vocabulary)

    def _own_folder(self, name: str, option: str) -> Path | None:
        folder = child(self.root, name)
        if folder is not None and not folder.resolve().is_relative_to(self.root):
            raise SourceError(
                f"expected {folder} inside the dataset, found a link to {folder.resolve()}; "
                f"name that folder in the option {option}"
            )
        return folder

    def _check_maps(self) -> None:
        for folder in (_OBJECT_MAPS, _PART_MAPS):
            wanted = (folder,) if self.split is None else (folder, self._splits[0])
            if descend(self.root, *wanted) is None:
                raise SourceError(
                    f"expected {'/'.join(wanted)} in {self.root}, found none; an older PascalPart116.tar.gz lacked "
                    "part of the labels: download it again"
                )

    def entries(self) -> Iterator[SourceEntry]:
        with ExitStack() as stack:
            index = None
            if self._joint:
                index = stack.enter_context(CocoIndex(self))
                for split, path in sorted(self._joint.items()):
                    index.add(path, split, lambda name: PurePosixPath(name).stem)
            if self._has_maps:
                for split in sorted(self._splits):
                    yield from self._map_entries(split, index)
            elif index is not None:
                finders = {split: ImageFinder(self.root, [self._images[split]]) for split in self._joint}
                yield from list_entries(index, finders, lambda image, path: ())
                count_unlisted(index, finders)

    def _map_entries(self, split: str, index: CocoIndex | None) -> Iterator[SourceEntry]:
        images = self._listing(self._images[split])
        objects = self._listing(descend(self.root, _OBJECT_MAPS, split), _PNG)
        parts = self._listing(descend(self.root, _PART_MAPS, split), _PNG)
        optional = {
            kind: (folder, stems(folder, frozenset({".mat"}) if kind == "mat" else _PNG))
            for kind, folder in self._instance_folders.items()
            if folder is not None
        }
        for stem in sorted(images | objects | parts):
            if stem not in images:
                self.skip("missing_image", objects.get(stem) or parts[stem])
                continue
            if stem not in objects or stem not in parts:
                missing = "object" if stem not in objects else "part"
                self.skip("missing_label", f"{images[stem]}: no {missing} map (an older archive lacked val labels)")
                continue
            files = [images[stem], objects[stem], parts[stem]]
            image_id = f"{split}/{stem}"
            annotation: dict[str, Any] = {}
            for kind, (folder, names) in optional.items():
                if stem in names:
                    annotation = {
                        "instances": kind,
                        "file": names[stem],
                        "bytes": (folder / names[stem]).stat().st_size,
                    }
                    if folder.resolve().is_relative_to(self.root):
                        files.append((folder / names[stem]).relative_to(self.root).as_posix())
                    break
            if not annotation and index is not None and (known := index.annotations(image_id)):
                objects_only = [item for item in known if item.get("category_id") in range(_FIRST_JOINT_PART)]
                annotation = {"instances": "joint", "annotations": objects_only}
            if all_inside(self, files):
                yield SourceEntry(image_id, files[0], split, tuple(files), annotation)

    def _listing(self, folder: Path | None, extensions: frozenset[str] = IMAGE_EXTENSIONS) -> dict[str, str]:
        """Path from the root of every file of a folder, by stem."""
        if folder is None:
            return {}
        prefix = folder.relative_to(self.root).as_posix()
        return {stem: f"{prefix}/{name}" for stem, name in stems(folder, extensions).items()}

    def read(self, entry: SourceEntry) -> ImageRecord:
        path, pixels = open_image(self.root, entry)
        if len(entry.files) > 1:
            objects, labels = self._from_maps(entry, pixels), entry.files[2]
        else:
            check_listed_size(entry.annotation["width"], entry.annotation["height"], pixels, entry.image_path)
            objects, labels = self._from_joint(entry, pixels), entry.annotation["file"]
        return image_record(self.name, entry, path, pixels, objects, labels)

    def _from_maps(self, entry: SourceEntry, pixels: NDArray[np.uint8]) -> tuple[AnnotatedObject, ...]:
        classes = open_labels(self.root, entry.files[1], pixels)
        part_labels = open_labels(self.root, entry.files[2], pixels)
        ignore = frozenset({_IGNORE})
        present = present_values(classes, len(self._vocabulary.objects), ignore, entry.files[1])
        present_parts = present_values(part_labels, len(self._vocabulary.parts), ignore, entry.files[2])
        parts = part_labels.astype(np.uint8, copy=False)  # within 0..115 and 255 = NO_PART
        instances, empty = find_instances(classes, present, self._read_instances(entry, classes))
        if empty:
            self.skip("empty_object", entry.image_path, empty)
        objects = []
        for instance in instances:
            table = self._part_tables[instance.class_id]
            crop = ObjectCrop.cut(instance.mask, instance.rows, instance.columns, parts, table)
            objects.append(crop.annotate(instance.class_id, self._vocabulary, present_parts, instance.exact))
        found = {part.id for item in objects for part in item.parts}
        for part_id in present_parts:
            if part_id not in found:
                self.skip("part_outside_object", f"{entry.files[2]}: {self._vocabulary.parts[part_id].label}")
        return tuple(objects)

    def _read_instances(self, entry: SourceEntry, classes: NDArray[np.integer]) -> list[ClassMask]:
        """Instances told apart by the entry's optional file; none when there is no usable one."""
        kind = entry.annotation.get("instances")
        height, width = classes.shape
        try:
            if kind == "joint":
                found = self._usable_outlines(entry.annotation["annotations"], width, height, entry.image_path)
                return [(category, region.mask()) for category, region in found if category < _FIRST_JOINT_PART]
            if kind in ("mat", "voc"):
                folder = self._instance_folders[kind]
                if folder is None:
                    raise UnusableInstancesError("unreadable_instances", f"no folder for {entry.annotation['file']}")
                file = inside(folder.resolve(), entry.annotation["file"])
                if kind == "mat":
                    return instances_from_mat(file, classes.shape)
                return instances_from_voc(decode_labels(file), classes)
        except UnusableInstancesError as error:
            self.skip(error.reason, error.detail)
        except SkippedImage as error:
            self.skip("unreadable_instances", str(error))
        return []

    def _usable_outlines(
        self, annotations: list[Mapping[str, Any]], width: int, height: int, where: str
    ) -> list[tuple[int, Outline]]:
        found = []
        for annotation in annotations:
            try:
                category = usable_category(annotation, range(_FIRST_JOINT_PART + len(self._vocabulary.parts)))
                region = outline(annotation, width, height)
                if not region.area:
                    raise BadAnnotationError("empty_object" if category < _FIRST_JOINT_PART else "empty_part")
                found.append((category, region))
            except BadAnnotationError as error:
                self.skip(error.reason, f"{where}: {error.detail}")
        return found

    def _from_joint(self, entry: SourceEntry, pixels: NDArray[np.uint8]) -> tuple[AnnotatedObject, ...]:
        """Objects of the joint COCO file. A part belongs to the object of its class that holds most of it."""
        height, width = pixels.shape[:2]
        found = self._usable_outlines(entry.annotation["annotations"], width, height, entry.image_path)
        objects = [(category, region) for category, region in found if category < _FIRST_JOINT_PART]
        if not objects:
            raise SkippedImage("no_usable_annotation")
        owned: list[list[tuple[PartLabel, Outline]]] = [[] for _ in objects]
        for category, region in found:
            if category < _FIRST_JOINT_PART:
                continue
            part = self._vocabulary.parts[category - _FIRST_JOINT_PART]
            own = [region.intersection(owner) for _, owner in objects]
            areas = [share.area * (objects[i][0] == part.object_id) for i, share in enumerate(own)]
            best = int(np.argmax(areas))
            if areas[best]:
                owned[best].append((part, own[best]))
            else:
                self.skip("part_outside_object", f"{entry.image_path}: {part.label}")
        return tuple(
            make_outlined_object(self._vocabulary.objects[object_id], region, parts, instance_exact=True)
            for (object_id, region), parts in zip(objects, owned, strict=True)
        )


def _optional_folder(folder: str | Path | None) -> Path | None:
    if folder is None:
        return None
    path = Path(str(folder)).expanduser()
    if not path.is_dir():
        raise SourceError(
            f"expected a folder of instance annotations at {path}, found none; correct or remove the option"
        )
    return path.resolve()
