"""The card of a segmenter: from its configuration, its instruction dataset and its evaluation reports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from talking_points.models.kinds import KINDS
from talking_points.publishing.card import shareable
from talking_points.publishing.markdown import Markdown, render_markdown


def render_segmenter_card(
    name: str,
    *,
    config: Mapping[str, Any] | None = None,
    reports: Sequence[Mapping[str, Any]] = (),
    dataset: str | None = None,
    dataset_revision: str | None = None,
    base_model: str | None = None,
    curves: bool = False,
    repo: str | None = None,
    training: Mapping[str, Any] | None = None,
    note: str | None = None,
    terms: Sequence[Mapping[str, str]] = (),
    free: bool = False,
) -> str:
    """The text of ``README.md`` for a segmenter; the arguments are those of ``render_model_card``.

    ``reports`` are those of ``evaluate-segmentation``. Raises ``ValueError`` for others.
    """
    splits = [_figures(split, found) for report in reports for split, found in _splits(report).items()]
    return render_markdown(
        "segmenter_card.md.jinja",
        metadata=Markdown(_metadata(name, splits, dataset, base_model, free)),
        name=name,
        metrics=(training or {}).get("metrics") or {},
        seconds=(training or {}).get("seconds"),
        note=note,
        terms=terms,
        free=free,
        repo=repo,
        config=yaml.safe_dump(shareable(config), sort_keys=False, allow_unicode=True).strip() if config else None,
        splits=splits,
        dataset=dataset,
        dataset_revision=dataset_revision,
        base_model=base_model,
        curves=curves,
    )


def read_segmentation_report(path: Path, report: Any) -> dict[str, Any]:
    """A report of ``evaluate-segmentation``. Raises ``ValueError`` for anything else, naming the file."""
    try:
        for split, found in _splits(report).items():
            _figures(split, found)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"expected a report that talking-points evaluate-segmentation wrote in {path}") from error
    return dict(report)


def _splits(report: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(report.get("splits"), Mapping) or not report["splits"]:
        raise ValueError("expected a report of evaluate-segmentation, found one without splits")
    found: Mapping[str, Any] = report["splits"]
    return found


def _figures(split: str, found: Mapping[str, Any]) -> dict[str, Any]:
    res = found["res"]
    values = {
        "ciou": res["ciou"],
        "giou": res["giou"],
        "precision": res["precision@0.5"],
        "accuracy": found["rec"]["accuracy@0.5"],
        "boundary": found["boundary_f"],
        "well_formed": found["form"]["well_formed"],
    }
    for key in ("ciou", "giou"):
        values[f"{key}_low"], values[f"{key}_high"] = res["intervals"][key]
    ways = {name: float(way["giou"]) for name, way in found["ways"].items() if name != "model"}
    return {
        "name": split,
        "samples": int(found["samples"]),
        "ways": ways,
        **{key: float(value) for key, value in values.items()},
    }


def _metadata(
    name: str, splits: Sequence[Mapping[str, Any]], dataset: str | None, base_model: str | None, free: bool
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    tested_on = dataset if dataset and re.fullmatch(r"[\w.-]+/[\w.-]+", dataset) else "instructions"
    results = [
        EvalResult(
            task_type=KINDS["segmenter"].pipeline,
            dataset_type=tested_on,
            dataset_name=tested_on,
            dataset_split=split["name"],
            metric_type=metric,
            metric_name=f"{metric} ({split['name']})",
            metric_value=round(split[key], 2),
        )
        for split in splits
        for metric, key in (("cIoU", "ciou"), ("gIoU", "giou"))
    ]
    return ModelCardData(
        language=["en"],
        license="apache-2.0" if free else "other",
        license_name=None if free else "terms-of-the-sources",
        library_name="talking-points",
        pipeline_tag=KINDS["segmenter"].pipeline,
        tags=["referring-expression-segmentation", "visual-grounding"],
        datasets=[tested_on] if tested_on != "instructions" else None,
        base_model=[base_model] if base_model and re.fullmatch(r"[\w.-]+/[\w.-]+", base_model) else None,
        model_name=name,
        eval_results=results or None,
    ).to_yaml()
