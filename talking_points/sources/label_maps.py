"""Objects and parts of label maps: which values occur, and each object cropped to its box.

Images have many small regions; all work past the first look at a map is done inside object boxes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.records import AnnotatedObject, AnnotatedPart, Box, Mask, MaskCrop
from talking_points.sources.labels import Vocabulary
from talking_points.sources.protocol import SkippedImage

NO_PART = 255
"""Stands for "no part" in checked part maps (uint8); every source has fewer than 255 parts."""


def present_values(labels: NDArray[np.integer], count: int, ignore: frozenset[int], path: str) -> list[int]:
    """Category ids that occur in a label map of categories 0..count-1.

    Raises ``SkippedImage("label_out_of_range")`` for a value that is neither a category nor in ``ignore``.
    """
    values = _distinct(labels)
    present = [value for value in values if 0 <= value < count]
    unknown = [value for value in values if not 0 <= value < count and value not in ignore]
    if unknown:
        raise SkippedImage("label_out_of_range", f"{path}: {unknown[:5]} beside 0..{count - 1} and {sorted(ignore)}")
    return present


def _distinct(labels: NDArray[np.integer]) -> list[int]:
    """The values that occur, ascending. Maps consist of long runs; one value of each is enough to look at."""
    flat = labels.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return np.unique(np.append(flat[:1], flat[starts])).tolist()


def part_tables(vocabulary: Vocabulary) -> NDArray[np.uint8]:
    """Look-up tables (objects, 256): per object, a part id of its own as it is and every other value as ``NO_PART``."""
    tables = np.full((len(vocabulary.objects), 256), NO_PART, dtype=np.uint8)
    for part in vocabulary.parts:
        tables[part.object_id, part.id] = part.id
    return tables


def bounds(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns of the box of a mask's pixels; empty slices for an empty mask."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def shift_span(span: slice, by: int) -> slice:
    """The span moved by that many pixels, as from a crop to its image."""
    return slice(span.start + by, span.stop + by)


def _box(rows: slice, columns: slice) -> Box:
    return (
        float(columns.start),
        float(rows.start),
        float(columns.stop - columns.start),
        float(rows.stop - rows.start),
    )


@dataclass(frozen=True)
class ObjectCrop:
    """One object: its mask and the ids of its own parts (uint8, ``NO_PART`` elsewhere), both cropped to its box.

    ``shape`` is the image's (height, width).
    """

    shape: tuple[int, int]
    rows: slice
    columns: slice
    mask: Mask
    parts: NDArray[np.uint8]

    @classmethod
    def cut(
        cls, mask: Mask, rows: slice, columns: slice, parts: NDArray[np.uint8], table: NDArray[np.uint8]
    ) -> ObjectCrop:
        """The object with ``mask`` (cropped) at ``rows``, ``columns`` of a checked part map.

        ``table`` is its row of ``part_tables``: parts of other objects and pixels off the mask become ``NO_PART``.
        """
        own = cv2.LUT(parts[rows, columns], table)
        own = np.bitwise_or(own, mask.view(np.uint8) - np.uint8(1), dtype=np.uint8)  # 255 = NO_PART off the mask
        return cls(parts.shape, rows, columns, mask, own)

    def part_crop(self, part_id: int, rows: slice, columns: slice) -> MaskCrop:
        """The mask of a part that lies within ``rows``, ``columns`` of the image."""
        y, x = self.rows.start, self.columns.start
        return MaskCrop(self.shape, rows, columns, self.parts[shift_span(rows, -y), shift_span(columns, -x)] == part_id)

    def annotate(
        self,
        object_id: int,
        vocabulary: Vocabulary,
        present: Collection[int],
        instance_exact: bool,
        mask_exact: bool = True,
    ) -> AnnotatedObject:
        """The object as a record, its parts in the order of their ids.

        ``present``: the part ids that occur in the image.
        """
        parts = []
        for part_id in vocabulary.part_ids[object_id]:
            if part_id not in present:
                continue
            rows, columns = bounds(self.parts == part_id)
            if rows.start == rows.stop:
                continue
            rows, columns = shift_span(rows, self.rows.start), shift_span(columns, self.columns.start)
            part, box = vocabulary.parts[part_id], _box(rows, columns)
            load = partial(self.part_crop, part_id, rows, columns)
            parts.append(AnnotatedPart(part.part, part.label, part.id, box, load_mask=load, mask_exact=mask_exact))
        label = vocabulary.objects[object_id]
        return AnnotatedObject(
            label.name,
            label.label,
            label.id,
            _box(self.rows, self.columns),
            instance_exact,
            tuple(parts),
            load_mask=lambda: MaskCrop(self.shape, self.rows, self.columns, self.mask),
            mask_exact=mask_exact,
        )
