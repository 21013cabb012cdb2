"""Images that are small to write and take hours to read: each is refused at once, honest ones of its kind are read."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from talking_points import image_files
from talking_points.image_files import ImageFileError, read_header, read_rgb
from talking_points.image_headers import count_scans


def _saved(kind: str, size: tuple[int, int] = (64, 64), mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind, **options)
    return stream.getvalue()


def _jpeg(*segments: bytes) -> bytes:
    content = _saved("JPEG")
    return content[:2] + b"".join(segments) + content[2:]


def _segment(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    content = _saved("PNG")
    made = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return content[:33] + b"".join(made) + content[33:]


def _scans(times: int, size: tuple[int, int] = (64, 64)) -> bytes:
    content = _saved("JPEG", size, "L", progressive=True)
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * times + content[-2:]


def _tiff(**counts: int) -> bytes:
    tags = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(int(tag[1:]), 4, count, 200) for tag, count in counts.items()] + [(278, 4, 1, 64)]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in sorted(tags))


def _big_tiff(strips: int) -> bytes:
    return b"MM\0\x2b\0\x08\0\0" + struct.pack(">QQHHQQ", 16, 1, 273, 16, strips, 200)


def _rle(width: int, height: int, runs: int) -> bytes:
    content = _saved("BMP")
    sizes = struct.pack("<iiHHI", width, height, 1, 8, 1)
    return content[:18] + sizes + content[34:46] + struct.pack("<I", 256) + content[50:54] + bytes(1024 + 2 * runs)


def _gif(*blocks: bytes) -> bytes:
    content = _saved("GIF", mode="P")
    start = 13 + (6 << (content[10] & 7) if content[10] & 128 else 0)
    return content[:start] + b"".join(blocks) + content[start:]


BOMBS: dict[str, Callable[[], bytes]] = {
    "comments": lambda: _jpeg(_segment(0xFE, b"") * 11_000),
    "exif": lambda: _jpeg(_segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 1100),
    "chunks": lambda: _png(*[(b"abCd", b"")] * 11_000),
    "empty pixels": lambda: _png(*[(b"IDAT", b"")] * 11_000),
    "strips": lambda: _tiff(t273=1_000_000, t279=1_000_000),
    "tiles": lambda: _tiff(t322=16, t323=16, t324=1 << 31, t325=1),
    "strips of a large file": lambda: _big_tiff(1 << 40),
    "runs": lambda: _rle(64, 64, 100_000),
    "pixels in runs": lambda: _rle(10_000, 10_000, 10),
    "scans": lambda: _scans(4000, (4000, 4000)),
    "comments of a GIF": lambda: _gif(b"!\xfe" + b"\x01a" * 11_000 + b"\0"),
    "extensions of a GIF": lambda: _gif(b"!\xf9\x04\0\0\0\0\0" * 11_000),
    "dirt in a GIF": lambda: _gif(b"\x01" * 11_000),
    "webp": lambda: _saved("WEBP", (12_000, 8000), quality=0, method=0),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_images_that_take_hours_are_refused_at_once(bomb: Callable[[], bytes], tmp_path: Path) -> None:
    content = bomb()
    (tmp_path / "image").write_bytes(content)
    started = time.process_time()
    for file in (content, tmp_path / "image"):
        with pytest.raises(ImageFileError) as refused:
            read_rgb(file)
        assert refused.value.reason == "too_large"
    assert time.process_time() - started < 2


HONEST: dict[str, Callable[[], bytes]] = {
    "progressive": lambda: _saved("JPEG", progressive=True),
    "profile": lambda: _jpeg(*[_segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000))] * 60),
    "filling": lambda: _jpeg(b"\xff" * 20),
    "film behind it": lambda: _saved("JPEG") + b"\xff\xda" * 10_000,
    "profile of a GIF": lambda: _gif(b"!\xff\x0bICCRGBG1012" + (b"\xff" + b"a" * 255) * 9_000 + b"\0"),
    "text": lambda: _png(*[(b"tEXt", b"a\0b")] * 100),
    "tiff": lambda: _saved("TIFF", (64, 4000)),
    "webp": lambda: _saved("WEBP", (400, 300)),
    "bmp": lambda: _saved("BMP"),
}


@pytest.mark.parametrize("write", HONEST.values(), ids=HONEST)
def test_honest_images_are_read(write: Callable[[], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_PIXELS", 64 * 64)  # of a limit of scans alone
    (tmp_path / "image").write_bytes(write())
    assert read_rgb(tmp_path / "image").size[0] in (64, 400)
    assert read_header(tmp_path / "image").width in (64, 400)


def test_only_scans_of_the_first_image_count() -> None:
    assert count_scans(_scans(0)) == 6
    assert count_scans(_scans(30)) == 36
    assert count_scans(_scans(30) + b"\xff\xda" * 100) == 36


@pytest.mark.parametrize(
    "start",
    [
        b"\xff\xd8",
        b"GIF89a",
        b"GIF89a" + b"\1" * 7 + b"!\xfe\xff",
        b"\x89PNG\r\n\x1a\n",
        b"II*\0",
        b"MM\0*",
        b"II+\0\x08\0\0\0" + b"\xff" * 8,
    ],
)
def test_what_ends_too_early_is_damaged(start: bytes) -> None:
    with pytest.raises(ImageFileError) as refused:
        read_rgb(start)
    assert refused.value.reason in ("unreadable", "truncated")
