"""Training data: points with their words, from the published dataset or from keypoint annotations.

Rows are read through ``datasets`` (a folder or a Hub repository, downloaded or streamed) in one pass over their
metadata. Images are decoded only when asked for, each different one once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from talking_points.config import ConfigError
from talking_points.dataset_files import read_dataset
from talking_points.examples.example_sets import ExampleSet
from talking_points.examples.words import Facts
from talking_points.image_files import read_rgb
from talking_points.records import LABELS, Box

Floats = NDArray[np.float64]

COLUMNS = (
    "id", "image_sha256", "image_width", "image_height", "source", "object", "part", "object_bbox", "part_bbox",
    "instance_index", "instance_count", "keypoint", "object_location", "part_location", "point_location",
)  # fmt: skip
"""What training and evaluation read of a row, besides its image and one text."""

TEXTS = ("description", "draft", "object_caption", "local_caption")
"""Columns of texts, one of which is read."""


@dataclass(frozen=True)
class PointExample:
    """One point. ``image`` is the digest of its image's file, ``text`` its description ("" for bare keypoints).

    keypoint: pixels; size: width and height of the image; boxes: [x, y, width, height] in pixels.
    """

    id: str
    image: str
    source: str
    keypoint: tuple[float, float]
    size: tuple[int, int]
    object_bbox: Box
    part_bbox: Box | None
    facts: Facts
    text: str


@dataclass(frozen=True)
class PointSet(ExampleSet[PointExample]):
    """Points and a way to their images."""

    def with_texts(self, texts: Mapping[str, str]) -> PointSet:
        """The points that ``texts`` (id -> text) speaks of, with those texts."""
        return replace(self, examples=[replace(e, text=texts[e.id]) for e in self.examples if e.id in texts])

    def shuffle_texts(self, seed: int) -> PointSet:
        """Every point with the description of another: data from which nothing can be learnt."""
        order = derangement(len(self), seed)
        return replace(
            self,
            examples=[
                replace(example, text=self.examples[other].text)
                for example, other in zip(self.examples, order, strict=True)
            ],
        )

    @property
    def keypoints(self) -> NDArray[np.float64]:
        """(N, 2) in pixels."""
        return np.array([example.keypoint for example in self.examples], dtype=np.float64).reshape(-1, 2)

    @property
    def sizes(self) -> NDArray[np.float64]:
        """(N, 2), width and height in pixels."""
        return np.array([example.size for example in self.examples], dtype=np.float64).reshape(-1, 2)


def load_points(
    path: str | Path,
    split: str,
    text: str = "description",
    *,
    revision: str | None = None,
    streaming: bool = False,
    limit: int | None = None,
    seed: int = 0,
) -> PointSet:
    """The points of a published dataset's split, with the texts of one column.

    Nothing but ``data/<split>-*.parquet`` is read (``dataset_files.read_dataset``). ``limit`` draws so many of them
    (streamed: takes the first). Raises ``ConfigError`` for a dataset without the columns or with others of their names,
    without texts, with points outside their images, or without images when these are asked for.
    """
    if text not in TEXTS:
        raise ConfigError(f"expected a column of texts ({', '.join(TEXTS)}), found '{text}'")
    rows = read_dataset(path, split, {*COLUMNS, text, "image"}, revision=revision, streaming=streaming)
    wanted = rows.select_columns([*COLUMNS, text])
    examples = []
    for row in wanted.take(limit) if streaming and limit else wanted:
        examples.append(_example(row, text, str(path)))
    if not examples:
        raise ConfigError(f"split '{split}' of the dataset {path} has no rows")
    if not any(example.text for example in examples):
        raise ConfigError(f"column '{text}' of the dataset {path} is empty: training needs texts")
    images = rows.select_columns(["image_sha256", "image"])

    def decode(digests: Collection[str]) -> Iterator[tuple[str, Image.Image]]:
        left = set(digests)
        if streaming:
            chosen: Iterable[dict[str, Any]] = images
        else:
            first = dict(reversed([(digest, index) for index, digest in enumerate(images["image_sha256"])]))
            chosen = (images[index] for index in sorted(first[digest] for digest in left))
        for row in chosen:
            if row["image_sha256"] in left:
                left.remove(row["image_sha256"])
                yield row["image_sha256"], _decode_image(row, str(path))
            if not left:
                return

    points = PointSet([example for example in examples if example.text], decode)
    return points.sample(limit, seed) if limit else points


class LengthBuckets:
    """Batches of indices with texts of like length, in an order that depends on seed and epoch alone.

    Batches are cut from pools of ``pool`` batches of shuffled samples, sorted by length, then shuffled. Nothing about
    the order is state, so a run that is resumed in the middle of an epoch goes on with the batches it would have had.

    With ``images`` (N,), what is shuffled and sorted are groups of up to ``per_image`` samples of one image, drawn
    anew in every epoch: a batch then has fewer images, whose reading its samples share.

    Of several processes each takes every ``processes``-th batch, beginning with its own ``process``; where batches do
    not come out even, the first ones of the epoch are taken twice.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int = 0,
        pool: int = 32,
        images: Sequence[str] | None = None,
        per_image: int = 1,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.pool = max(1, pool * batch_size // per_image)
        self.epoch = 0
        self.drop_last = False
        if not len(self.lengths):
            raise ValueError("expected at least one sample to make batches of, found none")
        samples: dict[str, list[int]] = {}
        for index, name in enumerate(map(str, range(len(self.lengths))) if images is None else images):
            samples.setdefault(name, []).append(index)
        self._of_image = [np.array(own) for own in samples.values()]
        self.per_image = per_image
        self.process, self.processes = process, processes

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of one epoch."""
        self.epoch = epoch

    @property
    def batch_count(self) -> int:
        """Different batches of this process in an epoch."""
        return -(-len(self.lengths) // (self.batch_size * self.processes))

    def __len__(self) -> int:
        return self.batch_count

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        groups = [
            own[start : start + self.per_image]
            for own in map(random.permutation, self._of_image)
            for start in range(0, len(own), self.per_image)
        ]
        order = [groups[index] for index in random.permutation(len(groups))]
        pools = [
            sorted(order[start : start + self.pool], key=lambda group: self.lengths[group].max())
            for start in range(0, len(order), self.pool)
        ]
        samples = np.concatenate([group for pool in pools for group in pool]).tolist()
        batches = [samples[start : start + self.batch_size] for start in range(0, len(samples), self.batch_size)]
        shuffled = [batches[index] for index in random.permutation(len(batches))]
        own = range(self.process, self.batch_count * self.processes, self.processes)
        return iter([shuffled[index % len(shuffled)] for index in own])


def derangement(count: int, seed: int) -> NDArray[np.intp]:
    """A random order of ``count`` things in which nothing keeps its place: a single cycle."""
    if count < 2:
        raise ValueError(f"expected at least two things to exchange, found {count}")
    cycle = np.random.default_rng(seed).permutation(count)
    order = np.empty(count, dtype=np.intp)
    order[cycle] = np.roll(cycle, 1)
    return order


def _example(row: Mapping[str, Any], text: str, path: str) -> PointExample:
    empty = [name for name in COLUMNS if row[name] is None]
    if empty or not 0 <= row["source"] < len(LABELS):
        raise ConfigError(
            f"row {row['id']!a} of the dataset {path} has no {', '.join(empty) or 'known source'}: the dataset is "
            "damaged, build it again"
        )
    x, y = row["keypoint"]
    width, height = row["image_width"], row["image_height"]
    if not (math.isfinite(x + y) and 0 <= round(x) < width and 0 <= round(y) < height):
        raise ConfigError(
            f"point {row['id']} of the dataset {path} lies at ({x:g}, {y:g}), outside its image of {width}x{height}: "
            "the dataset is damaged, build it again"
        )
    facts = Facts(**{name: row[name] for name in Facts.__dataclass_fields__})
    return PointExample(
        id=row["id"],
        image=row["image_sha256"],
        source=LABELS[row["source"]],
        keypoint=(x, y),
        size=(width, height),
        object_bbox=tuple(row["object_bbox"]),
        part_bbox=tuple(row["part_bbox"]),
        facts=facts,
        text=row[text] or "",
    )


def _decode_image(row: Mapping[str, Any], path: str) -> Image.Image:
    stored = row["image"]
    if not stored or not stored.get("bytes"):
        raise ConfigError(
            f"the dataset {path} holds references instead of images: "
            "put the images of the source datasets back with talking_points.publishing.rehydrate first"
        )
    return read_rgb(stored["bytes"])
