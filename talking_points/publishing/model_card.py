"""Cards of the trained models, rendered from their configuration and their evaluation reports and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from talking_points.models.kinds import KINDS
from talking_points.publishing.card import shareable
from talking_points.publishing.markdown import Markdown, render_markdown
from talking_points.publishing.segmenter_card import render_segmenter_card
from talking_points.publishing.terms import citations

_NORMALIZERS = {"image_wh": "image's width and height", "bbox_max_side": "longer side of the object's box"}


def render_model_card(
    name: str,
    role: str,
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
    poses: Mapping[str, Any] | None = None,
) -> str:
    """The text of ``README.md`` for a model folder, or for the Hub when ``repo`` ("org/name") is given.

    ``config`` is the training configuration, ``reports`` are evaluation reports as plain values, the main one
    first, all of one definition of the metric. ``dataset`` and ``base_model`` are Hub names or descriptions;
    ``curves`` says that ``curves.png`` lies beside the card. ``training`` has its ``seconds`` and its last ``metrics``,
    ``note`` is what else is to be known of this model, ``terms`` (name and terms) are those of what it comes
    from, and ``free`` says that none of it is anybody else's. ``poses`` are an answerer's figures
    (``answerer_cards.select_pose_report``). Raises ``ValueError`` for reports of different
    definitions: their scores must not stand in one table.
    """
    if role == "segmenter":
        return render_segmenter_card(
            name, config=config, reports=reports, dataset=dataset, dataset_revision=dataset_revision,
            base_model=base_model, curves=curves, repo=repo, training=training, note=note, terms=terms, free=free,
        )  # fmt: skip
    definitions = [report["definition"] for report in reports]
    if any(definition != definitions[0] for definition in definitions):
        names = sorted({definition["name"] for definition in definitions})
        raise ValueError(f"expected reports of one metric, found {', '.join(names)}: write one card per metric")
    unscored: dict[str, Any] = {"thresholds": [], "mean_over": [], "normalizer": "image_wh"}
    definition: Mapping[str, Any] = definitions[0] if definitions else unscored
    return render_markdown(
        "model_card.md.jinja",
        metadata=Markdown(_metadata(name, role, reports, dataset, dataset_revision, base_model, free, poses)),
        name=name,
        metrics=(training or {}).get("metrics") or {},
        seconds=(training or {}).get("seconds"),
        note=note,
        terms=terms,
        free=free,
        role=role,
        repo=repo,
        config=yaml.safe_dump(shareable(config), sort_keys=False, allow_unicode=True).strip() if config else None,
        reports=reports,
        poses=poses,
        thresholds=definition["thresholds"],
        mean_over=definition["mean_over"],
        normalizer=_NORMALIZERS[definition["normalizer"]],
        dataset=dataset,
        dataset_revision=dataset_revision,
        base_model=base_model,
        curves=curves,
        citations=Markdown(citations(())),
    )


def _metadata(
    name: str,
    role: str,
    reports: Sequence[Mapping[str, Any]],
    dataset: str | None,
    dataset_revision: str | None,
    base_model: str | None,
    free: bool,
    poses: Mapping[str, Any] | None,
) -> str:
    """The YAML block that the Hub reads, with the scores as a model index."""
    from huggingface_hub import EvalResult, ModelCardData

    datasets, bases = _repositories(dataset), _repositories(base_model)
    tested_on = datasets[0] if datasets else "LlamaPointInPart"
    results = []
    for report in reports:
        scores = {"mPCK": report["mpck"]} | {f"PCK@{threshold}": value for threshold, value in report["pck"].items()}
        results += [
            EvalResult(
                task_type=KINDS[role].pipeline,
                dataset_type=tested_on,
                dataset_name=tested_on,
                dataset_revision=dataset_revision,
                metric_type=metric,
                metric_name=f"{metric} ({report['definition']['name']}, {report['name']})",
                metric_value=round(value, 2),
            )
            for metric, value in scores.items()
            if value is not None
        ]
    for one in (poses or {}).get("partitions", ()):
        way, values = next(iter(one["ways"].items()))
        results += [
            EvalResult(
                task_type=KINDS[role].pipeline,
                dataset_type="MP-100",
                dataset_name=dataset or "MP-100",
                metric_type=metric,
                metric_name=f"{metric} ({way}, partition {one['partition']})",
                metric_value=round(value, 2),
            )
            for metric, value in (("PCK@0.1", values[1]), ("PCK@0.2", values[3]), ("mPCK", values[5]))
        ]
    return ModelCardData(
        language=["en"],
        license="apache-2.0" if free else "other",
        license_name=None if free else "terms-of-the-sources",
        library_name="talking-points",
        pipeline_tag=KINDS[role].pipeline,
        tags=["keypoints", "pixel-grounding", "visual-grounding"],
        datasets=datasets or None,
        base_model=bases or None,
        model_name=name,
        eval_results=results or None,
    ).to_yaml()


def _repositories(name: str | None) -> list[str]:
    """The name where it is one of the Hub's, nothing where it is a folder or a description."""
    return [name] if name and re.fullmatch(r"[\w.-]+/[\w.-]+", name) else []
