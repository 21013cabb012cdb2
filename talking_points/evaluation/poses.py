"""Evaluation of named keypoints: answers, controls, known and new names apart, intervals, one report a partition."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talking_points.config import ConfigError
from talking_points.descriptions.keypoint_texts import Texts
from talking_points.evaluation.pose_config import EvaluatePosesConfig
from talking_points.evaluation.pose_scores import (
    AskedPoints,
    box_centres,
    cape,
    difference,
    episodes,
    interval,
    mean_pose_places,
    pair_pck,
    scores,
)
from talking_points.evaluation.pose_tables import pose_table
from talking_points.examples.config import KeypointFiles
from talking_points.examples.inference import Pointing, load_pointing
from talking_points.examples.keypoints import PoseExample, PoseSet
from talking_points.examples.points import derangement
from talking_points.examples.pose_files import TrainedPoses, open_poses, texts_for
from talking_points.examples.pose_rows import say_keypoint
from talking_points.models.answerer import AnswerMode, PointAnswerer
from talking_points.models.capellm.conversation import Query
from talking_points.models.capellm.crops import Crop, clip_box
from talking_points.processes import process_state
from talking_points.sources.keypoint_sets import KeypointSet
from talking_points.whole_files import write_json, write_text

Floats = NDArray[np.float64]


def evaluate_poses(config: EvaluatePosesConfig) -> dict[str, Any]:
    """Evaluate every partition; writes ``report.json`` and ``report.md`` into the output and returns the report.

    Raises ``ConfigError`` for categories that the model was trained on, unless ``allow_seen``.
    """
    reports = [evaluate_partition(config, keypoints) for keypoints in config.divisions]
    report = {"partitions": reports, "mean": mean_of(reports), "split": config.split, "texts": config.texts}
    config.output.mkdir(parents=True, exist_ok=True)
    write_json(config.output / "report.json", report)
    write_text(config.output / "report.md", pose_table(report))
    return report


def mean_of(reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The mean over partitions of every way's ``cape``, by way."""
    ways = reports[0]["answers"]
    return {
        way: {key: float(np.mean([one["answers"][way]["cape"][key] for one in reports])) for key in ways[way]["cape"]}
        for way in ways
    }


def evaluate_partition(config: EvaluatePosesConfig, keypoints: KeypointFiles) -> dict[str, Any]:
    """The report of one partition."""
    poses = open_poses(keypoints, config.split, config.seed)
    folder = config.model.replace("{partition}", str(keypoints.partition))
    model = PointAnswerer.from_pretrained(folder).to(process_state().device)
    trained = TrainedPoses.read(Path(folder)) or TrainedPoses.of(open_poses(keypoints, "train", config.seed))
    points = AskedPoints.of(poses.examples)
    seen = sorted({one.category_name for one in points.objects} & set(trained.categories.values()))
    if seen and not config.allow_seen:
        others = "files of other categories" if keypoints.own else "the split of another partition"
        raise ConfigError(
            f"{folder} was trained on {len(seen)} of the categories ({', '.join(seen[:5])}): a figure of those is no "
            f"figure of new ones; take {others}, or set allow_seen=true to judge it on other images of the same"
        )
    texts = texts_for(poses, config.texts)
    answers: dict[str, Floats] = {}
    speed: dict[str, float] = {}
    for way, ask_way in _ways(config, keypoints.partition, model, poses, points, texts):
        started = time.perf_counter()
        answers[way] = ask_way()
        speed[way] = len(points) / (time.perf_counter() - started)
    first = config.modes[0]
    answers["mean pose"] = mean_pose_places(points, trained.mean_pose)
    answers["box centre"] = box_centres(points)
    return {
        "partition": keypoints.partition,
        "own": keypoints.own is not None,
        "objects": len(points.objects),
        "points": len(points),
        "skipped": dict(poses.skipped),
        "missing_images": dict(poses.missing),
        "without_images": sorted(set(poses.missing) - set(poses.categories.values())),
        "keypoints_per_second": speed,
        "seen_categories": seen,
        "answers": {way: scores(points, places) for way, places in answers.items()},
        "groups": groups(points, answers, trained, first),
        "differences": {
            f"{first} - {way}": difference(points, places, answers[first])
            for way, places in answers.items()
            if way != first
        },
        **({"pairs": _pairs(points, answers)} if config.protocol == "pairs" else {}),
    }


def _ways(
    config: EvaluatePosesConfig, partition: int, model: PointAnswerer, poses: PoseSet, points: AskedPoints, texts: Texts
) -> Iterator[tuple[str, Callable[[], Floats]]]:
    """Every way of asking a model by name; further models are loaded one after the other."""
    first, size = config.modes[0], config.batch_size
    for mode in config.modes:
        yield mode, partial(ask, model, poses, points, texts, mode, size)
    if config.controls and texts:
        shuffled = exchanged_texts(texts, poses, config.seed)
        yield "shuffled descriptions", partial(ask, model, poses, points, shuffled, first, size)
        yield "name only", partial(ask, model, poses, points, {}, first, size)
    if config.blind:
        twin = PointAnswerer.from_pretrained(config.blind.replace("{partition}", str(partition))).to(model.device)
        yield "blind twin", partial(ask, twin, poses, points, texts, first, size)
    padding = float(model.config.crop_padding)
    for way, place in config.others.items():
        other = load_pointing(place.replace("{partition}", str(partition))).to(model.device)
        yield way, partial(ask_other, other, poses, points, texts, first, size, padding)


