"""What a published row carries of its image: the file itself, a small copy of it, or only its identity."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import Literal, TypedDict

from PIL import Image

from talking_points.image_files import read_rgb
from talking_points.publishing.orientation import neutralise_orientation

ImageMode = Literal["embed", "reference", "thumbnail"]

THUMBNAIL_SIDE = 160
"""Longer side in pixels: enough to recognise the scene in a viewer, too small to replace the image."""


class ImageCell(TypedDict):
    """A value of the column ``image``: encoded bytes and a file name, as ``datasets.Image`` stores them."""

    bytes: bytes
    path: str


def image_cell(mode: ImageMode, data: bytes, image_path: str) -> ImageCell | None:
    """The value of the column ``image`` for a source file's ``data``, known as ``image_path``.

    ``embed`` keeps the bytes, ``reference`` keeps nothing (None), ``thumbnail`` gives a JPEG whose longer side has
    ``THUMBNAIL_SIDE`` pixels at most. EXIF orientation is dropped, not applied: annotations are in stored pixel order,
    and ``datasets.Image`` would turn the image away from them.
    """
    name = PurePosixPath(image_path)
    if mode == "reference":
        return None
    if mode == "embed":
        upright, extension = neutralise_orientation(data)
        return {"bytes": upright, "path": name.with_suffix(extension).name if extension else name.name}
    small = read_rgb(data, draft=(THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    small.save(encoded, format="JPEG", quality=85, exif=b"")
    return {"bytes": encoded.getvalue(), "path": name.with_suffix(".jpg").name}
