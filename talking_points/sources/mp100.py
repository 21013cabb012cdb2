"""MP-100 (Xu et al. 2022): 100 categories with 8 to 68 keypoints, in five partitions of disjoint categories.

::

    mp100/annotations/mp100_split{1..5}_{train,val,test}.json
    mp100/images/<category folder>/...          or mp100/<category folder>/..., or folders of the datasets themselves

The images come from 13 datasets that users collect themselves: missing ones are normal and counted by category.
Folders of other names are taken as ``mp100_images`` says. Its authors advise to link to the datasets where they were
unpacked (``ln -s COCO mp100/human_body``): such links are followed to the folders that ``links`` names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from talking_points.records import AnnotatedObject, ImageRecord
from talking_points.sources.coco_index import CocoImage, CocoIndex, category_number, count_annotations, list_entries
from talking_points.sources.coco_parts import BadAnnotationError, clip_box, usable_category
from talking_points.sources.images import image_record, open_listed_image
from talking_points.sources.keypoint_annotations import check_count, name_keypoints, raw_keypoints, usable_skeleton
from talking_points.sources.keypoint_sets import KeypointSet, readable, set_of
from talking_points.sources.labels import clean_name, load_labels
from talking_points.sources.layout import child, choose_splits, descend, find_root
from talking_points.sources.mp100_images import Mp100Finder
from talking_points.sources.protocol import SkippedImage, Source, SourceEntry, SourceError

SPLITS = ("train", "val", "test")
PARTITIONS = (1, 2, 3, 4, 5)


def _is_dataset(folder: Path) -> bool:
    files = (f"mp100_split{partition}_{split}.json" for split in SPLITS for partition in PARTITIONS)
    annotations = child(folder, "annotations")
    return annotations is not None and child(annotations, *files) is not None


class Mp100(Source):
    """Records of MP-100: objects with ``keypoints`` and without masks; ``id`` is the category (1..100).

    Categories are told apart by id: their names repeat (18 and 40 are both "face") and are not folder names.
    Keypoints are named by the category's keypoint set (``keypoint_sets``), in the file's own order where the file
    lists the same names in another; codes ("forelegR2") and absent names are replaced. ``skeleton`` is the file's.
    ``exclude_categories``: ids to leave out, for example {80} (hands whose images often do not match).
    ``links``: folders outside the root that links may lead to.
    After listing, ``missing_by_category`` counts the images that are not on disk by category id.
    """

    name = "mp100"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        *,
        partition: int = 1,
        exclude_categories: Collection[int] = (),
        links: Sequence[str | Path] = (),
    ) -> None:
        expected = "a folder annotations with mp100_split{1..5}_{train,val,test}.json"
        super().__init__(find_root(root, ("mp100", "mp-100"), _is_dataset, expected), split)
        if partition not in PARTITIONS:
            raise SourceError(f"expected partition 1 to 5 of MP-100, found {partition!r}")
        found = {name: descend(self.root, "annotations", f"mp100_split{partition}_{name}.json") for name in SPLITS}
        self._files = {name: path for name, path in found.items() if path is not None}
        self._splits = choose_splits(tuple(self._files), split, self.root / "annotations")
        self._categories = {item["id"]: item["name"] for item in load_labels(self.name)["categories"]}
        self._excluded = frozenset(exclude_categories)
        self.links = tuple(Path(place).expanduser().resolve() for place in links)
        self.missing_by_category: Counter[int] = Counter()

    def count_annotations(self) -> dict[str, Counter[int]]:
        """How many annotations of each category every split has; nothing is said of images."""
        return {name: count_annotations(self._files[name]) for name in self._splits}

    def missing_by_name(self) -> dict[str, int]:
        """``missing_by_category`` of the categories that are not left out, by their names, as objects have them."""
        kept = sorted(self.missing_by_category.keys() & self._categories.keys() - self._excluded)
        return {clean_name(self._categories[number]): self.missing_by_category[number] for number in kept}

    def entries(self) -> Iterator[SourceEntry]:
        self.missing_by_category.clear()
        finder = Mp100Finder(self.root, self.links)
        with CocoIndex(self) as index:
            known: dict[str, dict[int, dict[str, Any]]] = {}
            for split in self._splits:
                categories = index.add(
                    self._files[split], split, lambda name: PurePosixPath(name).with_suffix("").as_posix()
                )
                numbered = ((category_number(item.get("id")), item) for item in categories)
                known[split] = {
                    number: _wording(number, item)
                    for number, item in numbered
                    if isinstance(number, int) and number in self._categories
                }

            finder.adopt(index.references())

            def count_missing(image: CocoImage) -> None:
                self.missing_by_category.update({item["category_id"] for item in image.annotations})

            finders = dict.fromkeys(self._splits, finder)
            for entry in list_entries(index, finders, lambda image, path: (), count_missing):
                wanted = [a for a in entry.annotation["annotations"] if a["category_id"] not in self._excluded]
                if wanted:
                    listed = {a["category_id"]: known[entry.split].get(a["category_id"], {}) for a in wanted}
                    annotation = {
                        **entry.annotation,
                        "annotations": wanted,
                        "keypoint_names": {str(key): item.get("keypoints") for key, item in listed.items()},
                        "skeletons": {str(key): item.get("skeleton") for key, item in listed.items()},
                    }
                    yield SourceEntry(entry.image_id, entry.image_path, entry.split, entry.files, annotation)

    def read(self, entry: SourceEntry) -> ImageRecord:
        path, pixels = open_listed_image(self.root, entry, self.links)
        height, width = pixels.shape[:2]
        objects = []
        for annotation in entry.annotation["annotations"]:
            try:
                category = usable_category(annotation, self._categories)
                box = clip_box(annotation.get("bbox"), width, height)
                triples = raw_keypoints(annotation)
                check_count(triples, set_of(category).names)
            except BadAnnotationError as error:
                self.skip(error.reason, f"{entry.image_path}: {error.detail}")
                continue
            names = order_names(set_of(category), entry.annotation["keypoint_names"].get(str(category)))
            keypoints = name_keypoints(triples, names, width, height, self, entry.image_path)
            edges = usable_skeleton(entry.annotation["skeletons"].get(str(category)), len(names))
            label = self._categories[category]
            objects.append(
                AnnotatedObject(clean_name(label), label, category, box, keypoints=keypoints, skeleton=edges)
            )
        if not objects:
            raise SkippedImage("no_usable_annotation")
        return image_record(self.name, entry, path, pixels, objects, entry.annotation["file"])


def _wording(number: int, category: dict[str, Any]) -> dict[str, Any]:
    """A category's names, where they are as many as its set has, and usable edges: every image of it carries them."""
    names, count = category.get("keypoints"), len(set_of(number))
    return {
        "keypoints": names if isinstance(names, list) and len(names) == count else None,
        "skeleton": list(map(list, usable_skeleton(category.get("skeleton"), count))),
    }


def order_names(keypoints: KeypointSet, listed: object) -> tuple[str, ...]:
    """The set's names in the order of ``listed``, a file's own, where those are the same words; else in the set's."""
    names = tuple(map(readable, listed)) if isinstance(listed, list) and all(isinstance(n, str) for n in listed) else ()
    return names if sorted(names) == sorted(keypoints.names) else keypoints.names
