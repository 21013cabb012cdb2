"""Random and damaged COCO files, outlines, run lengths and image files: documented errors and counts, nothing else."""

# ruff: noqa: PT017  (an error is one of the allowed results, and looked at)

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from talking_points.image_files import ImageFileError, read_header, read_labels, read_pixels
from talking_points.sources import open_source
from talking_points.sources.coco_index import CocoIndex
from talking_points.sources.coco_parts import BadAnnotationError, clip_box, outline, usable_category
from talking_points.sources.own_objects import CocoParts
from talking_points.sources.protocol import SourceError
from talking_points.sources.reasons import SKIP_REASONS
from tests.fuzz import CASES, Odd, harmless
from tests.sources.trees import animal, annotation, coco, image_entry, rectangle_polygon, write_image, write_json
from tests.test_fuzz import changed

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning:PIL")]

NAMES = ("../a.jpg", "/etc/passwd", "a\0.jpg", "", ".", "..", "b/../../a.jpg", "\ud800.jpg", "C:\\a.jpg", "x" * 300)
CATEGORIES = [{"id": 1, "name": "dog"}, {"id": 2, "name": "dog's head"}]


def polygon(odd: Odd) -> list[Any]:
    return [odd.scalar() if odd.random() < 0.05 else odd.randint(-20, 90) for _ in range(odd.randrange(12))]


def run_lengths(odd: Odd) -> dict[str, Any]:
    counts = odd.choice(
        (
            [odd.randint(-3, 2500) for _ in range(odd.randrange(6))],
            "".join(odd.choices("0123P`~o1", k=8)),
            [2400],
            "PB2",
        )
    )
    size = odd.choice(([40, 60], [40, 60], [60, 40], [40.0, 60.0], [], None, [10**9, 10**9]))
    return {"size": size, "counts": odd.value() if odd.random() < 0.1 else counts}


def segmentation(odd: Odd) -> Any:
    if odd.random() < 0.5:
        return [rectangle_polygon(odd.randrange(40), odd.randrange(30), odd.randint(1, 30), odd.randint(1, 30))]
    piece = odd.choice((polygon, polygon, run_lengths, Odd.value))
    return [piece(odd) for _ in range(odd.randrange(4))] if odd.random() < 0.6 else piece(odd)


def some_annotation(odd: Odd) -> Any:
    if odd.random() < 0.1:
        return odd.value()
    item: dict[str, Any] = {"id": odd.randrange(4), "image_id": 1, "category_id": odd.randint(1, 2)}
    item |= {"bbox": [odd.randint(-5, 30) for _ in range(4)], "segmentation": segmentation(odd)}
    for key in ("id", "image_id", "category_id", "bbox", "iscrowd", "area", "score", "object_id"):
        if odd.random() < 0.05:
            item[key] = odd.value(1)
    return item


