"""How fast masks become text and text becomes masks again, against the way one would write it first.

    python benchmarks/outlines.py --images 60
    python benchmarks/outlines.py --root DATASETS      # a folder that draw-sample wrote

For every object mask of drawn scenes, in one thread:

- contour: mask to short outlines (pixel edges, simplified, balanced), against findContours and approxPolyDP;
- write: outlines to text, against ``json.dumps`` of rounded lists;
- read: text to outlines with all checks, against ``json.loads``;
- rasterise: outlines to run lengths, against fillPoly into an array;
- IoU: of two run lengths without decoding them, against NumPy on two arrays.

The plain way does less: it keeps half a pixel less of every border and believes every text. The last lines are its IoU
against the mask beside ours, and the ratio for the IoU, which is to be at least 3.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talking_points.grounding.contours import trace
from talking_points.grounding.grammar import read_strict, write_outlines
from talking_points.grounding.rasters import encode_mask, iou, rasterise
from talking_points.records import Mask
from talking_points.sources import open_source
from talking_points.sources.drawn import draw_sample, drawn_roots

Seconds = dict[tuple[str, str], float]


class Stopwatch:
    """Adds up the processor's seconds between calls, by step and way: a busy machine does not matter."""

    def __init__(self) -> None:
        self.seconds: Seconds = defaultdict(float)
        self._began = time.process_time()

    def start(self) -> None:
        self._began = time.process_time()

    def lap(self, step: str, way: str) -> None:
        now = time.process_time()
        self.seconds[step, way] += now - self._began
        self._began = now


def ours(mask: Mask, truth: Any, watch: Stopwatch) -> float:
    """The round trip of the library; returns the IoU that is left of the mask."""
    height, width = mask.shape
    watch.start()
    outlines = trace(mask)
    watch.lap("contour", "ours")
    text = write_outlines(outlines)
    watch.lap("write", "ours")
    reading = read_strict(text)
    watch.lap("read", "ours")
    assert reading.outlines is not None, reading.error
    drawn = rasterise(reading.outlines, width, height)
    watch.lap("rasterise", "ours")
    left = iou(truth, drawn)
    watch.lap("IoU", "ours")
    return left


def plain(mask: Mask, watch: Stopwatch) -> float:
    """The same with OpenCV, json and NumPy, as in a first script."""
    height, width = mask.shape
    watch.start()
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    short = [cv2.approxPolyDP(contour, 0.005 * cv2.arcLength(contour, True), True) for contour in contours]
    watch.lap("contour", "plain")
    unit = [[[round(x / width, 3), round(y / height, 3)] for x, y in contour[:, 0].tolist()] for contour in short]
    text = json.dumps(unit)
    watch.lap("write", "plain")
    read = json.loads(text)
    watch.lap("read", "plain")
    drawn = np.zeros((height, width), np.uint8)
    pixels = [np.array([[round(x * width), round(y * height)] for x, y in outline], np.int32) for outline in read]
    cv2.fillPoly(drawn, pixels, 1)
    watch.lap("rasterise", "plain")
    found = drawn.astype(bool)
    left = np.logical_and(found, mask).sum() / np.logical_or(found, mask).sum()
    watch.lap("IoU", "plain")
    return float(left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60, help="drawn images")
    parser.add_argument("--root", type=Path, help="use the images that draw-sample wrote to this folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.root is None:
            draw_sample(Path(folder), arguments.images, arguments.seed, sources=["refcoco"])
        root = drawn_roots(arguments.root or Path(folder))["refcoco"]
        records = open_source("refcoco", root, exclude_evaluation_images=False)
        masks = [item.mask for record in records for item in record.objects if item.mask is not None]
    truths = [encode_mask(mask) for mask in masks]
    watch = Stopwatch()
    kept: dict[str, list[float]] = defaultdict(list)
    for repeat in range(arguments.repeats + 1):
        if repeat == 1:
            watch, kept = Stopwatch(), defaultdict(list)  # the first round warms up
        for mask, truth in zip(masks, truths, strict=True):
            kept["ours"].append(ours(mask, truth, watch))
            kept["plain"].append(plain(mask, watch))
    per_mask = {key: 1000 * seconds / len(kept["ours"]) for key, seconds in watch.seconds.items()}
    print(f"{len(masks)} masks of about {np.median([mask.sum() for mask in masks]):.0f} pixels, ms per mask")
    print(f"{'':>10} {'ours':>8} {'plain':>8}")
    steps = ("contour", "write", "read", "rasterise", "IoU")
    for step in steps:
        print(f"{step:>10} {per_mask[step, 'ours']:8.3f} {per_mask[step, 'plain']:8.3f}")
    whole = {way: sum(per_mask[step, way] for step in steps) for way in ("ours", "plain")}
    print(f"{'together':>10} {whole['ours']:8.3f} {whole['plain']:8.3f}")
    print(f"IoU of the round trip: ours {np.mean(kept['ours']):.3f}, plain {np.mean(kept['plain']):.3f}")
    print(f"IoU without decoding: {per_mask['IoU', 'plain'] / per_mask['IoU', 'ours']:.1f} times as fast (at least 3)")


if __name__ == "__main__":
    main()
