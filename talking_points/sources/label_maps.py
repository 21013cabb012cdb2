"""Objects and parts of label maps: which values occur, and each object cropped to its box.

Photographs have many small regions; all work past the first look at a map is done inside object boxes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.records import AnnotatedObject, AnnotatedPart, Box, Mask
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
    """The values that occur, ascending. Histograms are many times faster here than ``np.unique``."""
    if labels.dtype == np.uint8:
        return np.flatnonzero(cv2.calcHist([labels], [0], None, [256], [0, 256])).tolist()
    if labels.dtype == np.uint16:
        low = np.minimum(labels, 255).astype(np.uint8)
        values = _distinct(low)
        if np.count_nonzero(low == 255) == np.count_nonzero(labels == 65535):  # nothing between 254 and 65535
            return [65535 if value == 255 else value for value in values]
    return np.unique(labels).tolist()


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

    @property
    def box(self) -> Box:
        height, width = self.mask.shape
        return (float(self.columns.start), float(self.rows.start), float(width), float(height))

    def part_boxes(self, candidates: Iterable[int]) -> dict[int, Box]:
        """The box of every part among the ``candidates`` that has a pixel, by part id."""
        boxes: dict[int, Box] = {}
        for part_id in candidates:
            x, y, width, height = cv2.boundingRect((self.parts == part_id).view(np.uint8))
            if width:
                boxes[part_id] = (
                    float(self.columns.start + x),
                    float(self.rows.start + y),
                    float(width),
                    float(height),
                )
        return boxes

    def full_mask(self) -> Mask:
        """The object's mask, bool (height, width) of the image."""
        return self._uncropped(self.mask)

    def part_mask(self, part_id: int) -> Mask:
        """A part's mask, bool (height, width) of the image."""
        return self._uncropped(self.parts == part_id)

    def _uncropped(self, mask: Mask) -> Mask:
        full = np.zeros(self.shape, dtype=np.bool_)
        full[self.rows, self.columns] = mask
        return full

    def annotated(
        self,
        object_id: int,
        vocabulary: Vocabulary,
        present: Collection[int],
        instance_exact: bool,
        mask_exact: bool = True,
    ) -> AnnotatedObject:
        """The object as a record, its parts in the order of their ids; masks are uncropped on access.

        ``present``: the part ids that occur in the image.
        """
        parts = []
        for part_id, box in self.part_boxes(id for id in vocabulary.part_ids[object_id] if id in present).items():
            part = vocabulary.parts[part_id]
            load = partial(self.part_mask, part_id)
            parts.append(AnnotatedPart(part.part, part.label, part.id, box, load_mask=load, mask_exact=mask_exact))
        label = vocabulary.objects[object_id]
        return AnnotatedObject(
            label.name,
            label.label,
            label.id,
            self.box,
            instance_exact,
            tuple(parts),
            load_mask=self.full_mask,
            mask_exact=mask_exact,
        )
