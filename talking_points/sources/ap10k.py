"""AP-10K (Yu et al. 2021): animals of 54 species and 23 families with 17 keypoints each.

::

    ap-10k/annotations/ap10k-{train,val,test}-split{1,2,3}.json
    ap-10k/data/000000000001.jpg

The three numbered partitions divide the *same* images; one is read at a time. Left and right in keypoint names are
the animal's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from talking_points.records import AnnotatedObject, ImageRecord
from talking_points.sources.coco_index import CocoIndex, list_entries
from talking_points.sources.coco_parts import BadAnnotationError, clip_box, usable_category
from talking_points.sources.images import check_listed_size, image_record, open_image
from talking_points.sources.keypoint_annotations import name_keypoints, raw_keypoints
from talking_points.sources.labels import ap10k_families, load_labels
from talking_points.sources.layout import ImageFinder, child, choose_splits, descend, find_root
from talking_points.sources.protocol import SkippedImage, Source, SourceEntry, SourceError

SPLITS = ("train", "val", "test")
PARTITIONS = (1, 2, 3)


def _is_dataset(folder: Path) -> bool:
    files = (f"ap10k-{split}-split{partition}.json" for split in SPLITS for partition in PARTITIONS)
    annotations = child(folder, "annotations")
    return child(folder, "data") is not None and annotations is not None and child(annotations, *files) is not None


class Ap10k(Source):
    """Records of AP-10K: objects are animals with ``keypoints`` (17, in the published order) and without masks.

    An object's ``id`` is its category (``labels.ap10k_families()[id]`` is the family), its name the species.
    ``split=None`` is the union of the three files of ``partition``, an annotation id met twice taken once.
    ``families`` keeps only animals of these families ("Bovidae", "Canidae"): the different-order setting.
    """

    name = "ap10k"

    def __init__(
        self, root: str | Path, split: str | None = None, *, partition: int = 1, families: Sequence[str] | None = None
    ) -> None:
        expected = "folders data and annotations with ap10k-{train,val,test}-split{1,2,3}.json"
        super().__init__(find_root(root, ("ap-10k", "ap10k"), _is_dataset, expected), split)
        if partition not in PARTITIONS:
            raise SourceError(f"expected partition 1, 2 or 3 of AP-10K, found {partition!r}")
        found = {name: descend(self.root, "annotations", f"ap10k-{name}-split{partition}.json") for name in SPLITS}
        self._files = {name: path for name, path in found.items() if path is not None}
        self._splits = choose_splits(tuple(self._files), split, self.root / "annotations")
        images = child(self.root, "data")
        assert images is not None  # find_root has looked
        self._images = images
        self._families = ap10k_families()
        unknown = set(families or ()) - set(self._families.values())
        if unknown:
            raise SourceError(f"expected families of AP-10K, found {sorted(unknown)}; see labels/ap10k.json")
        self._wanted = frozenset(families or self._families.values())
        labels = load_labels(self.name)
        self._species = {item["id"]: item["name"] for item in labels["species"]}
        self._keypoints = [item["name"] for item in labels["keypoints"]]

    def entries(self) -> Iterator[SourceEntry]:
        with CocoIndex(self, joint=True) as index:
            for split in self._splits:
                index.add(self._files[split], split, lambda name: PurePosixPath(name).stem)
            finders = dict.fromkeys(self._splits, ImageFinder(self.root, [self._images]))
            for entry in list_entries(index, finders, lambda image, path: ()):
                if any(self._is_wanted(annotation) for annotation in entry.annotation["annotations"]):
                    yield entry

    def _is_wanted(self, annotation: dict[str, Any]) -> bool:
        """False for known animals of other families; unknown categories pass and are counted when read."""
        return self._families.get(annotation["category_id"]) in (*self._wanted, None)

    def read(self, entry: SourceEntry) -> ImageRecord:
        path, pixels = open_image(self.root, entry)
        height, width = pixels.shape[:2]
        check_listed_size(entry.annotation["width"], entry.annotation["height"], pixels, entry.image_path)
        objects = []
        for annotation in filter(self._is_wanted, entry.annotation["annotations"]):
            try:
                category = usable_category(annotation, self._species)
                box = clip_box(annotation.get("bbox"), width, height)
                triples = raw_keypoints(annotation)
                if len(triples) != len(self._keypoints):
                    raise BadAnnotationError("malformed_annotation", f"{len(triples)} keypoints")
            except BadAnnotationError as error:
                self.skip(error.reason, f"{entry.image_path}: {error.detail}")
                continue
            keypoints = name_keypoints(triples, self._keypoints, width, height, self, entry.image_path)
            species = self._species[category]
            objects.append(AnnotatedObject(species, species, category, box, keypoints=keypoints))
        if not objects:
            raise SkippedImage("no_usable_annotation")
        return image_record(self.name, entry, path, pixels, objects, entry.annotation["file"])
