"""What a row carries of its image in each mode."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from talking_points.publishing.image_cells import THUMBNAIL_SIDE, image_cell


def encoded(mode: str, size: tuple[int, int], file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 100 if mode == "L" else None).save(file, format=file_format, **options)
    return file.getvalue()


def test_embed_keeps_the_bytes_and_reference_keeps_nothing() -> None:
    assert image_cell("embed", b"anything", "images/a/x.JPEG") == {"bytes": b"anything", "path": "x.JPEG"}
    assert image_cell("reference", b"anything", "images/a/x.JPEG") is None


@pytest.mark.parametrize(("mode", "file_format"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG")])
def test_thumbnail_is_a_small_jpeg_of_the_same_shape(mode: str, file_format: str) -> None:
    cell = image_cell("thumbnail", encoded(mode, (800, 600), file_format), "images/a/x.png")
    assert cell is not None
    assert cell["path"] == "x.jpg"
    small = Image.open(io.BytesIO(cell["bytes"]))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE * 600 // 800))


def test_thumbnail_ignores_the_orientation_tag() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    cell = image_cell("thumbnail", encoded("RGB", (300, 100), "JPEG", exif=exif), "x.jpg")
    assert cell is not None
    small = Image.open(io.BytesIO(cell["bytes"]))
    assert small.width > small.height
    assert not small.getexif()


def test_thumbnail_never_enlarges() -> None:
    cell = image_cell("thumbnail", encoded("RGB", (40, 30), "PNG"), "x.png")
    assert cell is not None
    assert np.asarray(Image.open(io.BytesIO(cell["bytes"]))).shape == (30, 40, 3)
