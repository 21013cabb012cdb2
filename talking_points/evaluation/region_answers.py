"""Answers about regions as they are scored: what can be used of a text, and what is wrong with it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from talking_points.evaluation.masks import BoxScores, MaskScores, score_boxes, score_masks
from talking_points.examples.regions import RegionExample, RegionSet
from talking_points.grounding.boundaries import boundary_f
from talking_points.grounding.grammar import UNIT, UnreadableError, read_box, read_lenient, read_strict
from talking_points.grounding.outlines import Outlines, Point, box_to_pixels, crosses_itself, is_clockwise
from talking_points.grounding.rasters import outlines_box, overlap, rasterise
from talking_points.models.segmenting import RegionModel
from talking_points.records import Box, Rle


@dataclass(frozen=True)
class RegionAnswer:
    """One answer: its text, the first error of a strict reading or None, what can be used of it, and that as a mask.

    mask: None where nothing can be used; box: [x, y, width, height] in pixels round the outlines.
    """

    text: str
    error: str | None
    outlines: Outlines
    mask: Rle | None
    box: Box | None

    @classmethod
    def read(cls, text: str, size: tuple[int, int], scale: Point = UNIT) -> RegionAnswer:
        """What a text says about an image of this width and height."""
        outlines = read_lenient(text, scale=scale).outlines
        mask = rasterise(outlines, *size) if outlines.polygons else None
        return cls(text, read_strict(text, scale=scale).error, outlines, mask, outlines_box(outlines, *size))

    def boxed(self, size: tuple[int, int]) -> Rle | None:
        """The mask of the box round the outlines alone."""
        if self.box is None:
            return None
        (x, y, w, h), (width, height) = self.box, size
        corners = ((x, y), (x + w, y), (x + w, y + h), (x, y + h))
        return rasterise(Outlines((((tuple((a / width, b / height) for a, b in corners)),),)), width, height)


def ask_regions(
    model: RegionModel,
    regions: RegionSet,
    questions: Sequence[str],
    batch_size: int,
    max_new_tokens: int | None = None,
) -> tuple[list[str], float]:
    """Answers to a question about each region's image, every image decoded once, and the seconds that they took."""
    texts: dict[int, str] = {}
    waiting: list[tuple[int, Any]] = []
    by_image: dict[str, list[int]] = {}
    for number, one in enumerate(regions.examples):
        by_image.setdefault(one.image, []).append(number)
    options = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    seconds = 0.0

    def flush() -> None:
        nonlocal seconds
        began = time.perf_counter()
        asked = [questions[number] for number, _ in waiting]
        found = model.answer([image for _, image in waiting], asked, **options)
        seconds += time.perf_counter() - began
        texts.update(zip([number for number, _ in waiting], found, strict=True))
        waiting.clear()

    for digest, image in regions.images(by_image):
        waiting.extend((number, image) for number in by_image[digest])
        if len(waiting) >= batch_size:
            flush()
    if waiting:
        flush()
    return [texts[number] for number in range(len(regions))], seconds


def read_answers(model: RegionModel, examples: Sequence[RegionExample], texts: Sequence[str]) -> list[RegionAnswer]:
    """Every text as an answer about its region's image."""
    pairs = zip(examples, texts, strict=True)
    return [RegionAnswer.read(text, one.size, model.scale(*one.size)) for one, text in pairs]


def read_boxes(model: RegionModel, examples: Sequence[RegionExample], texts: Sequence[str]) -> list[Box | None]:
    """Boxes in pixels, None for what is not well formed."""
    found: list[Box | None] = []
    for one, text in zip(examples, texts, strict=True):
        try:
            found.append(box_to_pixels(read_box(text, model.scale(*one.size)), *one.size))
        except UnreadableError:
            found.append(None)
    return found


@dataclass(frozen=True)
class RegionScores:
    """The scores of all answers of one way to answer: masks, the boxes round them, boundaries (N,) in [0, 1]."""

    masks: MaskScores
    boxes: BoxScores
    boundaries: np.ndarray

    @classmethod
    def of(cls, examples: Sequence[RegionExample], answers: Sequence[RegionAnswer]) -> RegionScores:
        truths, masks = [one.mask for one in examples], [answer.mask for answer in answers]
        pairs = zip(truths, masks, strict=True)
        return cls(
            score_masks(truths, masks),
            score_boxes([one.box for one in examples], [answer.box for answer in answers]),
            np.array([boundary_f(truth, mask) for truth, mask in pairs], np.float64),
        )


def describe_form(model: RegionModel, answers: Sequence[RegionAnswer], seconds: float) -> dict[str, Any]:
    """How the answers were written: shares in percent, means per answer, errors by name."""
    count = max(1, len(answers))
    errors = Counter(answer.error for answer in answers if answer.error is not None)
    drawn = [answer.outlines for answer in answers if answer.outlines.polygons]
    rings = [ring for outlines in drawn for polygon in outlines.polygons for ring in polygon[:1]]

    def share(number: float, of: int) -> float:
        return 100 * number / of if of else 0.0

    return {
        "well_formed": share(count - sum(errors.values()) if answers else 0, count),
        "errors": {str(name): number for name, number in errors.most_common()},
        "nothing_read": share(sum(answer.mask is None for answer in answers), count),
        "cut_off": share(errors["unclosed"], count),
        "counterclockwise": share(sum(not is_clockwise(ring) for ring in rings), len(rings)),
        "crossing_itself": share(sum(crosses_itself(ring) for ring in rings), len(rings)),
        "overlapping": share(sum(_overlap(outlines) for outlines in drawn), count),
        "points": float(np.mean([answer.outlines.point_count for answer in answers])) if answers else 0.0,
        "tokens": float(np.mean([model.count_tokens(answer.text) for answer in answers])) if answers else 0.0,
        "seconds": seconds / count,
    }


def _overlap(outlines: Outlines) -> bool:
    """Whether two outlines of an answer share area, seen at 256 x 256."""
    masks = [rasterise(Outlines((polygon,)), 256, 256) for polygon in outlines.polygons]
    return any(overlap(one, other)[0] > 0 for n, one in enumerate(masks) for other in masks[n + 1 :])


def as_row(example: RegionExample, answer: RegionAnswer, scores: Mapping[str, float]) -> dict[str, Any]:
    """An answer as a line of the file of predictions."""
    return {
        "id": example.id, "image": example.image, "kind": example.kind, "expression": example.expression,
        "answer": answer.text, "error": answer.error, **scores,
    }  # fmt: skip
