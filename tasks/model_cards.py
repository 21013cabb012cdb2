"""The cards of a run's models: written when it is judged, rendered for the Hub when it is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from talking_points.evaluation.retraining import Retraining
from talking_points.models.kinds import KINDS
from talking_points.publishing.model_card import render_model_card
from talking_points.training.config import TrainConfig
from talking_points.training.stages import dataset_digest
from talking_points.whole_files import read_json, write_json, write_text

CARDS = "cards.json"
"""What the cards of a run say, before it is put into words: the arguments of ``render_model_card``, by model."""


def write_model_cards(retraining: Retraining) -> None:
    """Write ``README.md`` of the run's models, from its configuration and its evaluation reports."""
    cards = {role: _content(retraining, role) for role in KINDS}
    write_json(retraining.run / CARDS, cards)
    for role, card in cards.items():
        write_text(retraining.run / role / "README.md", render_model_card(**card))


def hub_card(run: Path, role: str, repo: str) -> str:
    """The card of a model of a judged run as it stands in the repository ``repo``."""
    cards = read_json(run / CARDS, "remove the run's line from history.jsonl and run again to judge it anew")
    return render_model_card(**cards[role], repo=repo)


def _content(retraining: Retraining, role: str) -> dict[str, Any]:
    train = retraining.train
    again = "run again with the file removed: the run is then judged anew"
    reports = [read_json(retraining.evaluation / f"{name}.json", again) for name in KINDS[role].reports]
    for report in reports:
        del report["predictions"]
    dataset, revision = _dataset(train)
    return {
        "name": f"point-{role}-{train.preset}-{retraining.fingerprint}",
        "role": role,
        "config": _settings(train, role),
        "reports": reports,
        "dataset": dataset,
        "dataset_revision": revision,
        "base_model": _base_model(train),
        "curves": (retraining.run / role / "curves.png").exists(),
    }


def _settings(train: TrainConfig, role: str) -> dict[str, Any]:
    """What the weights depend on, without the places of this machine."""
    shared = {"preset", "image_size", "stem_stride", "vocabulary_size", "start_revision", "limit", "seed"}
    settings = train.model_dump(mode="json", include=shared | {role})
    if train.vision.steps:
        settings["vision"] = train.vision.model_dump(mode="json") | {"sources": sorted(train.vision.sources)}
    return settings


def _dataset(train: TrainConfig) -> tuple[str, str | None]:
    """Name and revision: of the Hub, or a built folder's own name and the digest of its rows."""
    folder = Path(train.dataset)
    if not folder.is_dir():
        return train.dataset, train.revision
    name = folder.name
    if (folder / "manifest.json").is_file():
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        drawn = all(source.get("drawn") for source in manifest["sources"].values())
        name = f"{manifest['name']}, built on drawn stand-ins for its sources," if drawn else manifest["name"]
    return name, dataset_digest(train.dataset, None)


def _base_model(train: TrainConfig) -> str:
    if train.start is None:
        return "random weights"
    return f"the checkpoint {Path(train.start).name}" if Path(train.start).exists() else train.start
