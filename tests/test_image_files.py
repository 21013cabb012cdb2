"""One opener for every image: which files it takes, which pixels come out, and that nothing else runs."""

from __future__ import annotations

import ast
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from talking_points.errors import InputError
from talking_points.image_files import ImageFileError, read_header, read_labels, read_pixels, read_rgb, to_rgb

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 48, 32
RAMP = np.dstack([*np.meshgrid(np.arange(WIDTH) * 5, np.arange(HEIGHT) * 7), np.full((HEIGHT, WIDTH), 90)]).astype(
    np.uint8
)
"""Red grows to the right, green downward."""
GREY16 = (np.arange(WIDTH * HEIGHT, dtype=np.uint16) * 42).reshape(HEIGHT, WIDTH)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def frames(kind: str) -> bytes:
    first, second = Image.fromarray(RAMP), Image.new("RGB", (WIDTH, HEIGHT), "red")
    return encoded(first, kind, save_all=True, append_images=[second])


def sixteen(kind: str) -> bytes:
    return encoded(Image.fromarray(GREY16), kind)


def colours(mode: str, kind: str, **options: object) -> bytes:
    return encoded(Image.fromarray(RAMP).convert(mode), kind, **options)


def transparent(mode: str, kind: str, **options: object) -> bytes:
    alpha = Image.fromarray((np.arange(WIDTH * HEIGHT) % 256).astype(np.uint8).reshape(HEIGHT, WIDTH))
    image = Image.fromarray(RAMP)
    image.putalpha(alpha)
    return encoded(image.convert(mode), kind, **options)


GREY = np.asarray(Image.fromarray(RAMP).convert("L"))[..., None].repeat(3, axis=2)

