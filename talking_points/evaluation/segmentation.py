"""Evaluation of segmenters: masks and boxes of expressions, how answers are written, controls, paired tests.

Every sentence is one sample with one true mask, at the size of its image. Figures are percent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from talking_points.evaluation.masks import PRECISION_AT, MaskScores, score_boxes, score_masks
from talking_points.evaluation.region_answers import (
    RegionAnswer,
    RegionScores,
    as_row,
    ask_regions,
    describe_form,
    read_answers,
    read_boxes,
)
from talking_points.evaluation.segmentation_config import EvaluateSegmentationConfig
from talking_points.evaluation.segmentation_tables import segmentation_table
from talking_points.evaluation.statistics import bootstrap_interval, bootstrap_ratio, compare_pairs
from talking_points.examples.points import Floats
from talking_points.examples.regions import RegionExample, RegionSet, load_regions, mean_shape
from talking_points.grounding.grammar import UNIT
from talking_points.grounding.rasters import decode_mask, encode_mask, iou
from talking_points.instructions.config import InstructionSettings
from talking_points.instructions.phrasings import load_phrasings
from talking_points.models.segmenting import RegionModel, open_segmenter, refuse_coordinates
from talking_points.records import Rle, derive_seed
from talking_points.whole_files import write_json, write_text

LEVELS = np.arange(0.05, 0.95, 0.05)
"""Heights at which the mean shape is cut; the best on the training side is taken."""


def evaluate_segmentation(config: EvaluateSegmentationConfig) -> dict[str, Any]:
    """Evaluate a segmenter on every split, and those it is compared with on the same questions.

    Writes ``report.json``, ``report.md`` and ``predictions-SPLIT.jsonl`` into the output; returns the report.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    models = {
        "model": open_segmenter(
            config.model, "model", revision=config.revision, coordinates=config.coordinates,
            trust_remote_code=config.trust_remote_code,
        )
    }  # fmt: skip
    for name, folder in config.compare.items():
        models[name] = open_segmenter(folder, f"compare.{name}", coordinates=config.coordinates)
    if not config.compare:  # else they may be those of what it is compared with
        refuse_coordinates(config.model, models["model"], config.coordinates, "coordinates")
    config.output.mkdir(parents=True, exist_ok=True)
    report = {
        "model": config.model,
        "protocol": "one sentence is one sample; unreadable answers count as empty masks; masks at the image's size",
        "phrasing": config.phrasing,
        "splits": {split: _split(config, models, split) for split in config.splits},
    }
    write_json(config.output / "report.json", report)
    write_text(config.output / "report.md", segmentation_table(report))
    return report


