"""Miniature datasets in the true layouts, small enough to break in every way the real ones are broken."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from talking_points.records import ImageRecord
from talking_points.sources.labels import ap10k_families, load_labels

WIDTH, HEIGHT = 60, 40


def write_image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), mode: str = "RGB", format: str = "JPEG") -> Path:
    """Write a noise image of ``size`` (width, height)."""
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
    """One dog (object 11) at x 5..34, y 5..24 with a head (61) of 100 pixels, on an image of 60 x 40."""
    objects, parts = blank(255), blank(255)
    objects[5:25, 5:35] = 11
    parts[5:15, 5:15] = 61
    pascal_image(root, stem, split, objects, parts)
    return root


def pascal_image(root: Path, stem: str, split: str, objects: NDArray[Any], parts: NDArray[Any]) -> None:
    write_image(root / "images" / split / f"{stem}.jpg", (objects.shape[1], objects.shape[0]))
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
    write_image(root / "images" / "training" / "ADE_train_1.jpg")
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
    write_image(root / image)
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
    write_image(root / "images" / "train" / PIN_NAME)
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


def count_labelled(records: Iterable[ImageRecord]) -> dict[str, int]:
    """Labelled keypoints of AP-10K's animals by family."""
    families, found = ap10k_families(), Counter[str]()
    for record in records:
        for item in record.objects:
            found[families[item.id]] += sum(point.visible for point in item.keypoints)
    return dict(found)


def ap10k_tree(root: Path, **files: tuple[Sequence[Any], Sequence[Any]]) -> Path:
    """``files``: images and annotations of "train", "val", "test" of partition 1; every listed image is drawn."""
    for split, (images, animals) in files.items():
        write_json(root / "annotations" / f"ap10k-{split}-split1.json", coco(images, animals))
        for image in images:
            write_image(root / "data" / image["file_name"])
    return root


def ref(number: int, ann_id: int, image_id: int, split: str, *sentences: str, **changes: Any) -> dict[str, Any]:
    """One entry of a refs file, whose ``file_name`` carries the annotation's number as the real ones do."""
    entry = {
        "ref_id": number,
        "ann_id": ann_id,
        "image_id": image_id,
        "category_id": 18,
        "split": split,
        "sent_ids": [10 * number + position for position in range(len(sentences))],
        "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",
        "sentences": [
            {"sent_id": 10 * number + position, "sent": text, "raw": text.upper(), "tokens": text.split()}
            for position, text in enumerate(sentences)
        ],
        **changes,
    }
    return {key: value for key, value in entry.items() if value is not None}


def refs_file(path: Path, refs: object, protocol: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(refs, protocol))
    return path


COCO_CATEGORIES = ({"id": 1, "name": "person"}, {"id": 18, "name": "dog"})


def coco_name(image_id: int) -> str:
    return f"COCO_train2014_{image_id:012d}.jpg"


def refcoco_tree(
    root: Path,
    refs: Sequence[Any] | None = None,
    annotations: Sequence[Any] | None = None,
    images: Sequence[int] = (1, 2, 3),
    folder: str = "refcoco",
    split_by: str = "unc",
    image_folder: str = "images/train2014",
) -> Path:
    """Two dogs in image 1 (train), a dog in 2 (val), a person in 3 (testA), 60 x 40 each."""
    if annotations is None:
        annotations = [
            annotation(11, 1, 18, (5, 10, 10, 20)),
            annotation(12, 1, 18, (30, 10, 10, 20)),
            annotation(21, 2, 18, (5, 5, 20, 20)),
            annotation(31, 3, 1, (5, 5, 20, 20)),
        ]
    if refs is None:
        refs = [
            ref(1, 12, 1, "train", "right dog", " The DOG  on the right "),
            ref(2, 11, 1, "train", "left dog"),
            ref(3, 21, 2, "val", "dog"),
            ref(4, 31, 3, "testA", "man"),
        ]
    refs_file(root / folder / f"refs({split_by}).p", refs)
    listed = coco([image_entry(number, coco_name(number)) for number in images], annotations, COCO_CATEGORIES)
    write_json(root / folder / "instances.json", listed)
    for number in images:
        write_image(root / image_folder / coco_name(number))
    return root
