"""The published instruction dataset: one Arrow schema, declared once."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from talking_points.dataset_schema import IMAGE, declare_features
from talking_points.instructions.elements import KINDS
from talking_points.records import REGION_LABELS

_BOX = pa.list_(pa.float32(), 4)
_POINT = pa.list_(pa.float32(), 2)
_MASK = pa.struct([("size", pa.list_(pa.int32(), 2)), ("counts", pa.string())])

COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "id": (pa.string(), "stable content hash of source, image, region, expression and kind"),
    "image": (IMAGE, "the source file's own bytes, EXIF orientation set to 1; null where no pixels are published"),
    "image_id": (pa.string(), "identity of the image in its source"),
    "image_path": (pa.string(), "path of the image relative to the source's root"),
    "image_sha256": (pa.string(), "sha256 of the source file's bytes"),
    "width": (pa.int32(), "pixels, of the source image"),
    "height": (pa.int32(), "pixels, of the source image"),
    "source": (pa.string(), "name of the source; added: one of another package"),
    "split": (pa.string(), "train or test; of refCOCO, refCOCO+ and refCOCOg the split as published"),
    "object": (pa.string(), "category of the object, cleaned for reading"),
    "part": (pa.string(), "category of the part, cleaned for reading; empty for a whole object"),
    "region": (pa.string(), "stable id of the region: its rows share it"),
    "kind": (pa.string(), "what is asked with and what is answered with: " + ", ".join(KINDS)),
    "expression": (pa.string(), "words for the region; empty where none mean it alone"),
    "question": (pa.string(), "what is asked"),
    "answer": (pa.string(), "what is to be answered"),
    "mask": (_MASK, "COCO run lengths of the region, whatever the kind: size [height, width], counts"),
    "box": (_BOX, "[x, y, width, height] in pixels, edges of pixels"),
    "point": (_POINT, "[x, y] in pixels, inside the region; integers are pixel centres"),
    "epsilon": (pa.float32(), "tolerance of the outlines; null under a budget of points"),
    "points": (pa.int32(), "points of the outlines"),
    "round_trip_iou": (pa.float32(), "overlap of the mask with its outlines once written and read: the ceiling"),
    "components": (pa.int32(), "pieces of the mask, 8-connected"),
    "holes": (pa.int32(), "holes in the mask, 4-connected"),
    "flags": (pa.list_(pa.string()), "approximate_mask, components_cut, described_point, holes_filled, no_text"),
}
"""Arrow type and meaning of every column, in the published order."""


def published_source(name: str) -> str:
    """The name under which the rows of a source are published."""
    return name if name in REGION_LABELS else "added"


INSTRUCTION_SCHEMA = declare_features(COLUMNS)
"""With the metadata from which ``datasets`` restores the features."""

PARQUET_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": [name for name, (kind, _) in COLUMNS.items() if kind == pa.string()]
    + ["image.bytes", "mask.counts"],
    "dictionary_pagesize_limit": 1 << 30,
    "write_page_index": True,
}
"""Keyword arguments of ``pyarrow.parquet.ParquetWriter``.

The rows of an image follow one another, and a dictionary holds what they repeat, its pixels above all, once per file.
"""
