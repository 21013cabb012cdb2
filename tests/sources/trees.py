"""Miniature datasets in the true layouts, small enough to break in every way the real ones are broken."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from talking_points.sources.labels import load_labels

WIDTH, HEIGHT = 60, 40


def photograph(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), mode: str = "RGB", format: str = "JPEG") -> Path:
    """Write a noise picture of ``size`` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path, format)
    return path


def label_map(path: Path, labels: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)
    return path


def blank(value: int, dtype: type = np.uint8, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[Any]:
    return np.full(shape, value, dtype=dtype)


def rectangle_polygon(x: int, y: int, width: int, height: int) -> list[float]:
    """The polygon whose rasterised pixels are exactly the rectangle's."""
    return [float(v) for v in (x, y, x + width, y, x + width, y + height, x, y + height)]


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def image_entry(id: object, file_name: str, width: int = WIDTH, height: int = HEIGHT) -> dict[str, Any]:
    return {"id": id, "file_name": file_name, "width": width, "height": height}


def annotation(id: int, image_id: object, category: int, box: Sequence[float], **changes: Any) -> dict[str, Any]:
    """A rectangular annotation; ``changes`` overwrite keys, a change to None removes one."""
    x, y, width, height = (int(v) for v in box)
    item = {
        "id": id,
        "image_id": image_id,
        "category_id": category,
        "bbox": list(box),
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [rectangle_polygon(x, y, width, height)],
        **changes,
    }
    return {key: value for key, value in item.items() if value is not None}


def coco(images: Sequence[Any], annotations: Sequence[Any], categories: Sequence[Mapping[str, Any]] = ()) -> Any:
    return {"info": {}, "images": list(images), "annotations": list(annotations), "categories": list(categories)}


def part_categories() -> list[dict[str, Any]]:
    return [
        {"id": item["id"], "name": item["name"], "supercategory": item["supercategory"]}
        for item in load_labels("partimagenet")["parts"]
    ]


def pascal_tree(root: Path, stem: str = "2008_000002", split: str = "train") -> Path:
    """One dog (object 11) at x 5..34, y 5..24 with a head (61) of 100 pixels, on a photograph of 60 x 40."""
    objects, parts = blank(255), blank(255)
    objects[5:25, 5:35] = 11
    parts[5:15, 5:15] = 61
    pascal_image(root, stem, split, objects, parts)
    return root


def pascal_image(root: Path, stem: str, split: str, objects: NDArray[Any], parts: NDArray[Any]) -> None:
    photograph(root / "images" / split / f"{stem}.jpg", (objects.shape[1], objects.shape[0]))
    label_map(root / "annotations_detectron2_obj" / split / f"{stem}.png", objects)
    label_map(root / "annotations_detectron2_part" / split / f"{stem}.png", parts)


def ade_tree(root: Path, annotations: Sequence[Any] | None = None, parts: NDArray[Any] | None = None) -> Path:
    """Two chairs (object 8) side by side, each with the part "chair's back" (46) in its upper half."""
    if parts is None:
        parts = blank(65535, np.uint16)
        parts[10:20, 5:15] = 46
        parts[10:20, 30:40] = 46
    if annotations is None:
        annotations = [
            annotation(1, 1, 8, (5, 10, 10, 20), part_category_id=[46]),
            annotation(2, 1, 8, (30, 10, 10, 20), part_category_id=[46]),
        ]
    photograph(root / "images" / "training" / "ADE_train_1.jpg")
    label_map(root / "annotations_detectron2_part" / "training" / "ADE_train_1.png", parts)
    write_json(root / "ade20k_instance_train.json", coco([image_entry(1, "ADE_train_1.jpg")], annotations))
    return root


PIN_NAME = "n02423022_1.JPEG"


def pin_annotations() -> list[dict[str, Any]]:
    """A quadruped: head (0), body (1), two feet (2)."""
    return [
        annotation(1, 1, 0, (5, 5, 10, 10)),
        annotation(2, 1, 1, (15, 5, 30, 15)),
        annotation(3, 1, 2, (16, 20, 4, 10)),
        annotation(4, 1, 2, (40, 20, 4, 10)),
    ]


def pin_tree(
    root: Path,
    annotations: Sequence[Any] | None = None,
    image: str = f"images/train/n02423022/{PIN_NAME}",
    json_file: str = "train.json",
    file_name: str = PIN_NAME,
    categories: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    photograph(root / image)
    content = coco(
        [image_entry(1, file_name)],
        pin_annotations() if annotations is None else annotations,
        part_categories() if categories is None else categories,
    )
    write_json(root / json_file, content)
    return root


def pin_seg_tree(root: Path, parts: NDArray[Any] | None = None, whole: NDArray[Any] | None = None) -> Path:
    """The quadruped of ``pin_annotations`` as label maps; the object map has class 66."""
    if parts is None:
        parts = blank(40)
        parts[5:15, 5:15] = 0
        parts[5:20, 15:45] = 1
        parts[20:30, 16:20] = 2
        parts[20:30, 40:44] = 2
    if whole is None:
        whole = np.where(parts == 40, 158, 66).astype(np.uint8)
    photograph(root / "images" / "train" / PIN_NAME)
    label_map(root / "annotations" / "train" / "n02423022_1.png", parts)
    label_map(root / "annotations" / "train_whole" / "n02423022_1.png", whole)
    write_json(root / "annotations" / "train" / "n02423022_1.json", {"imgHeight": HEIGHT, "imgWidth": WIDTH})
    return root


def animal(id: int, image_id: int, category: int, **changes: Any) -> dict[str, Any]:
    """An AP-10K animal with 17 keypoints on a diagonal, the second one unlabelled."""
    keypoints = [value for number in range(17) for value in (10 + number, 5 + number, 2)]
    keypoints[3:6] = [0, 0, 0]
    item = {
        "id": id,
        "image_id": image_id,
        "category_id": category,
        "bbox": [5, 5, 40, 30],
        "area": 1200,
        "iscrowd": 0,
        "num_keypoints": 16,
        "keypoints": keypoints,
        **changes,
    }
    return {key: value for key, value in item.items() if value is not None}


def ap10k_tree(root: Path, **files: tuple[Sequence[Any], Sequence[Any]]) -> Path:
    """``files``: images and annotations of "train", "val", "test" of partition 1; every listed image is drawn."""
    for split, (images, animals) in files.items():
        write_json(root / "annotations" / f"ap10k-{split}-split1.json", coco(images, animals))
        for image in images:
            photograph(root / "data" / image["file_name"])
    return root
