"""The cards of models: written when a training ends, again when a run is judged, and for the Hub when published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from talking_points.errors import InputError
from talking_points.models.kinds import RETRAINED
from talking_points.publishing.answerer_cards import describe_answerer
from talking_points.publishing.card_content import render_content, write_card
from talking_points.publishing.training_cards import ROLES, describe_training, select_settings, trace_origins
from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.config import TrainConfig
from talking_points.whole_files import read_json, write_json

if TYPE_CHECKING:
    from talking_points.evaluation.retraining import Retraining

CARDS = "cards.json"
"""What the cards of a run say, before it is put into words: the arguments of ``render_model_card``, by model."""


def train_with_card(kind: str, train: TrainConfig, name: str | None = None) -> dict[str, Any]:
    """``run_stage``, and the card of the model that it has left; a card that is there is of the same weights."""
    from talking_points.training.stages import run_stage

    result = run_stage(kind, train, name)
    folder = Path(result["path"])
    if result["reused"] and (folder / "README.md").is_file():
        return result
    if isinstance(train, AnswererConfig) and kind == "answerer":
        write_card(folder, describe_answerer(train, result))
    elif kind in ROLES:
        write_card(folder, describe_training(train, kind, result))
    return result


def write_model_cards(retraining: Retraining) -> None:
    """Write ``README.md`` of the run's models, from its configuration and its evaluation reports."""
    cards = {role: _content(retraining, role) for role in RETRAINED}
    write_json(retraining.run / CARDS, cards)
    for role, card in cards.items():
        write_card(retraining.run / role, card)


def hub_card(run: Path, role: str, repo: str) -> str:
    """The card of a model of a judged run as it stands in the repository ``repo``."""
    again = "remove the run's line from history.jsonl and run again to judge it anew"
    cards = read_json(run / CARDS, again)
    if not isinstance(cards, dict) or not isinstance(cards.get(role), dict):
        raise InputError(f"{run / CARDS} has no card of a {role}: {again}")
    return render_content(cards[role], repo, run / role)


def _content(retraining: Retraining, role: str) -> dict[str, Any]:
    train = retraining.train
    again = "run again with the file removed: the run is then judged anew"
    reports = [read_json(retraining.evaluation / f"{name}.json", again) for name in RETRAINED[role].reports]
    for report in reports:
        del report["predictions"]
    return {
        "name": f"point-{role}-{train.preset}-{retraining.fingerprint}",
        "role": role,
        "config": select_settings(train, role),
        "reports": reports,
        "curves": (retraining.run / role / "curves.png").exists(),
        **trace_origins(train),
    }
