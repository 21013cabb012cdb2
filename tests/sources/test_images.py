from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from talking_points.sources.images import decode_labels, decode_rgb
from talking_points.sources.protocol import SkippedImage
from tests.sources.trees import HEIGHT, WIDTH, label_map, write_image


@pytest.mark.parametrize(
    ("mode", "format"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("L", "PNG")],
)
@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.png"])
def test_every_kind_of_image_becomes_rgb_whatever_its_name(tmp_path: Path, mode: str, format: str, name: str) -> None:
    pixels = decode_rgb(write_image(tmp_path / name, mode=mode, format=format))
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    assert pixels.std() > 10  # still the noise that was written, not a blank


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 27
    label_map(tmp_path / "x.png", grey).rename(tmp_path / "x.jpg")
    pixels = decode_rgb(tmp_path / "x.jpg")
    assert np.array_equal(pixels, np.dstack([grey // 256] * 3))


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "rotated.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to display
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path, exif=exif)
    assert decode_rgb(path).shape == (HEIGHT, WIDTH, 3)


def test_corrupt_exif_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "exif.jpg"
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    with warnings.catch_warnings():
        warnings.filterwarnings("error")
        warnings.filterwarnings("ignore", message="Corrupt EXIF data")
        assert decode_rgb(path).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_images_are_skipped(tmp_path: Path, format: str, share: float) -> None:
    whole = write_image(tmp_path / "x", (300, 200), format=format).read_bytes()
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SkippedImage) as skipped:
        decode_rgb(path)
    assert skipped.value.reason == "truncated_image"


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0" + bytes(50)])
def test_files_that_are_no_images_are_skipped(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(SkippedImage) as skipped:
        decode_rgb(path)
    assert skipped.value.reason in ("unreadable_image", "truncated_image")
    with pytest.raises(SkippedImage, match="unreadable_label_map"):
        decode_labels(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(SkippedImage, match="missing_image"):
        decode_rgb(tmp_path / "x.jpg")
    with pytest.raises(SkippedImage, match="missing_label_map"):
        decode_labels(tmp_path / "x.png")
    with pytest.raises(SkippedImage, match="unreadable_image"):
        decode_rgb(tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_maps_keep_their_values_and_depth(tmp_path: Path, dtype: type) -> None:
    labels: np.ndarray = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(dtype)
    labels[0, 0] = np.iinfo(dtype).max
    decoded = decode_labels(label_map(tmp_path / "x.png", labels))
    assert decoded.dtype == dtype
    assert np.array_equal(decoded, labels)


def test_palette_maps_give_indices_not_colours(tmp_path: Path) -> None:
    indices = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
    image = Image.frombytes("P", (WIDTH, HEIGHT), indices.tobytes())
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(tmp_path / "x.png")
    assert np.array_equal(decode_labels(tmp_path / "x.png"), indices)


@pytest.mark.parametrize("mode", ["RGB", "LA", "1"])
def test_colour_images_are_no_label_maps(tmp_path: Path, mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (WIDTH, HEIGHT)).save(buffer, "PNG")
    (tmp_path / "x.png").write_bytes(buffer.getvalue())
    with pytest.raises(SkippedImage, match="unreadable_label_map"):
        decode_labels(tmp_path / "x.png")
