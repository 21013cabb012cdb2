"""A user's own images with the objects that a detector found (COCO JSON), or that a model finds, or both."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from talking_points.records import AnnotatedObject, ImageRecord
from talking_points.sources.coco_parts import Outline, make_outlined_object
from talking_points.sources.images import image_record, open_image, open_listed_image
from talking_points.sources.labels import ObjectLabel, PartLabel, clean_name
from talking_points.sources.layout import IMAGE_EXTENSIONS, inside
from talking_points.sources.own_objects import OwnObjects, category_names, find_named, image_id_of, json_files
from talking_points.sources.protocol import SkippedImage, SourceEntry, SourceError
from talking_points.sources.segmented import (
    PointSegmenter,
    find_objects,
    grid_points,
    identify_weights,
    open_point_segmenter,
    outline_box,
)

WHOLE = "surface"
"""Name of the one part that a whole object has where its parts are not annotated."""


class Images(OwnObjects):
    """Records of a user's own images with objects, which have no parts of their own.

    ``annotations``: one COCO file, from the root, instead of all; ``images``: the folder of the images; ``min_score``:
    detections below it are left out (those without a score are kept). ``segmenter``, a model or its folder or
    repository, outlines objects of which only a box is known, and finds objects in images that have none, at
    ``grid`` x ``grid`` points; then no COCO file is needed. ``parts="surface"`` gives every object one part, itself, so
    that points can be described. Raises ``SourceError`` for a folder without what these need.
    """

    name = "images"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        *,
        annotations: str | None = None,
        images: str | None = None,
        min_score: float = 0.0,
        segmenter: str | PointSegmenter | None = None,
        grid: int = 3,
        parts: Literal["none", "surface"] = "none",
    ) -> None:
        if isinstance(grid, bool) or not isinstance(grid, int) or not 1 <= grid <= 32:
            raise SourceError(f"expected grid as a whole number from 1 to 32, found {grid!r}")
        if parts not in ("none", WHOLE):
            raise SourceError(f"expected parts of none, {WHOLE}; found {parts!r}")
        plain = Path(root).expanduser()
        bare = segmenter is not None and annotations is None and plain.is_dir() and not json_files(plain)
        super().__init__(root, split, ("images",), images, bare=bare)
        self._min_score = min_score
        self._grid = grid
        self._parts = parts
        self._segmenter = segmenter
        self._files: list[tuple[Path, str]] = []
        if bare and split not in (None, "all"):
            raise SourceError(f"a folder without annotation files has the split 'all' alone, found {split!r}")
        if not bare:
            self._files = self._choose([find_named(self.root, annotations)] if annotations else json_files(self.root))

    def entries(self) -> Iterator[SourceEntry]:
        names = category_names(self._files)
        further: dict[str, Any] = {}
        if isinstance(self._segmenter, str):
            # What the model finds depends on it, so that another model makes the records anew.
            further["segmenter"] = identify_weights(self._segmenter)
        listed = self._list_entries(self._files, self._segmenter is not None) if self._files else self._list_folder()
        for entry in listed:
            # Of the categories, which may be thousands, an entry names its own.
            used = sorted({item["category_id"] for item in entry.annotation["annotations"]} & names.keys())
            annotation = {**entry.annotation, "objects": {str(number): names[number][0] for number in used}, **further}
            yield SourceEntry(entry.image_id, entry.image_path, entry.split, entry.files, annotation)

    def _list_folder(self) -> Iterator[SourceEntry]:
        """The images of a folder without annotation files, and of those below it, in the order of their ids.

        What a build has written into a folder of it is left out: figures would be images of the next build.
        """
        found: dict[str, str] = {}
        for folder, below, files in os.walk(self.root):
            below[:] = sorted(name for name in below if not name.startswith(".") and not _is_made(Path(folder, name)))
            for name in sorted(files):
                path = Path(folder, name)
                if name.startswith(".") or path.suffix.lower() not in IMAGE_EXTENSIONS:
                    continue
                relative = path.relative_to(self.root).as_posix()
                try:
                    inside(self.root, relative)
                except SkippedImage as skipped:
                    self.skip(skipped.reason, skipped.detail)
                    continue
                image_id = f"all/{image_id_of(relative)}"
                found[f"all/{relative}" if image_id in found else image_id] = relative
        for image_id, relative in sorted(found.items()):
            yield SourceEntry(image_id, relative, "all", (relative,), {"file": "", "annotations": []})

    def read(self, entry: SourceEntry) -> ImageRecord:
        sized = "width" in entry.annotation
        path, pixels = (open_listed_image if sized else open_image)(self.root, entry)
        names = {int(key): name for key, name in entry.annotation["objects"].items()}
        sure = [item for item in entry.annotation["annotations"] if not _score(item) < self._min_score]
        if left_out := len(entry.annotation["annotations"]) - len(sure):
            self.skip("low_score", entry.image_path, left_out)
        found: list[tuple[int, str, Outline]] = [
            (item["category_id"], names[item["category_id"]], region)
            for item, region in self._regions(entry, sure, names, (pixels.shape[1], pixels.shape[0]))
        ]
        if self._segmenter is not None:
            found = self._complete(found, pixels)
        if not found:
            raise SkippedImage("no_usable_annotation" if sure or self._segmenter is None else "nothing_found")
        objects = [self._make_object(*one) for one in found]
        return image_record(self.name, entry, path, pixels, objects, entry.annotation["file"])

    def _complete(
        self, found: Sequence[tuple[int, str, Outline]], pixels: NDArray[np.uint8]
    ) -> list[tuple[int, str, Outline]]:
        """The same objects with the model's outlines in place of boxes, or the model's own where there are none."""
        if isinstance(self._segmenter, str):
            self._segmenter = open_point_segmenter(self._segmenter)
        assert self._segmenter is not None
        if not found:
            points = grid_points(pixels.shape[1], pixels.shape[0], self._grid)
            return [(0, name, region) for name, region in find_objects(self._segmenter, pixels, points)]
        completed = []
        for category, name, region in found:
            drawn = None if region.exact else outline_box(self._segmenter, pixels, region.box)
            completed.append((category, name, drawn or region))
        return completed

    def _make_object(self, category: int, name: str, region: Outline) -> AnnotatedObject:
        cleaned = clean_name(name)
        part = PartLabel(category, f"{name}'s {WHOLE}", category, cleaned, WHOLE)
        parts = [(part, region)] if self._parts == WHOLE else []
        return make_outlined_object(ObjectLabel(category, name, cleaned), region, parts, True)


def _score(annotation: Mapping[str, Any]) -> float:
    score = annotation.get("score")
    return float(score) if isinstance(score, int | float) else 1.0


def _is_made(folder: Path) -> bool:
    """Whether this is the output of a build, or a dataset."""
    published = (folder / "manifest.json").is_file() and any(folder.glob("data/*.parquet"))
    return published or (folder / ".work").is_dir()