def _split(config: EvaluateSegmentationConfig, models: Mapping[str, RegionModel], split: str) -> dict[str, Any]:
    regions = load_regions(config.instructions, split, config.kinds, config.limit, config.seed)
    examples = regions.examples
    model = models["model"]
    images = [one.image for one in examples]
    answers, seconds = _ask(config, model, regions)
    scores = RegionScores.of(examples, answers)
    ways = {"model": scores.masks}
    found: dict[str, Any] = {
        "samples": len(examples),
        "images": len(set(images)),
        "regions": len({one.region for one in examples}),
        "res": describe_masks(scores.masks, images),
        "rec": {"accuracy@0.5": scores.boxes.accuracy(), "above_0.5": scores.boxes.accuracy_above()},
        "boundary_f": 100 * float(scores.boundaries.mean()),
        "form": describe_form(model, answers, seconds),
    }
    if config.boxes:
        found["rec_boxes"] = _boxes(config, model, regions)
    boxed = [answer.boxed(one.size) for one, answer in zip(examples, answers, strict=True)]
    ways["box of the answer"] = score_masks([one.mask for one in examples], boxed)
    if config.controls:
        ways |= _controls(config, model, regions)
    if config.train_split:
        shape = best_shape(load_regions(config.instructions, config.train_split, (), 2000, config.seed).examples)
        ways["mean shape"] = score_masks([one.mask for one in examples], [place_shape(shape, one) for one in examples])
    further = {}
    for name, other in models.items():
        if name != "model":
            others, spent = _ask(config, other, regions)
            judged = RegionScores.of(examples, others)
            ways[name] = judged.masks
            further[name] = {
                "res": describe_masks(judged.masks, images),
                "rec": {"accuracy@0.5": judged.boxes.accuracy()},
                "boundary_f": 100 * float(judged.boundaries.mean()),
                "form": describe_form(other, others, spent),
                "boundary_difference": _difference(judged.boundaries, scores.boundaries, images),
            }
    found |= {
        "ceiling": 100 * float(np.mean([one.ceiling for one in examples])),
        "ways": {name: {"ciou": way.ciou, "giou": way.giou} for name, way in ways.items()},
        "differences": {
            f"model - {name}": _difference(ways["model"].iou, way.iou, images)
            for name, way in ways.items()
            if name != "model"
        },
        "compared": further,
    }
    rows = [
        as_row(one, answer, {"iou": float(mask), "box_iou": float(box), "boundary_f": float(edge)})
        for one, answer, mask, box, edge in zip(
            examples, answers, scores.masks.iou, scores.boxes.iou, scores.boundaries, strict=True
        )
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(config.output / f"predictions-{split}.jsonl", lines)
    return found


def _ask(
    config: EvaluateSegmentationConfig, model: RegionModel, regions: RegionSet
) -> tuple[list[RegionAnswer], float]:
    questions = _questions(config, model, regions.examples)
    texts, seconds = ask_regions(model, regions, questions, config.batch_size, config.max_new_tokens)
    return read_answers(model, regions.examples, texts), seconds


def _questions(
    config: EvaluateSegmentationConfig, model: RegionModel, examples: Sequence[RegionExample], kind: str | None = None
) -> list[str]:
    """What is asked about the regions; of another ``kind`` than the rows', in the same words as those.

    A model of other coordinates than the rows' is asked in its own.
    """
    if config.phrasing == "own":
        return [model.question(kind or one.kind, **one.elements(model.scale(*one.size))) for one in examples]
    questions = []
    phrasings = load_phrasings(InstructionSettings().phrasings).questions
    for one in examples:
        wanted = kind or one.kind
        scale = model.scale(*one.size) if wanted.startswith(("point_", "box_")) else UNIT
        if kind is None and scale == UNIT:
            questions.append(one.question)
            continue
        frames = phrasings[wanted]  # type: ignore[index]
        frame = frames[derive_seed(config.seed, one.id, wanted) % len(frames)]
        questions.append(frame.format(**one.elements(scale)))
    return questions


def _boxes(config: EvaluateSegmentationConfig, model: RegionModel, regions: RegionSet) -> dict[str, float]:
    """The same sentences asked for their boxes in words."""
    spoken = regions.subset(n for n, one in enumerate(regions.examples) if one.expression)
    if not len(spoken):
        return {}
    questions = _questions(config, model, spoken.examples, "text_to_box")
    texts, _ = ask_regions(model, spoken, questions, config.batch_size, config.max_new_tokens)
    boxes = read_boxes(model, spoken.examples, texts)
    scores = score_boxes([one.box for one in spoken.examples], boxes)
    unread = 100 * float(np.mean([box is None for box in boxes]))
    return {"accuracy@0.5": scores.accuracy(), "above_0.5": scores.accuracy_above(), "unreadable": unread}


def _controls(config: EvaluateSegmentationConfig, model: RegionModel, regions: RegionSet) -> dict[str, MaskScores]:
    """The same questions about the images of others: what is left is said without looking."""
    if len({one.image for one in regions.examples}) < 2:
        return {}
    exchanged = regions.with_images_exchanged(config.seed)
    texts, _ = ask_regions(
        model, exchanged, _questions(config, model, exchanged.examples), config.batch_size, config.max_new_tokens
    )
    answers = read_answers(model, regions.examples, texts)
    return {"exchanged images": score_masks([one.mask for one in regions.examples], [a.mask for a in answers])}


def describe_masks(scores: MaskScores, images: Sequence[str]) -> dict[str, Any]:
    """cIoU, gIoU and precision, the first two with 95 % intervals that draw images."""
    mean, total = (
        bootstrap_interval(100 * scores.iou, images),
        bootstrap_ratio(100 * scores.intersections, scores.unions, images),
    )
    return {
        "ciou": scores.ciou,
        "giou": scores.giou,
        **{f"precision@{level:g}": scores.precision(level) for level in PRECISION_AT},
        "intervals": {"ciou": [total.low, total.high], "giou": [mean.low, mean.high]},
    }


def _difference(after: Floats, before: Floats, images: Sequence[str]) -> dict[str, Any]:
    """``after`` minus ``before`` in points of the mean over samples, with its interval and p-value."""
    found = compare_pairs(100 * before, 100 * after, images)
    interval = [found.interval.low, found.interval.high]
    return {"difference": found.difference, "interval": interval, "p_value": found.p_value}


def best_shape(examples: Sequence[RegionExample]) -> Any:
    """The mean shape of regions, cut where it overlaps them best: bool (64, 64)."""
    mean = mean_shape(examples)
    masks = [_place(mean >= level, 256, 256) for level in LEVELS]
    truths = [_place_truth(one) for one in examples[:500]]
    overlaps = [np.mean([iou(truth, mask) for truth in truths]) for mask in masks]
    return mean >= LEVELS[int(np.argmax(overlaps))]


def place_shape(shape: Any, example: RegionExample) -> Rle:
    """A shape stretched over the example's image."""
    return _place(shape, *example.size)


def _place(shape: Any, width: int, height: int) -> Rle:
    return encode_mask(
        cv2.resize(shape.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
    )


def _place_truth(example: RegionExample) -> Rle:
    return _place(decode_mask(example.mask), 256, 256)
