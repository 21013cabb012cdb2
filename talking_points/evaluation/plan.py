"""What an evaluation would take, before it is begun: points, passes of models, hours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from talking_points.evaluation.config import EvaluateConfig
from talking_points.examples.points import COLUMNS
from talking_points.hub_sizes import WEIGHTS, to_download
from talking_points.regular_files import read_text
from talking_points.training.plan import RATES, count_keypoints, count_rows

ASSUMPTION = (
    "time: as many points a second as 'train-localizer --dry-run' states of the models' size; reading each image the "
    "first time, and models that are asked over a server, come on top"
)


@dataclass(frozen=True)
class SetPlan:
    """One set of descriptions: who writes them, how often the localizers run over all points, and the hours."""

    name: str
    author: str
    points: int | None
    passes: int
    hours: float | None


def plan_evaluation(config: EvaluateConfig) -> list[SetPlan]:
    """One row per set, in the order of the configuration. Raises ``ConfigError``."""
    if config.keypoints is not None:
        points = count_keypoints(config.keypoints)
    else:
        assert config.dataset is not None
        points = count_rows(config.dataset, config.split, [*COLUMNS, "description", "image"])
    if points is not None and config.limit is not None:
        points = min(points, config.limit)
    rates = RATES[model_preset(config.localizer)]
    # The set itself, the same texts in other images, and the localizer that sees none.
    passes = 2 + (config.text_only is not None)
    plans = []
    for name, source in config.sets.items():
        author = "the dataset"
        seconds = passes / rates["localizing"]
        if source.descriptor is not None:
            author, seconds = source.descriptor, seconds + 1 / rates["describing"]
        elif source.file is not None:
            author = str(source.file)
        elif source.backend is not None:
            author = f"{source.backend.backend}: {source.backend.model}"
        plans.append(SetPlan(name, author, points, passes, None if points is None else points * seconds / 3600))
    return plans


def evaluation_downloads(config: EvaluateConfig) -> dict[str, int | None]:
    """Bytes to be fetched from the Hub, by what they are; None where nobody tells."""
    models = [config.localizer, config.text_only, *(source.descriptor for source in config.sets.values())]
    found = {
        f"model {name}": to_download(name, "model", WEIGHTS) for name in models if name and not Path(name).is_dir()
    }
    if config.dataset and not Path(config.dataset).is_dir():
        found[f"dataset {config.dataset}"] = to_download(
            config.dataset, "dataset", [f"data/{config.split}-*.parquet"], config.revision
        )
    return found


def model_preset(name: str) -> str:
    """``tiny`` or ``paper``, by the width of a model's language model; one that is not here yet counts as large."""
    try:
        settings = json.loads(read_text(Path(name) / "config.json"))
        return "tiny" if int(settings["text_config"]["hidden_size"]) < 1024 else "paper"
    except (OSError, ValueError, LookupError, TypeError):
        return "paper"