def _pairs(points: AskedPoints, answers: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    pairs, _ = episodes(points)
    return {way: pair_pck(points, places, pairs) for way, places in answers.items()}


def ask(
    model: PointAnswerer, poses: PoseSet, points: AskedPoints, texts: Texts, mode: AnswerMode, batch_size: int
) -> Floats:
    """Places (N, 2) of all points, every image decoded once and every object read once."""
    found = np.full((len(points), 2), np.inf)
    for images, numbers in _batches(poses, points, batch_size):
        rows = points.owner[numbers]
        objects = [points.objects[row] for row in rows]
        names = [one.keypoints.names[place] for one, place in zip(objects, points.index[numbers], strict=True)]
        queries = [
            Query(name, texts.get((one.keypoints.key, name)), one.keypoints.names)
            for one, name in zip(objects, names, strict=True)
        ]
        shown = [images[one.image] for one in objects]
        found[numbers] = model.answer(shown, queries, [one.box for one in objects], mode=mode, batch_size=batch_size)
    return found


def ask_other(
    model: Pointing,
    poses: PoseSet,
    points: AskedPoints,
    texts: Texts,
    mode: AnswerMode,
    batch_size: int,
    padding: float,
) -> Floats:
    """Places (N, 2) by a model of either kind.

    A localizer sees each object's crop, of ``padding`` times the longer side of its box, and reads the description, or
    the name where there is none.
    """
    if isinstance(model, PointAnswerer):
        return ask(model, poses, points, texts, mode, batch_size)
    found = np.full((len(points), 2), np.inf)
    for images, numbers in _batches(poses, points, batch_size):
        rows = points.owner[numbers]
        crops = {row: _crop(points.objects[row], model.config.image_size, padding) for row in set(rows.tolist())}
        shown = {row: crop.warp(np.asarray(images[points.objects[row].image])) for row, crop in crops.items()}
        said = []
        for row, index in zip(rows, points.index[numbers], strict=True):
            keypoints = points.objects[row].keypoints
            name = keypoints.names[index]
            said.append(say_keypoint(name, texts.get((keypoints.key, name))))
        places = model.localize([shown[row] for row in rows], said)
        for number, row, spot in zip(numbers, rows, places, strict=True):
            (point,) = crops[row].inverse([spot])
            found[number] = np.clip(point, 0, np.array(points.objects[row].size) - 1)
    return found


def _crop(one: PoseExample, size: int, padding: float) -> Crop:
    return Crop.of_box(clip_box(one.box, *one.size), size, padding)


def _batches(poses: PoseSet, points: AskedPoints, size: int) -> Iterator[tuple[dict[str, Any], NDArray[np.intp]]]:
    """Images by key, and the numbers of the points on them, a few images at a time."""
    by_image: dict[str, list[int]] = {}
    for number, row in enumerate(points.owner.tolist()):
        by_image.setdefault(points.objects[row].image, []).append(number)
    waiting: dict[str, Any] = {}
    for key, image in poses.decode(by_image.keys()):
        waiting[key] = image
        if len(waiting) == size:
            yield waiting, np.array([number for name in waiting for number in by_image[name]])
            waiting = {}
    if waiting:
        yield waiting, np.array([number for name in waiting for number in by_image[name]])


def exchanged_texts(texts: Texts, poses: PoseSet, seed: int) -> Texts:
    """Descriptions exchanged within each set, none for that of its own keypoint or of the one on the other side."""
    sets = {one.keypoints.key: one.keypoints for one in poses.examples}
    found: Texts = {}
    for key, keypoints in sorted(sets.items()):
        if all((key, name) in texts for name in keypoints.names):
            order = _exchange(keypoints, seed)
            found |= {(key, name): texts[key, keypoints.names[order[i]]] for i, name in enumerate(keypoints.names)}
    return found


def _exchange(keypoints: KeypointSet, seed: int) -> list[int]:
    partner = np.array(keypoints.mirror())
    for attempt in range(1000):
        order = derangement(len(keypoints), seed + attempt)
        if len(keypoints) < 5 or not (order == partner).any():
            return [int(index) for index in order]
    return [int(index) for index in derangement(len(keypoints), seed)]


def groups(
    points: AskedPoints, answers: Mapping[str, ArrayLike], trained: TrainedPoses, first: str
) -> dict[str, dict[str, Any]]:
    """PCK of seen categories, known sets, new sets and unseen names apart, for every way that answers."""
    objects = points.objects
    seen = np.array([one.category_name in set(trained.categories.values()) for one in objects])
    known = np.array([one.keypoints.key in set(trained.sets) for one in objects])
    unseen = np.array([name not in set(trained.names) for name in points.names])
    chosen = {
        "seen categories": seen[points.owner],
        "known sets": (~seen & known)[points.owner],
        "new sets": (~seen & ~known)[points.owner],
        "unseen names": unseen,
    }
    found = {}
    for name, mask in chosen.items():
        if not mask.any():
            continue
        own, kept = points.some(mask)
        places = {way: np.asarray(value)[kept] for way, value in answers.items()}
        found[name] = {
            "objects": len(own.objects),
            "points": len(own),
            "answers": {
                way: {**cape(own, own.distances(value)), "interval@0.1": interval(own, own.distances(value), 0.1)}
                for way, value in places.items()
            },
            "differences": {
                f"{first} - {way}": difference(own, value, places[first])
                for way, value in places.items()
                if way != first
            },
        }
    return found
