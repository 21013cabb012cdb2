"""What the card of a Point Answerer says: what its training has left, and the figures of ``evaluate-poses``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from talking_points.config import fingerprint
from talking_points.descriptions.keypoint_texts import RULES
from talking_points.examples.config import KeypointFiles
from talking_points.examples.pose_files import TrainedPoses, annotations_digest
from talking_points.publishing.card_content import select_figures
from talking_points.regular_files import read_text
from talking_points.sources.drawn import is_drawn
from talking_points.training.answerer_config import AnswererConfig, texts_file
from talking_points.whole_files import file_sha256

_CONTROL = "It is the blind twin: a control that has never seen an image, and guesses from the words."
_LLAMA = (
    "The Llama Community License of that release: whoever passes the model on names it beginning with 'Llama', shows "
    "'Built with Llama' and adds the licence; its acceptable use policy holds."
)
_DRAWN = "Stand-in drawn by `talking-points draw-sample`: it holds none of its data."
_MOST_SHOWN = 20


def describe_answerer(train: AnswererConfig, result: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the card of the answerer that a training has left, from its configuration and its result."""
    from talking_points.models.capellm.presets import LANGUAGE_MODELS, VISION_MODEL  # with transformers
    from talking_points.training.stages import find_drawn_sources  # with torch

    folder, stage, poses = Path(result["path"]), train.answerer, train.poses
    root = poses.root or poses.own or poses.rows
    assert root is not None
    drawn = is_drawn(root) or (poses.rows is not None and bool(find_drawn_sources(str(poses.rows))))
    name = f"point-answerer-{train.preset}-{result['fingerprint'][:12]}"
    source, terms = _source(poses)
    shared = {"preset", "seed", "start_revision", "poses", "answerer"}
    tiny = {"image_size", "grid", "vocabulary_size", "pose_vision"} if train.preset == "tiny" else set()
    settings = train.model_dump(mode="json", include=shared | tiny)
    for place in ("root", "own", "rows"):
        del settings["poses"][place]
    for place in ("language_model", "vision_model", "texts"):
        settings["answerer"][place] = _named(settings["answerer"][place])
    pretrained = train.start is None and train.preset != "tiny"
    language = stage.language_model or LANGUAGE_MODELS.get(train.preset, "")
    return {
        "name": f"Llama-{name}" if pretrained and "llama" in language.lower() else name,
        "role": "answerer",
        "config": settings,
        "training": {"seconds": result.get("seconds"), "metrics": select_figures(result.get("metrics", {}))},
        "curves": (folder / "curves.png").exists(),
        "note": " ".join([*([_CONTROL] if stage.blind else []), _experience(train, folder)]),
        "dataset": f"drawn stand-ins for {source}" if drawn else source,
        "dataset_revision": fingerprint(annotations_digest(poses)),
        "base_model": _named(train.start) or (_named(language) if pretrained else "random weights"),
        "terms": [
            {"name": "MP-100" if poses.root else source, "terms": _DRAWN if drawn else terms},
            *([] if not pretrained else _base_terms(language, stage.vision_model or VISION_MODEL)),
            *([] if train.start is None else [{"name": _named(train.start), "terms": "The licence of that model."}]),
        ],
        "free": drawn and train.start is None and not pretrained,
    }


def _experience(train: AnswererConfig, folder: Path) -> str:
    """Categories, partition, descriptions and crop, in one or two sentences."""
    trained = TrainedPoses.read(folder)
    names = sorted(set(trained.categories.values())) if trained else []
    rest = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    told = (
        f"It was trained on {len(names)} categories ({', '.join(names[:_MOST_SHOWN])}{rest}): only figures of "
        "others tell how it does on new ones."
    )
    texts, file = train.answerer.texts, texts_file(train)
    described = f"with the descriptions of the author {texts}"
    if texts is None or (texts == RULES and train.poses.own is not None):  # the rules know MP-100's sets alone
        described = "by names alone, without descriptions"
    if file is not None:
        digest = f", sha256 {file_sha256(file)[:16]}" if file.is_file() else ""
        described = f"with the descriptions of the file {file.name}{digest}"
    padding = json.loads(read_text(folder / "config.json")).get("crop_padding", 1.25)
    return f"{told} It is asked {described}, about crops of {padding:g} times the longer side of an object's box."


def _named(place: str | None) -> str | None:
    """A Hub repository or an author by its name, a file or folder of this machine by its last part."""
    if place is None:
        return None
    return Path(place).name if Path(place).exists() else place


def _base_terms(language: str, vision: str) -> list[dict[str, str]]:
    of_language = _LLAMA if "llama" in language.lower() else "The licence of that language model."
    of_vision = "Apache License 2.0." if "dinov2" in vision.lower() else "The licence of that vision model."
    return [
        {"name": str(_named(language)), "terms": of_language},
        {"name": str(_named(vision)), "terms": of_vision},
    ]


def _source(poses: KeypointFiles) -> tuple[str, str]:
    """What was learnt from, and its terms."""
    if poses.rows is not None:
        return "described points", "Those of the dataset and of the sources of its images."
    if poses.own is not None:
        return "keypoint files of its authors", "Images and annotations under the terms of their authors."
    return (
        f"MP-100, partition {poses.partition}",
        "For non-commercial research; its images come from thirteen datasets, each under terms of its own.",
    )


def select_pose_report(report: Any) -> dict[str, Any]:
    """What the card shows of a report of ``evaluate-poses``: averages, groups, trained categories, unparsed answers.

    Raises ``ValueError`` for anything else.
    """
    try:
        rows: list[list[float]] = []

        def row(found: Any) -> list[float]:
            rows.append([float(value) for value in found["cape"].values()] + [float(found["unparsed"])])
            return rows[-1]

        partitions = [
            {
                "partition": int(one["partition"]),
                "objects": int(one["objects"]),
                "points": int(one["points"]),
                "seen": len(one["seen_categories"]),
                "ways": {str(way): row(found) for way, found in one["answers"].items()},
                "groups": {
                    str(name): float(next(iter(group["answers"].values()))["pck@0.2"])
                    for name, group in one["groups"].items()
                },
            }
            for one in report["partitions"]
        ]
        if not partitions or {len(row) for row in rows} != {7}:
            raise ValueError("no partition with five thresholds")
        return {"texts": report.get("texts"), "split": str(report["split"]), "partitions": partitions}
    except (TypeError, KeyError, ValueError, AttributeError, StopIteration, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(f"it is no report of evaluate-poses ({reason})") from error
