"""One evaluation as a report: scores with their definition, intervals, breakdowns and controls, as JSON.

``compare`` sets two reports side by side, point by point, where they share points, and refuses what cannot be compared.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from talking_points.errors import InputError
from talking_points.evaluation.pck import (
    TALKING_POINTS,
    PckDefinition,
    distances,
    mpck,
    pck,
    point_scores,
)
from talking_points.evaluation.statistics import PairedDifference, bootstrap_interval, compare_pairs
from talking_points.examples.points import Floats, PointExample, PointSet
from talking_points.examples.words import judge_words
from talking_points.regular_files import read_text
from talking_points.whole_files import write_json

LEVELS = ("found", "point", "part", "object")
"""Where a prediction fails: nowhere (nearer than the smallest threshold of mPCK), at the point (inside the part's box),
at the part (inside the object's box), at the object."""

COMPARISONS = "comparisons.json"
"""Beside the reports of an evaluation: every pair of them compared."""


@dataclass(frozen=True)
class Report:
    """What one description set reaches through one localizer.

    Scores are percentages. ``predictions`` holds a row per point: id, image, predicted x and y in pixels, distance.
    ``undescribed`` counts the points that were to be described and were not: they are in no score.
    """

    name: str
    definition: dict[str, Any]
    dataset: str
    localizer: str
    points: int
    images: int
    mpck: float
    interval: dict[str, float]
    pck: dict[str, float]
    inside_part: float
    levels: dict[str, float]
    words: dict[str, float]
    controls: dict[str, float]
    above_text_only: dict[str, Any] | None
    sources: dict[str, dict[str, float]]
    categories: dict[str, dict[str, float]]
    undescribed: int = 0
    predictions: list[dict[str, Any]] = field(repr=False, default_factory=list)

    def save(self, path: str | Path) -> None:
        """Write the report as JSON; figures that do not exist become null."""
        write_json(path, _no_nan(asdict(self)))

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report written by ``save``; in older ones every point counts as described."""
        try:
            values = json.loads(read_text(path))
        except RecursionError:
            raise ValueError(f"{path} is no evaluation report: it is nested too deeply") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path} is no evaluation report: expected an object, found {type(values).__name__}")
        values.setdefault("undescribed", 0)
        missing = set(cls.__dataclass_fields__) - set(values)
        if missing:
            raise ValueError(f"{path} is no evaluation report: it lacks {sorted(missing)}")
        try:
            _SAVED.validate_python(values)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise ValueError(
                f"{path} is no evaluation report: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from None
        return cls(**{name: value for name, value in values.items() if name in cls.__dataclass_fields__})


Text = Annotated[str, Field(max_length=500), AfterValidator(lambda text: text.encode().decode())]
Score = Annotated[float, Field(allow_inf_nan=False)]


@with_config(ConfigDict(strict=True, extra="allow"))
class _Bounds(TypedDict):
    low: Score
    high: Score


@with_config(ConfigDict(strict=True, extra="allow"))
class _Difference(TypedDict):
    difference: Score
    interval: _Bounds


@with_config(ConfigDict(strict=True, extra="allow"))
class _Definition(TypedDict):
    name: Text


@with_config(ConfigDict(strict=True, extra="allow"))
class _Prediction(TypedDict):
    id: str


@with_config(ConfigDict(strict=True, extra="allow"))
class _Saved(TypedDict):
    """The types of what a saved report says, of whoever wrote it; scores that do not exist are null where they may."""

    name: Text
    definition: _Definition
    dataset: Text
    localizer: Text
    points: Annotated[int, Field(ge=0)]
    images: Annotated[int, Field(ge=0)]
    undescribed: Annotated[int, Field(ge=0)]
    mpck: Score
    interval: _Bounds
    pck: dict[Text, Score]
    inside_part: Score | None
    levels: dict[Text, Score | None]
    words: dict[Text, Any]
    controls: dict[Text, Score | None]
    above_text_only: _Difference | None
    sources: dict[Text, dict[Text, Score | None]]
    categories: dict[Text, dict[Text, Score | None]]
    predictions: list[_Prediction]


_SAVED: TypeAdapter[_Saved] = TypeAdapter(_Saved)


class IncomparableError(InputError):
    """Two reports speak of different things: says which."""


def evaluate_predictions(
    name: str,
    points: PointSet,
    predicted: Floats,
    *,
    dataset: str = "",
    localizer: str = "",
    definition: PckDefinition = TALKING_POINTS,
    controls: Mapping[str, Floats] | None = None,
    references: Sequence[str] | None = None,
    undescribed: int = 0,
) -> Report:
    """Score predictions (N, 2) in pixels of points whose texts are the evaluated descriptions.

    ``controls`` are predictions for the same points; ``references`` the ground-truth texts, for the words' colours.
    """
    examples = list(points.examples)
    images = [example.image for example in examples]
    found = _distances(points, predicted, definition)
    scores = point_scores(found, definition)
    control_distances = {
        control: _distances(points, positions, definition) for control, positions in (controls or {}).items()
    }
    above = None
    if "text_only" in control_distances:
        blind = point_scores(control_distances["text_only"], definition)
        above = asdict(compare_pairs(blind, scores, images))
    words = judge_words([example.text for example in examples], [example.facts for example in examples], references)
    return Report(
        name=name,
        definition=definition.to_dict(),
        dataset=dataset,
        localizer=localizer,
        points=len(examples),
        images=len(set(images)),
        mpck=mpck(found, definition),
        interval=asdict(bootstrap_interval(scores, images)),
        pck=_pck(found, definition),
        inside_part=_inside_part(examples, predicted),
        levels=_levels(examples, predicted, found, min(definition.mean_over)),
        words=asdict(words),
        controls={control: mpck(values, definition) for control, values in control_distances.items()},
        above_text_only=above,
        sources=_breakdown(examples, found, definition, lambda example: example.source),
        categories=_breakdown(examples, found, definition, lambda example: example.facts.object),
        undescribed=undescribed,
        predictions=[
            {
                "id": example.id,
                "image": example.image,
                "x": float(position[0]),
                "y": float(position[1]),
                "distance": float(distance),
            }
            for example, position, distance in zip(examples, predicted, found, strict=True)
        ],
    )


def compare(before: Report, after: Report) -> PairedDifference:
    """mPCK of ``after`` minus that of ``before`` on the points that both describe, with interval and p-value.

    Raises ``IncomparableError`` when the reports used other definitions of PCK or have no point in common.
    """
    if before.definition != after.definition:
        raise IncomparableError(
            f"'{before.name}' was scored by {before.definition}, '{after.name}' by {after.definition}: "
            "evaluate both with the same definition"
        )
    rows = {row["id"]: row for row in after.predictions}
    common = [(row, rows[row["id"]]) for row in before.predictions if row["id"] in rows]
    if not common:
        raise IncomparableError(
            f"none of the {before.points} points of '{before.name}' is among the {after.points} of '{after.name}': "
            "evaluate both on the same split of the same dataset"
        )
    definition = PckDefinition.from_dict(before.definition)
    return compare_pairs(
        point_scores([row["distance"] for row, _ in common], definition),
        point_scores([row["distance"] for _, row in common], definition),
        [row["image"] for row, _ in common],
    )


def _distances(points: PointSet, predicted: Floats, definition: PckDefinition) -> Floats:
    boxes = [example.object_bbox for example in points.examples]
    return distances(predicted, points.keypoints, points.sizes, boxes, definition.normalizer)


def _pck(found: Floats, definition: PckDefinition) -> dict[str, float]:
    return {f"{threshold:g}": pck(found, threshold) for threshold in definition.thresholds}


def _inside(box: Sequence[float], position: Floats) -> bool:
    x, y, width, height = box
    # Boxes run along pixel borders, positions count from pixel centres.
    return bool(x <= position[0] + 0.5 <= x + width and y <= position[1] + 0.5 <= y + height)


def _inside_part(examples: Sequence[PointExample], predicted: Floats) -> float:
    """Percentage of predictions inside the true part's box; NaN without parts."""
    judged = [
        _inside(example.part_bbox, position)
        for example, position in zip(examples, predicted, strict=True)
        if example.part_bbox is not None
    ]
    return 100 * float(np.mean(judged)) if judged else float("nan")


def _levels(examples: Sequence[PointExample], predicted: Floats, found: Floats, threshold: float) -> dict[str, float]:
    """Percentages of ``LEVELS``."""
    counts: Counter[str] = Counter()
    for example, position, distance in zip(examples, predicted, found, strict=True):
        if distance < threshold:
            counts["found"] += 1
        elif example.part_bbox is not None and _inside(example.part_bbox, position):
            counts["point"] += 1
        elif _inside(example.object_bbox, position):
            counts["part"] += 1
        else:
            counts["object"] += 1
    return {level: 100 * counts[level] / len(examples) for level in LEVELS}


def _breakdown(
    examples: Sequence[PointExample], found: Floats, definition: PckDefinition, group: Callable[[PointExample], str]
) -> dict[str, dict[str, float]]:
    names = np.array([group(example) for example in examples])
    return {
        str(name): {
            "points": int((names == name).sum()),
            "mpck": mpck(found[names == name], definition),
            **_pck(found[names == name], definition),
        }
        for name in np.unique(names)
    }


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_no_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