KINDS: dict[str, tuple[Callable[[], bytes], np.ndarray, float]] = {
    "jpeg": (lambda: colours("RGB", "JPEG", quality=98, subsampling=0), RAMP, 4),
    "jpeg grey": (lambda: colours("L", "JPEG", quality=98), GREY, 4),
    "jpeg cmyk": (lambda: colours("CMYK", "JPEG", quality=98, subsampling=0), RAMP, 6),
    "png": (lambda: colours("RGB", "PNG"), RAMP, 0),
    "png palette": (lambda: colours("P", "PNG"), RAMP, 60),
    "png alpha": (lambda: transparent("RGBA", "PNG"), RAMP, 0),
    "png grey with alpha": (lambda: transparent("LA", "PNG"), GREY, 1),
    "png 16 bits": (lambda: sixteen("PNG"), (GREY16 >> 8)[..., None].repeat(3, axis=2), 0),
    "tiff 16 bits": (lambda: sixteen("TIFF"), (GREY16 >> 8)[..., None].repeat(3, axis=2), 0),
    "tiff 16 bits in 32": (
        lambda: encoded(Image.fromarray(GREY16.astype(np.int32)), "TIFF"),
        (GREY16 >> 8)[..., None].repeat(3, axis=2),
        0,
    ),
    "tiff cmyk": (lambda: colours("CMYK", "TIFF"), RAMP, 0),
    "tiff lzw": (lambda: colours("RGB", "TIFF", compression="tiff_lzw"), RAMP, 0),
    "bmp": (lambda: colours("RGB", "BMP"), RAMP, 0),
    "webp": (lambda: colours("RGB", "WEBP", lossless=True), RAMP, 0),
    "webp alpha": (lambda: transparent("RGBA", "WEBP", lossless=True, exact=True), RAMP, 0),
    "webp animated": (lambda: encoded(Image.fromarray(RAMP), "WEBP", lossless=True, save_all=True), RAMP, 0),
    "gif animated": (lambda: frames("GIF"), RAMP, 60),
    "png animated": (lambda: frames("PNG"), RAMP, 0),
    "tiff of several pages": (lambda: frames("TIFF"), RAMP, 0),
    "jpeg of several images": (lambda: frames("MPO"), RAMP, 40),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_pixels_by_every_way_in(tmp_path: Path, kind: str) -> None:
    make, expected, tolerance = KINDS[kind]
    content = make()
    path = tmp_path / "named-as-something-else.jpg"
    path.write_bytes(content)
    pixels = read_pixels(path)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance
    assert np.array_equal(pixels, np.asarray(read_rgb(content)))
    assert np.array_equal(pixels, read_pixels(content, "displayed"))
    header = read_header(content)
    assert (header.width, header.height, header.orientation) == (WIDTH, HEIGHT, 1)


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_an_opened_image_becomes_rgb_like_a_file(mode: str) -> None:
    image = Image.fromarray(GREY16 if mode == "I;16" else GREY16.astype(np.int32))
    assert image.mode == mode
    assert np.array_equal(np.asarray(to_rgb(image))[..., 0], GREY16 >> 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_caller_says_which_way_up(kind: str, orientation: int) -> None:
    shown = Image.fromarray(RAMP)
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = shown.transpose(turned[orientation]) if orientation in turned else shown
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings: dict[str, dict[str, Any]] = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}
    content = encoded(stored, kind, exif=exif, **settings.get(kind, {}))
    assert read_header(content).orientation == orientation
    for wanted, rule in ((stored, "stored"), (shown, "displayed")):
        pixels = read_pixels(content, rule)  # type: ignore[arg-type]
        assert pixels.shape == (wanted.height, wanted.width, 3)
        assert np.abs(pixels.astype(int) - np.asarray(wanted)).max() <= 4


def test_a_damaged_orientation_is_none() -> None:
    content = encoded(Image.fromarray(RAMP), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert read_rgb(content, "displayed").size == (WIDTH, HEIGHT)
    exif = Image.Exif()
    exif[0x0112] = 77
    assert read_rgb(encoded(Image.fromarray(RAMP), "JPEG", exif=exif), "displayed").size == (WIDTH, HEIGHT)


def broken_chunk() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    content = bytearray(encoded(Image.fromarray(noise), "PNG"))
    place = content.rfind(b"IDAT")
    content[place : place + 4] = bytes(4)
    return bytes(content)


def big_text() -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("notes", "x" * 2_000_000, zip=True)
    return encoded(Image.fromarray(RAMP), "PNG", pnginfo=info)


def floats() -> bytes:
    return encoded(Image.fromarray(RAMP[..., 0].astype(np.float32) / 255), "TIFF")


def panorama() -> bytes:
    """Only the header says 24000x8000: nobody needs the pixels to refuse them."""
    content = bytearray(encoded(Image.new("L", (8, 8)), "PNG"))
    content[16:24] = (24000).to_bytes(4, "big") + (8000).to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


REFUSED: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "empty": (lambda: b"", "unreadable", "an empty file"),
    "text": (lambda: b"not an image at all, not at all", "unreadable", "expected an image"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unreadable", "PostScript"),
    "pdf": (lambda: b"%PDF-1.7\n", "unreadable", "a PDF"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unreadable", "SVG"),
    "heic": (lambda: b"\x00\x00\x00\x24ftypheic\x00\x00", "unreadable", "HEIC"),
    "git lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "unreadable", "git lfs pull"),
    "web page": (lambda: b"<!DOCTYPE html><title>404</title>", "unreadable", "a web page"),
    "portable pixmap": (lambda: encoded(Image.fromarray(RAMP), "PPM"), "unreadable", "another format"),
    "jpeg 2000": (lambda: b"\x00\x00\x00\x0cjP  \r\n\x87\n", "unreadable", "JPEG 2000"),
    "broken chunk": (broken_chunk, "unreadable", "damaged"),
    "zipped text bomb": (big_text, "unreadable", "too large"),
    "cut jpeg": (lambda: colours("RGB", "JPEG")[:-300], "truncated", "ends too early"),
    "cut png": (lambda: broken_chunk()[:90_000], "truncated", "ends too early"),
    "floats": (floats, "unreadable", "32-bit floats"),
    "panorama": (panorama, "too_large", "too large to be decoded"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    make, reason, told = REFUSED[kind]
    path = tmp_path / "image.jpg"
    path.write_bytes(make())
    for file in (path, make()):
        with pytest.raises(ImageFileError, match=told) as refused:
            read_pixels(file)
        assert isinstance(refused.value, InputError)
        assert refused.value.reason == reason
        assert "\n" not in str(refused.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    places = {tmp_path / "none.jpg": "missing", tmp_path: "unreadable", tmp_path / "a" / "b": "missing"}
    for path, reason in places.items():
        for read in (read_pixels, read_header, read_labels):
            with pytest.raises(ImageFileError, match=str(path)) as refused:
                read(path)
            assert refused.value.reason == reason


def test_the_pixel_limit_is_the_callers() -> None:
    content = colours("RGB", "PNG")
    assert read_pixels(content, max_pixels=WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ImageFileError, match="48x32"):
        read_pixels(content, max_pixels=WIDTH * HEIGHT - 1)


def test_large_images_below_the_limit_are_read_without_a_warning() -> None:
    image = Image.new("1", (12_000, 8_000))
    assert read_header(encoded(image, "PNG")).width == 12_000


@pytest.mark.parametrize("start", [b"%!PS-Adobe-3.0 EPSF-3.0", b"\xc5\xd0\xd3\xc6" + bytes(26), b"%PDF-1.4"])
def test_a_drawing_named_jpg_starts_no_process(tmp_path: Path, start: bytes) -> None:
    """PostScript is a programming language: nothing may hand such a file to its interpreter."""
    path = tmp_path / "image.jpg"
    path.write_bytes(start + b"\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n")
    code = (
        "import sys\n"
        "started = []\n"
        "sys.addaudithook(lambda event, args: started.append(event) if event in "
        "('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn', 'os.fork') else None)\n"
        "from pathlib import Path\n"
        "from talking_points.image_files import read_rgb\n"
        "from talking_points.errors import InputError\n"
        "try: read_rgb(Path(sys.argv[1]))\n"
        "except InputError as error: print('refused', started)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.strip() == "refused []"


OPENERS = {"Image.open", "PIL.Image.open", "cv2.imread", "cv2.imdecode", "cv2.imreadmulti", "plt.imread"}
FOLDERS = ("talking_points", "tasks", "flows", "commands", "benchmarks")


def opened_elsewhere(source: str) -> set[str]:
    """Calls that decode image files, by their dotted names."""
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}
    return called & OPENERS


@pytest.mark.parametrize("path", [path for name in FOLDERS for path in (ROOT / name).rglob("*.py")], ids=str)
def test_nothing_else_opens_images(path: Path) -> None:
    if path != ROOT / "talking_points" / "image_files.py":
        assert not opened_elsewhere(path.read_text()), "read images through talking_points.image_files"


def test_the_search_for_other_openers_finds_them() -> None:
    assert opened_elsewhere("from PIL import Image\nwith Image.open(x) as i: pass\ncv2.imread('x')") == {
        "Image.open",
        "cv2.imread",
    }
    assert opened_elsewhere((ROOT / "talking_points" / "image_files.py").read_text()) == {"Image.open"}


def tiled(side: int) -> bytes:
    """A TIFF of 64 x 64 pixels whose one tile has ``side`` pixels a side."""
    tags = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side), (324, 8), (325, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def test_a_tile_larger_than_the_limit_is_not_decoded() -> None:
    assert read_header(tiled(30_000)).width == 64
    with pytest.raises(ImageFileError, match="too large") as refused:
        read_rgb(tiled(30_000))
    assert refused.value.reason == "too_large"


def test_wide_pixels_have_a_lower_limit() -> None:
    content = encoded(Image.fromarray(np.full((20, 20), 40_000, np.int32)), "TIFF")
    assert read_rgb(content, max_pixels=1200).size == (20, 20)
    with pytest.raises(ImageFileError, match="too large"):
        read_rgb(content, max_pixels=1000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    for read in (read_rgb, read_header, read_labels):
        with pytest.raises(ImageFileError, match="expected a file, found a pipe"):
            read(tmp_path / "x.png")
