"""What a model's card says, before it is put into words: kept beside the model from the end of its training on.

``card.json`` in a model's folder holds the arguments of ``render_model_card``, so that the card can be rendered again
for a repository, with figures that came later. It names no folder of the machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from talking_points.errors import InputError
from talking_points.models.kinds import KINDS
from talking_points.publishing.model_card import render_model_card
from talking_points.training.made_once import read_finished
from talking_points.whole_files import advising, read_json, write_json, write_text

CONTENT = "card.json"
"""The arguments of ``render_model_card`` for the model beside it."""

STAGE = "stage.json"
"""What a finished stage of training says of itself."""

_AGAIN = "run the training command again, which writes the card anew"


def write_card(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``README.md`` and what it says into a model's folder. Raises ``TrainingStoppedError`` where it cannot."""
    text = render_model_card(**content)
    with advising(f"the card of the model in {folder}", f"the model itself is finished; make room and {_AGAIN}"):
        write_json(folder / CONTENT, content)
        write_text(folder / "README.md", text)


def render_content(content: Mapping[str, Any], repo: str, place: Path) -> str:
    """The card for a repository, from content that lies at ``place``. Raises ``InputError`` for what is none."""
    try:
        return render_model_card(**content, repo=repo)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, TemplateError) as error:
        raise InputError(f"the card of {place} cannot be written: {str(error)[:300]}; {_AGAIN}") from error


def read_content(folder: Path, role: str) -> dict[str, Any]:
    """The content of the card of a model's folder; of one without it, what its finished stage says.

    Raises ``InputError`` for a damaged one.
    """
    if (folder / CONTENT).is_file():
        content = read_json(folder / CONTENT, _AGAIN)
        if not isinstance(content, dict) or content.get("role") != role:
            raise InputError(f"{folder / CONTENT} is not that of a {KINDS[role].title}: {_AGAIN}")
        return content
    stage = read_finished(folder, _AGAIN) if (folder / STAGE).is_file() else {}
    return {
        "name": role if role == "segmenter" else f"point-{role}",
        "role": role,
        "training": {"seconds": stage.get("seconds"), "metrics": select_figures(stage.get("metrics", {}))},
        "curves": (folder / "curves.png").exists(),
    }


def select_figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among the values that a training logged last."""
    return {
        name: float(value) for name, value in metrics.items() if isinstance(value, int | float) and math.isfinite(value)
    }
