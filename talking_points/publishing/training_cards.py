"""What the card of a model says that a training has left: its settings, its data with their digest, its base, terms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from talking_points.dataset_manifest import dataset_digest, read_origin
from talking_points.publishing.card_content import select_figures
from talking_points.publishing.terms import TERMS, source_terms
from talking_points.sources.drawn import is_drawn
from talking_points.training.config import TrainConfig
from talking_points.training.segmenter_config import SegmenterConfig

ROLES = {
    "descriptor": "descriptor",
    "adapted": "descriptor",
    "localizer": "localizer",
    "segmenter": "segmenter",
    "refined": "segmenter",
}
"""Which kind of model a training stage leaves; the vision path alone is none."""

_CONTROL = "It is the text-only control: it has never seen an image, and guesses from the words."


def describe_training(train: TrainConfig, kind: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the card of the model that a training stage has left, from its configuration and its result."""
    role = ROLES[kind]
    if isinstance(train, SegmenterConfig):
        return _describe_segmenter(train, kind, result)
    content = {
        "name": f"point-{role}-{train.preset}-{result['fingerprint'][:12]}",
        "role": role,
        "config": select_settings(train, "adapt" if kind == "adapted" else role),
        "training": {"seconds": result.get("seconds"), "metrics": select_figures(result.get("metrics", {}))},
        "curves": (Path(result["path"]) / "curves.png").exists(),
        "note": _CONTROL if role == "localizer" and train.localizer.blind else None,
        **trace_origins(train),
    }
    if kind == "adapted":
        points = train.keypoints
        start = _named(train.descriptor_path, "the descriptor of the same configuration")
        of = f" of {', '.join(points.categories)}" if points.categories else ""
        content |= {
            "dataset": f"keypoints{of} from the source {points.source}, by the reward of a localizer",
            "dataset_revision": None,
            "base_model": start,
        }
        drawn = points.root is not None and is_drawn(points.root)
        content["terms"] = [*content["terms"], _terms_of_keypoints(points.source, drawn)]
        content["free"] = content["free"] and drawn and train.descriptor_path is None
    return content


def _describe_segmenter(train: SegmenterConfig, kind: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a segmenter, which learns from instructions."""
    root = train.instructions.root
    assert root is not None
    name, sources = _origin(root)
    for own, place in train.segmenter_vision.sources.items():
        sources[own] = sources.get(own, True) and is_drawn(place)
    if sources and all(sources.values()):
        name = f"{name}, built on drawn stand-ins for its sources,"
    base = "random weights" if train.start is None else _named(train.start, "")
    if kind == "refined":
        base = _named(train.segmenter_path, "the segmenter of the same configuration")
    sections = {"preset", "image_size", "stem_stride", "lattice", "vocabulary_size", "seed"}
    settings = train.model_dump(mode="json", include=sections | {"refine" if kind == "refined" else "segmenter"})
    return {
        "name": f"segmenter-{train.preset}-{result['fingerprint'][:12]}",
        "role": "segmenter",
        "config": settings,
        "training": {"seconds": result.get("seconds"), "metrics": select_figures(result.get("metrics", {}))},
        "curves": (Path(result["path"]) / "curves.png").exists(),
        "dataset": name,
        "dataset_revision": dataset_digest(str(root), None),
        "base_model": base,
        "terms": [
            {"name": TERMS[own].title, "terms": source_terms(own, drawn=drawn).terms}
            for own, drawn in sources.items()
            if own in TERMS
        ],
        "free": bool(sources) and all(sources.values()) and train.start is None and train.segmenter_path is None,
    }


def trace_origins(train: TrainConfig) -> dict[str, Any]:
    """What a model comes from, and under which terms that is: its dataset, with its digest, and its base."""
    dataset, revision = _dataset(train)
    sources = _sources(train)
    terms = [
        {"name": TERMS[name].title, "terms": source_terms(name, drawn=drawn).terms}
        for name, drawn in sources.items()
        if name in TERMS
    ]
    if not Path(train.dataset).is_dir():
        terms.append({"name": train.dataset, "terms": "The terms on the dataset's own card."})
    if train.start is not None:
        terms.append({"name": _base_model(train), "terms": "The licence of the checkpoint that training started from."})
    return {
        "dataset": dataset,
        "dataset_revision": revision,
        "base_model": _base_model(train),
        "terms": terms,
        "free": bool(sources) and all(sources.values()) and train.start is None and Path(train.dataset).is_dir(),
    }


def select_settings(train: TrainConfig, section: str) -> dict[str, Any]:
    """What the weights depend on, without the places of this machine."""
    shared = {"preset", "image_size", "stem_stride", "vocabulary_size", "start_revision", "limit", "seed"}
    settings = train.model_dump(mode="json", include=shared | {section})
    if train.vision.steps:
        settings["vision"] = train.vision.model_dump(mode="json") | {"sources": sorted(train.vision.sources)}
    return settings


def _sources(train: TrainConfig) -> dict[str, bool]:
    """The annotated datasets that the model has seen something of, and whether they are drawn stand-ins."""
    _, found = _origin(Path(train.dataset))
    if train.vision.steps:
        for name, root in train.vision.sources.items():
            found[name] = found.get(name, True) and is_drawn(root)
    return found


def _dataset(train: TrainConfig) -> tuple[str, str | None]:
    """Name and revision: of the Hub, or a built folder's own name and the digest of its rows."""
    folder = Path(train.dataset)
    if not folder.is_dir():
        return train.dataset, train.revision
    name, drawn = _origin(folder)
    if drawn and all(drawn.values()):
        name = f"{name}, built on drawn stand-ins for its sources,"
    return name, dataset_digest(train.dataset, None)


def _origin(folder: Path) -> tuple[str, dict[str, bool]]:
    """Name of a built dataset, and of its sources whether they are drawn; other makers' datasets may state neither."""
    return read_origin(folder) if (folder / "manifest.json").is_file() else (folder.name, {})


def _base_model(train: TrainConfig) -> str:
    return "random weights" if train.start is None else _named(train.start, "")


def _named(path: str | None, default: str) -> str:
    if path is None:
        return default
    return f"the checkpoint {Path(path).name}" if Path(path).exists() else path


def _terms_of_keypoints(source: str, drawn: bool) -> dict[str, str]:
    drawings = "Stand-in drawn by `talking-points draw-sample`: it holds none of its data."
    return {"name": source, "terms": drawings if drawn else "Images and annotations under the terms of their authors."}
