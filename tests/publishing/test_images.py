"""What a row carries of its image in each mode."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from talking_points.dataset_schema import triplet_schema
from talking_points.image_files import read_pixels
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


WIDTH, HEIGHT, POINT = 48, 32, (40, 6)


def exif_block(orientation: int, order: str, kind: int = 3) -> bytes:
    """An EXIF block with two tags, in the byte order ``order``, whose orientation is a SHORT (3) or a LONG (4)."""
    value = struct.pack(order + "HHI", 0x0112, kind, 1) + struct.pack(order + {3: "H", 4: "I"}[kind], orientation)
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    unit = struct.pack(order + "HHIHxx", 0x0128, 3, 1, 2)
    return header + struct.pack(order + "H", 2) + value.ljust(12, b"\0") + unit + struct.pack(order + "I", 0)


def turned(file_format: str, orientation: int, order: str, kind: int = 3) -> bytes:
    """A dark image with a bright block around ``POINT``, in stored pixel order, and the orientation given."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[POINT[1] - 4 : POINT[1] + 4, POINT[0] - 4 : POINT[0] + 4] = (250, 10, 20)
    file = io.BytesIO()
    if file_format == "TIFF":
        tags = Image.Exif()
        tags[0x0112] = orientation
        Image.fromarray(pixels).save(file, format="TIFF", exif=tags, big_endian=order == ">")
    else:
        block = b"Exif\0\0" + exif_block(orientation, order, kind)
        options = {"lossless": True} if file_format == "WEBP" else {}
        Image.fromarray(pixels).save(file, format=file_format, exif=block, **options)
    return file.getvalue()


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_embedded_images_decode_in_the_order_of_the_coordinates(tmp_path: Path, file_format: str) -> None:
    """``datasets`` and the Hub's viewer turn by the orientation; what they show must be what the keypoint means."""
    files = [turned(file_format, orientation, order) for orientation in range(1, 9) for order in "<>"]
    if file_format != "TIFF":
        files += [turned(file_format, 6, order, kind=4) for order in "<>"]
    cells = [image_cell("embed", data, f"x.{file_format}") for data in files]
    for data, cell in zip(files, cells, strict=True):
        assert cell is not None
        assert len(cell["bytes"]) == len(data), "one number is overwritten, in place"
        changed = sum(one != other for one, other in zip(data, cell["bytes"], strict=True))
        assert changed <= (5 if file_format == "PNG" else 1)  # a PNG's chunk has four bytes of checksum
        assert np.array_equal(read_pixels(cell["bytes"]), read_pixels(data))
    (tmp_path / "data").mkdir()
    image = triplet_schema().field("image")
    pq.write_table(pa.table({"image": pa.array(cells, image.type)}), tmp_path / "data" / "train-00000-of-00001.parquet")
    rows = datasets.load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    rows = rows.cast_column("image", datasets.Image())
    for row in rows:
        assert row["image"].size == (WIDTH, HEIGHT)
        red, green, _ = row["image"].convert("RGB").getpixel(POINT)
        assert red > 200
        assert green < 60


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("order", "<>")
def test_an_upright_image_keeps_its_bytes(file_format: str, order: str) -> None:
    upright = turned(file_format, 1, order)
    assert image_cell("embed", upright, "x") == {"bytes": upright, "path": "x"}


def test_a_png_keeps_valid_checksums() -> None:
    cell = image_cell("embed", turned("PNG", 6, ">"), "x.png")
    assert cell is not None
    at = cell["bytes"].index(b"eXIf")
    (length,) = struct.unpack_from(">I", cell["bytes"], at - 4)
    (checksum,) = struct.unpack_from(">I", cell["bytes"], at + 4 + length)
    assert checksum == zlib.crc32(cell["bytes"][at : at + 4 + length])


def test_an_orientation_in_other_places_gives_a_png_of_the_same_pixels() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded("RGB", (30, 20), "JPEG", xmp=xmp)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6, "Pillow, and datasets with it, would turn it"
    cell = image_cell("embed", data, "a/x.jpg")
    assert cell is not None
    assert cell["path"] == "x.png"
    opened = Image.open(io.BytesIO(cell["bytes"]))
    assert opened.format == "PNG"
    assert 0x0112 not in opened.getexif()
    assert np.array_equal(np.asarray(opened), read_pixels(data))
