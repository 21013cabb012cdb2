"""From a configuration to reports: every description set through the localizer, with controls and comparisons."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.controls import control_predictions
from talking_points.evaluation.description_sets import describe_set
from talking_points.evaluation.inputs import check_evaluation
from talking_points.evaluation.reports import COMPARISONS, IncomparableError, Report, compare, evaluate_predictions
from talking_points.evaluation.tables import write_tables
from talking_points.examples.bare_points import load_bare_points
from talking_points.examples.inference import Pointing, load_pointing, localize_points
from talking_points.examples.points import PointSet, load_points
from talking_points.locks import only_writer
from talking_points.models.localizer import PointLocalizer
from talking_points.whole_files import write_json

ANSWERS = "answers.sqlite"
"""In the output: what models have answered, so that an evaluation that was interrupted asks for the others only."""


def evaluate(config: EvaluateConfig) -> dict[str, Report]:
    """Score every description set; writes reports, tables and paired comparisons into ``config.output``.

    Raises ``ConfigError`` before any other work where a model or the dataset is not there.
    """
    check_evaluation(config)
    with only_writer(config.output, "an evaluation"):
        return _evaluate(config)


def _evaluate(config: EvaluateConfig) -> dict[str, Report]:
    points = load_evaluated_points(config)
    localizer = PointLocalizer.from_pretrained(config.localizer).eval()
    text_only = PointLocalizer.from_pretrained(config.text_only).eval() if config.text_only else None
    reports = {
        name: evaluate_set(
            name,
            describe_set(points, source, config.features, config.seed, config.output / ANSWERS),
            points,
            config,
            localizer,
            text_only,
        )
        for name, source in config.sets.items()
    }
    for name, other in config.others.items():
        twin = load_pointing(other.text_only) if other.text_only else None
        reports[name] = evaluate_set(name, points, points, config, load_pointing(other.model), twin, other.model)
    write_reports(reports, config.output)
    return reports


def load_evaluated_points(config: EvaluateConfig) -> PointSet:
    """The points of the configured dataset's split, or the configured keypoints without descriptions."""
    if config.keypoints is not None:
        return load_bare_points(config.keypoints, config.limit, config.seed)
    assert config.dataset is not None
    return load_points(config.dataset, config.split, revision=config.revision, limit=config.limit, seed=config.seed)


def evaluate_set(
    name: str,
    points: PointSet,
    truth: PointSet,
    config: EvaluateConfig,
    localizer: Pointing,
    text_only: Pointing | None = None,
    place: str | None = None,
) -> Report:
    """The report of one description set: ``points`` carry its texts, ``truth`` those of the dataset.

    ``place``: where the localizer was loaded from, if not from the configured place.
    """
    reference = {example.id: example.text for example in truth.examples}
    references = [reference[example.id] for example in points.examples]
    return evaluate_predictions(
        name,
        points,
        localize_points(localizer, points, config.features),
        dataset=config.dataset or (config.keypoints.title if config.keypoints else ""),
        localizer=place or config.localizer,
        definition=config.pck,
        controls=control_predictions(points, localizer, config.features, text_only, seed=config.seed),
        references=references if all(references) else None,
        undescribed=len(truth) - len(points),
    )


def write_reports(reports: dict[str, Report], folder: Path) -> None:
    """One JSON per report, the paper's tables with ours beside, and every pair of comparable reports compared."""
    for name, report in reports.items():
        report.save(folder / f"{name}.json")
    write_tables(reports, folder)
    pairs = {}
    names = sorted(reports)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            try:
                pairs[f"{second} minus {first}"] = asdict(compare(reports[first], reports[second]))
            except IncomparableError as reason:
                pairs[f"{second} minus {first}"] = {"not comparable": str(reason)}
    write_json(folder / COMPARISONS, pairs)