def some_file(odd: Odd) -> Any:
    image: Any = {"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}
    for key in image:
        if odd.random() < 0.05:
            image[key] = odd.choice((odd.choice(NAMES), odd.value()))
    content: dict[str, Any] = {
        "images": [image if odd.random() < 0.9 else odd.value() for _ in range(odd.randint(1, 2))],
        "annotations": [some_annotation(odd) for _ in range(odd.randrange(5))],
        "categories": CATEGORIES,
    }
    for key in content:
        if odd.random() < 0.05:
            content[key] = odd.value()
    return content


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> CocoParts:
    root = tmp_path_factory.mktemp("fuzz") / "root"
    write_image(root / "images" / "a.jpg")
    write_json(root / "own.json", {})
    return CocoParts(root)


def test_outlines_and_boxes() -> None:
    drawn = 0
    for seed in range(CASES):
        odd = Odd(seed)
        box = odd.choice((None, [odd.randint(-5, 70) for _ in range(4)], odd.value()))
        try:
            region = outline({"segmentation": segmentation(odd), "bbox": box}, 60, 40)
        except BadAnnotationError as error:
            assert error.reason in SKIP_REASONS, seed
            continue
        drawn += 1
        mask = region.mask()
        x, y, width, height = region.box
        assert mask.shape == (40, 60), seed
        assert region.area == mask.sum(), seed
        assert 0 <= x <= x + width <= 60, seed
        assert 0 <= y <= y + height <= 40, seed
    assert drawn > CASES / 10  # the cases are not all nonsense


def test_categories_and_clipped_boxes() -> None:
    for seed in range(CASES):
        odd = Odd(seed)
        try:
            assert usable_category({"category_id": 1, "iscrowd": odd.value(), "area": odd.value()}, {1: "dog"}) == 1
            box = [odd.randint(-9, 70) for _ in range(4)] if odd.random() < 0.5 else odd.value()
            x, y, width, height = clip_box(box, 60, 40)
            assert 0 <= x < x + width <= 60, seed
            assert 0 <= y < y + height <= 40, seed
        except BadAnnotationError as error:
            assert error.reason in SKIP_REASONS, seed


def test_coco_files_of_any_content(parts: CocoParts) -> None:
    found = 0
    with harmless(parts.root):
        for seed in range(CASES):
            (parts.root / "own.json").write_text(json.dumps(some_file(Odd(seed))))
            parts.skipped.clear()
            try:
                for record in parts:
                    found += 1
                    for part in (part for item in record.objects for part in item.parts):
                        assert part.mask is not None, seed
                        assert part.mask.any(), seed
            except SourceError as error:
                assert len(str(error)) < 2000, seed
            assert set(parts.skipped) <= set(SKIP_REASONS), seed
    assert found > CASES / 10


def test_coco_files_that_are_damaged(parts: CocoParts) -> None:
    listed = [annotation(1, 1, 1, (2, 2, 40, 30)), annotation(2, 1, 2, (5, 5, 10, 10))]
    whole = json.dumps(coco([image_entry(1, "a.jpg")], listed, CATEGORIES)).encode()
    file, source = parts.root / "own.json", CocoParts(parts.root)
    with harmless(parts.root):
        for seed in range(CASES):
            odd = Odd(seed)
            file.write_bytes(
                odd.damaged(whole, (b"NaN", b"[[", b'"', b"Infinity", b"9" * 25, b"\xef\xbb\xbf", b"[" * 99))
            )
            try:
                with CocoIndex(source) as index:
                    index.add(file, "all", str)
                    list(index.images())
            except SourceError as error:
                assert len(str(error)) < 2000, seed
            assert set(source.skipped) <= set(SKIP_REASONS), seed


LAYOUTS = {
    "mp100": ("annotations/mp100_split1_train.json", "images/a/1.jpg", "a/1.jpg", 9),
    "ap10k": ("annotations/ap10k-train-split1.json", "data/1.jpg", "1.jpg", 17),
    "coco_keypoints": ("own_train.json", "images/1.jpg", "1.jpg", 3),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_keypoint_files_of_any_content(tmp_path: Path, name: str) -> None:
    """Two hundred for each, as each lists and opens a folder: what they share with the others has its own tests."""
    place, image, listed, count = LAYOUTS[name]
    category = 37 if name == "mp100" else 1
    item = animal(1, 1, category, keypoints=[5, 6, 2] * count, num_keypoints=count)
    names = [f"place {letter}" for letter in "abcdefghijklmnopq"[:count]]
    kinds = [{"id": category, "name": "x", "keypoints": names, "skeleton": [[1, 2]]}]
    whole, found = coco([image_entry(1, listed)], [item], kinds), 0
    write_image(tmp_path / image)
    with harmless(tmp_path):
        for seed in range(CASES // 50):
            odd = Odd(seed)
            write_json(tmp_path / place, changed(odd, whole, (*NAMES, [1], {"a": 1}, [[1]])))
            try:
                source = open_source(name, tmp_path)
                found += len(list(source))
            except SourceError as error:
                assert len(str(error)) < 2000, seed
                continue
            assert set(source.skipped) <= set(SKIP_REASONS), seed
    assert found > CASES / 500


def encoded(kind: str, mode: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    content, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).convert(mode).save(content, kind, exif=exif)
    return content.getvalue()


KINDS = (
    ("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("GIF", "P"), ("WEBP", "RGB"),
    ("BMP", "RGB"), ("TIFF", "RGB"), ("TIFF", "CMYK"), ("TIFF", "I"),
)  # fmt: skip


def test_image_files_that_are_damaged(parts: CocoParts) -> None:
    whole = [encoded(*kind) for kind in KINDS]
    with harmless(parts.root):
        for seed in range(CASES):
            content = Odd(seed).damaged(whole[seed % len(whole)], (b"%!PS", b"\0" * 4, b"\xff" * 4))
            for read in (read_header, read_pixels, lambda data: read_pixels(data, "displayed"), read_labels):
                try:
                    found = read(content)
                except ImageFileError as error:
                    assert error.reason in ("unreadable", "truncated", "too_large"), seed
                    continue
                if isinstance(found, np.ndarray) and read is not read_labels:
                    assert found.dtype == np.uint8, seed
                    assert found.shape[2] == 3, seed


def test_the_fence_notices_what_leaves_it(parts: CocoParts) -> None:
    with pytest.raises(AssertionError, match="reached outside"), harmless(parts.root):
        (parts.root.parent / "outside").write_text("")
    with pytest.raises(AssertionError, match=r"socket\."), harmless(parts.root):
        __import__("socket").socket().close()
