"""Hand-made image records: textured and smooth parts at known places."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from talking_points.records import AnnotatedObject, AnnotatedPart, Box, ImageRecord, Mask

HEIGHT, WIDTH = 160, 240


def rectangle(x: int, y: int, width: int, height: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def box_of(mask: Mask) -> Box:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return 0.0, 0.0, 1.0, 1.0
    x, y = int(columns.min()), int(rows.min())
    return float(x), float(y), float(int(columns.max()) - x + 1), float(int(rows.max()) - y + 1)


def part(name: str, mask: Mask | None, *, mask_exact: bool = True, box: Box | None = None) -> AnnotatedPart:
    bbox = box or box_of(mask if mask is not None else rectangle(0, 0, 1, 1))
    return AnnotatedPart(
        name=name,
        label=f"dog's {name}",
        id=0,
        bbox=bbox,
        mask_exact=mask_exact,
        load_mask=None if mask is None else lambda: mask,
    )


def dog(
    *parts: AnnotatedPart, box: Box = (0.0, 0.0, float(WIDTH), float(HEIGHT)), exact: bool = True
) -> AnnotatedObject:
    return AnnotatedObject(name="dog", label="dog", id=11, bbox=box, parts=parts, instance_exact=exact)


def record(pixels: NDArray[np.uint8], *objects: AnnotatedObject, image_id: str = "image-1") -> ImageRecord:
    height, width = pixels.shape[:2]
    return ImageRecord(
        source="pascal_part116",
        image_id=image_id,
        image_path=Path(f"/data/images/{image_id}.jpg"),
        relative_path=f"images/{image_id}.jpg",
        width=width,
        height=height,
        split="train",
        objects=objects,
        load_pixels=lambda: pixels,
    )


def canvas(grey: int = 128) -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), grey, dtype=np.uint8)


def blob(pixels: NDArray[np.uint8], x: float, y: float, contrast: int = 100, radius: float = 5.0) -> None:
    """Add a soft bright spot, which SIFT finds at its center."""
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    spot = contrast * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    pixels[:] = np.clip(pixels + spot[..., None], 0, 255).astype(np.uint8)


def texture(seed: int = 0) -> NDArray[np.uint8]:
    """Noise on several scales: hundreds of keypoints everywhere."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((HEIGHT // step, WIDTH // step)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        for step in (4, 8, 16)
    ]
    grey = np.clip(np.mean(layers, axis=0) * 255, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
