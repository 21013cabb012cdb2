"""How fast the candidates stage is, against loops that do less and loops that do the same naively.

    python benchmarks/candidates.py --images 200
    python benchmarks/candidates.py --root DATASETS      # a folder that draw-sample wrote

Three ways over the same images, in the same number of threads, OpenCV itself single-threaded:

- stage: read the record (image and annotations), detect, select, put places into words, hash the look
  (the file's digest comes from the index stage);
- bare: decode the image, turn it grey, detect SIFT keypoints, nothing else;
- plain: read the record and call ``detectAndCompute`` once for each part with its mask, as one would write it first.

They take turns on small batches, so that a busy machine slows all of them alike. The last two lines are the ratios:
at least 0.85 of the bare loop's speed, at least 3 times the plain loop's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from talking_points.build_config import KeypointConfig
from talking_points.candidates.build import build_candidates
from talking_points.image_files import read_pixels
from talking_points.records import SOURCES
from talking_points.sources import Source, SourceEntry, open_source
from talking_points.sources.drawn import draw_sample

Work = tuple[Source, SourceEntry]


def stage(config: KeypointConfig, work: Work) -> int:
    """The candidates of one image: how many."""
    source, entry = work
    record = source.read(entry)
    return len(build_candidates(record, "", config)[0])


def bare(work: Work) -> int:
    """Decode and detect: how many keypoints."""
    source, entry = work
    pixels = read_pixels(source.root / entry.image_path)
    return len(cv2.SIFT.create().detect(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None))


def plain(work: Work) -> int:
    """One full detection and description for each part: how many parts have a best keypoint."""
    source, entry = work
    record = source.read(entry)
    grey = cv2.cvtColor(record.pixels, cv2.COLOR_RGB2GRAY)
    sift, found = cv2.SIFT.create(), 0
    for annotated in record.objects:
        for part in annotated.parts:
            assert part.mask is not None
            keypoints, _ = sift.detectAndCompute(grey, part.mask.astype(np.uint8))
            found += max(keypoints, key=lambda keypoint: keypoint.response, default=None) is not None
    return found


def measure(works: Sequence[Work], workers: int, config: KeypointConfig, plain_images: int) -> dict[str, float]:
    """Seconds per image of each way; the plain loop runs on ``plain_images`` of them."""
    ways: dict[str, Callable[[Work], int]] = {"stage": partial(stage, config), "bare": bare, "plain": plain}
    seconds, images = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(bare, works[: 2 * workers]))  # warm up
        for turn, start in enumerate(range(0, len(works), 10 * workers)):
            batch = works[start : start + 10 * workers]
            order = list(ways)[turn % 3 :] + list(ways)[: turn % 3]
            for name in order:
                if name == "plain" and images["plain"] >= plain_images:
                    continue
                began = time.perf_counter()
                list(pool.map(ways[name], batch))
                seconds[name] += time.perf_counter() - began
                images[name] += len(batch)
    return {name: seconds[name] / images[name] for name in ways}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="drawn images per source")
    parser.add_argument("--root", type=Path, help="use the images that draw-sample wrote to this folder")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per", choices=("image", "part"), default="image", help="rule of the stage")
    parser.add_argument("--plain-images", type=int, default=60, help="images for the plain loop, which is slow")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.root:
            roots = dict.fromkeys(SOURCES, arguments.root)
        else:
            roots = draw_sample(Path(folder), arguments.images, arguments.seed, workers=arguments.workers)
        sources = [open_source(name, roots[name]) for name in SOURCES]
        listed = [[(source, entry) for entry in source.entries()] for source in sources]
        works = [work for group in zip(*listed, strict=False) for work in group]  # every batch holds all sources
        config = KeypointConfig(per=arguments.per)
        per_image = measure(works, arguments.workers, config, arguments.plain_images)
    print(f"{len(works)} images, {arguments.workers} workers, one keypoint per {arguments.per}")
    for name, seconds in per_image.items():
        print(f"{name:>5}: {1000 * seconds:7.1f} ms per image, {1 / seconds:6.1f} images/s")
    print(f"stage / bare loop:  {per_image['bare'] / per_image['stage']:.2f} of its speed (at least 0.85)")
    print(f"stage / plain loop: {per_image['plain'] / per_image['stage']:.1f} times its speed (at least 3)")


if __name__ == "__main__":
    main()
