"""refCOCO, refCOCO+ and refCOCOg: objects of COCO images with the expressions that people refer to them by.

```
<root>/{refcoco,refcoco+,refcocog}/refs(unc).p | refs(umd).p | refs(google).p   and   instances.json
<root>/{refcoco,refcocoplus,refcocog}/[data/]<split>-*.parquet                  instead of both
<root>/images/train2014/COCO_train2014_000000000009.jpg
```

All three take every image, also those they test on, from COCO's train2014, and the training images of one are test
images of another. So the training split leaves out, and counts, every image of an evaluation split of any of the three
that is below the root, unless asked for all. A mask is the union of its polygons. Yu et al. 2016, Mao et al. 2016.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from talking_points.records import AnnotatedObject, ImageRecord
from talking_points.sources.coco_index import CocoImage, category_number
from talking_points.sources.coco_parts import BadAnnotationError, Outline, clip_box, outline
from talking_points.sources.images import image_record, open_listed_image
from talking_points.sources.labels import clean_name, load_labels
from talking_points.sources.layout import ImageFinder, child, descend, find_root
from talking_points.sources.protocol import SkippedImage, Source, SourceEntry, SourceError
from talking_points.sources.ref_index import RefIndex
from talking_points.sources.refs import MirroredRef, Ref, read_mirrored_refs, read_mirrored_splits, read_pickled_refs

SETS: dict[str, tuple[str, ...]] = {
    "refcoco": ("refcoco",),
    "refcoco_plus": ("refcoco+", "refcocoplus", "refcoco_plus"),
    "refcocog": ("refcocog",),
}
"""Source name -> spellings of its folder."""

SPLITS: dict[str, dict[str, tuple[str, ...]]] = {
    "refcoco": {"unc": ("train", "val", "testA", "testB"), "google": ("train", "val", "test")},
    "refcoco_plus": {"unc": ("train", "val", "testA", "testB")},
    "refcocog": {"umd": ("train", "val", "test"), "google": ("train", "val")},
}
"""Splits of every published division, the first being the one that results are reported on."""

PUBLISHED_REFS = {
    "refcoco": {"train": 42_404, "val": 3_811, "testA": 1_975, "testB": 1_810},
    "refcoco_plus": {"train": 42_278, "val": 3_805, "testA": 1_975, "testB": 1_798},
    "refcocog": {"train": 42_226, "val": 2_573, "test": 5_023},
}
"""References in each split as published, to print beside what was found."""

IMAGE_FOLDERS = ("images/train2014", "images/mscoco/images/train2014", "images/coco_2014/train2014", "train2014")

_MIRRORED_SPLITS = {"validation": "val", "test": "testA"}
"""What Parquet mirrors call splits; those of refCOCOg keep "test"."""


class RefCoco(Source):
    """refCOCO.

    ``split_by`` names the division ("unc", "umd", "google"); that of Google is for training only, since its images
    are in train and val alike. ``exclude_evaluation_images=False`` trains on all images, as the papers did.
    Raises ``SourceError`` for a root without
    the dataset, and for an unknown split or division.
    """

    name = "refcoco"
    default_split_by: ClassVar[str] = "unc"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        split_by: str | None = None,
        exclude_evaluation_images: bool = True,
    ) -> None:
        super().__init__(root, split)
        self.split_by = split_by or self.default_split_by
        self.exclude_evaluation_images = exclude_evaluation_images
        self.found: Counter[str] = Counter()
        self._splits = self._chosen_splits()
        expected = f'"{SETS[self.name][0]}/refs({self.split_by}).p" with "instances.json", or Parquet files'
        self.root = find_root(
            root, ("refer", "refcoco", "data"), lambda folder: self._folder(folder) is not None, expected
        )
        folders = [folder for name in IMAGE_FOLDERS if (folder := descend(self.root, *name.split("/"))) is not None]
        if not folders:
            raise SourceError(
                f"expected the images of COCO's train2014 in {' or '.join(IMAGE_FOLDERS)} below {self.root}, "
                "found none of these folders; unpack them there"
            )
        self._finder = ImageFinder(self.root, folders)

    def _chosen_splits(self) -> tuple[str, ...]:
        divisions = SPLITS[self.name]
        if self.split_by not in divisions:
            raise SourceError(
                f"expected split_by of {', '.join(divisions)} for {self.name}, found {self.split_by!r}; choose one"
            )
        available = divisions[self.split_by]
        wanted = {name.lower(): name for name in available} | {"validation": "val", "training": "train"}
        chosen = available if self.split is None else (wanted.get(self.split.lower(), ""),)
        if "" in chosen:
            raise SourceError(
                f"expected a split of {self.name} ({self.split_by}) of {', '.join(available)}; found {self.split!r}"
            )
        if self.split_by == "google" and chosen != ("train",):
            good = ", ".join(SPLITS[self.name][self.default_split_by])
            raise SourceError(
                f"the google division of {self.name} has training images among those it evaluates on: it is read with "
                f"split 'train' only; found {self.split!r}; evaluate on split_by {self.default_split_by!r}: {good}"
            )
        return tuple(sorted(chosen))

    def _folder(self, root: Path) -> Path | None:
        """The folder of this set below ``root``: one with the refs file, or else one with Parquet files."""
        folders = [folder for name in SETS[self.name] if (folder := child(root, name)) is not None and folder.is_dir()]
        pickled = [folder for folder in folders if child(folder, _refs_file(self.split_by)) is not None]
        return next(iter(pickled), next((folder for folder in folders if _parquet_files(folder)), None))

    def counts(self) -> dict[str, tuple[int, int | None]]:
        """References of each split once entries are listed: found, and published (None where nobody says)."""
        published = PUBLISHED_REFS[self.name] if self.split_by == self.default_split_by else {}
        return {split: (self.found[split], published.get(split)) for split in SPLITS[self.name][self.split_by]}

    def entries(self) -> Iterator[SourceEntry]:
        with RefIndex(self) as index:
            categories = self._fill(index)
            index.count_lost(self._splits)
            for split in self._splits:
                everything = split != "train" or not self.exclude_evaluation_images
                if not everything:
                    self._leave_out_evaluated(index)
                for image in index.list_referred(split, everything):
                    entry = self._entry(image, categories)
                    if entry is not None:
                        yield entry

    def _entry(self, image: CocoImage, categories: Mapping[int, str]) -> SourceEntry | None:
        try:
            path = self._finder.find(image.file_name)
        except SkippedImage as skipped:
            self.skip(skipped.reason, f"{image.file}: {skipped.detail}")
            return None
        if path is None:
            self.skip("missing_image", f"{image.file}: {image.file_name}")
            return None
        annotations = [{**item, "category": categories.get(item["category_id"])} for item in image.annotations]
        size = {"width": image.width, "height": image.height}
        return SourceEntry(
            image.image_id, path, image.split, (path,), {"file": image.file, **size, "annotations": annotations}
        )

    def _fill(self, index: RefIndex) -> Mapping[int, str]:
        """Read the set's files into the index; returns the names of COCO's categories."""
        folder = self._folder(self.root)
        if folder is None:
            raise SourceError(f"the files of {self.name} that were in {self.root} are gone")
        self.found.clear()
        refs = child(folder, _refs_file(self.split_by))
        if refs is None:
            for path in _parquet_files(folder):
                rows = map(self._rename, read_mirrored_refs(path, self.skip))
                kept = (row for row in rows if self._is_known(row.ref))
                index.add_mirrored(kept, path.relative_to(self.root).as_posix())
            return {item["id"]: item["name"] for item in load_labels("coco")["objects"]}
        instances = child(folder, "instances.json")
        if instances is None:
            raise SourceError(f'expected "instances.json" beside {refs}, found none; unpack the dataset again')
        index.add_refs(ref for ref in read_pickled_refs(refs, self.skip) if self._is_known(ref))
        listed = index.add(instances, "", lambda name: PurePosixPath(name).stem)
        named = ((category_number(item.get("id")), item.get("name")) for item in listed)
        return {number: name for number, name in named if isinstance(number, int) and isinstance(name, str)}

    def _rename(self, row: MirroredRef) -> MirroredRef:
        names = _MIRRORED_SPLITS if "testA" in SPLITS[self.name][self.split_by] else {"validation": "val"}
        return replace(row, ref=replace(row.ref, split=names.get(row.ref.split, row.ref.split)))

    def _is_known(self, ref: Ref) -> bool:
        if ref.split not in SPLITS[self.name][self.split_by]:
            self.skip("unknown_split", f"{ref.split!r:.60}")
            return False
        self.found[ref.split] += 1
        return True

    def _leave_out_evaluated(self, index: RefIndex) -> None:
        """Count the training images that any of the three sets evaluates on, and make the index know them."""
        looked_at = []
        for name in SETS:
            if name == self.name and self.split_by == self.default_split_by:
                index.add_own_evaluated()
                looked_at.append(name)
            elif (ids := find_evaluated_images(self.root, name)) is not None:
                index.add_evaluated(ids)
                looked_at.append(name)
        missing = ", ".join(name for name in SETS if name not in looked_at)
        left_out = index.count_evaluated("train")
        if left_out:
            note = f"; not below this root and not considered: {missing}" if missing else ""
            self.skip("evaluation_image", f"evaluation splits of {', '.join(looked_at)}{note}", left_out)

    def read(self, entry: SourceEntry) -> ImageRecord:
        path, pixels = open_listed_image(self.root, entry)
        height, width = pixels.shape[:2]
        objects = []
        for annotation in entry.annotation["annotations"]:
            try:
                objects.append(_make_referred_object(annotation, width, height))
            except BadAnnotationError as error:
                self.skip(error.reason, f"{entry.image_path}: {error.detail}")
        if not objects:
            raise SkippedImage("no_usable_annotation")
        return image_record(self.name, entry, path, pixels, objects, entry.annotation["file"])


class RefCocoPlus(RefCoco):
    """refCOCO+, whose expressions say nothing about places."""

    name = "refcoco_plus"


class RefCocog(RefCoco):
    """refCOCOg, whose expressions are longer."""

    name = "refcocog"
    default_split_by: ClassVar[str] = "umd"


def _make_referred_object(annotation: Mapping[str, Any], width: int, height: int) -> AnnotatedObject:
    """An object whose box is the annotated one and whose mask is all of its segmentation.

    Raises ``BadAnnotationError``; a box does not stand in for a mask that cannot be drawn.
    """
    category = annotation["category"]
    if category is None:
        raise BadAnnotationError("unknown_category", f"category_id {annotation['category_id']}")
    whole = outline({**annotation, "bbox": None}, width, height)
    if not whole.area:
        raise BadAnnotationError("empty_object", f"annotation {annotation.get('id')}")
    bbox = annotation.get("bbox")
    box = whole.box if bbox is None else clip_box(bbox, width, height)
    return AnnotatedObject(
        clean_name(category),
        category,
        annotation["category_id"],
        box,
        expressions=tuple(annotation["expressions"]),
        load_mask=Outline(whole.rle).crop,
    )


def find_evaluated_images(root: Path, name: str) -> set[int] | None:
    """COCO ids of the images that a set evaluates on, by its published division; None where the set is not there.

    ``name``: a key of ``SETS``. Raises ``SourceError`` for files that cannot be read.
    """
    refs, mirror = _evaluation_files(root, name)
    if refs is not None:
        listed = read_pickled_refs(refs, lambda reason, detail: None)
        return {ref.image_id for ref in listed if ref.split != "train"}
    if not mirror:
        return None
    rows = (row for path in mirror for row in read_mirrored_splits(path))
    return {image_id for image_id, split in rows if split != "train" and image_id is not None}


def list_unseen_sets(root: Path) -> list[str]:
    """Which of the three sets nobody knows the evaluation images of, going by what is below ``root``.

    A folder alone does not tell: it may hold another division, or the training part of a mirror.
    """
    return [name for name in SETS if not any(_evaluation_files(root, name))]


def _evaluation_files(root: Path, name: str) -> tuple[Path | None, list[Path]]:
    """What says which images a set evaluates on: the refs file of its published division, or else a mirror's files."""
    for spelling in SETS[name]:
        folder = child(root, spelling)
        if folder is None or not folder.is_dir():
            continue
        refs = child(folder, _refs_file(published_division(name)))
        mirror = [] if refs is not None else _parquet_files(folder)
        if refs is not None or any(not path.name.lower().startswith("train") for path in mirror):
            return refs, mirror
    return None, []


def published_division(name: str) -> str:
    """The division of a set that results are reported on. ``name``: a key of ``SETS``."""
    return next(iter(SPLITS[name]))


def _refs_file(split_by: str) -> str:
    return f"refs({split_by}).p"


def _parquet_files(folder: Path) -> list[Path]:
    """The files of a Parquet mirror, in the folder itself or in its "data"."""
    here = sorted(folder.glob("*.parquet"))
    return here or sorted((folder / "data").glob("*.parquet"))
