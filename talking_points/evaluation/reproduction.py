"""The way from raw data to the paper's tables as a list of steps, and which of them are done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from talking_points.build_config import BuildConfig, dataset_settings
from talking_points.config import ConfigError, Section, fingerprint, load_config
from talking_points.evaluation.config import EvaluateConfig
from talking_points.models.weight_files import list_weights
from talking_points.training.config import TrainConfig
from talking_points.whole_files import read_json, write_json

Command = Literal[
    "convert-omg-llava", "build", "train-localizer", "train-descriptor", "adapt-descriptor", "evaluate", "tables"
]
CONFIGS: dict[Command, type[Section]] = {
    "build": BuildConfig,
    "train-localizer": TrainConfig,
    "train-descriptor": TrainConfig,
    "adapt-descriptor": TrainConfig,
    "evaluate": EvaluateConfig,
}
"""What the configuration of a step is; the others have none."""


class StepOfReproduction(Section):
    """One command of the way."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    run: Command
    config: str | None = None
    overrides: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _needs_a_config(self) -> StepOfReproduction:
        if (self.config is None) == (self.run in CONFIGS):
            needs = "needs a config" if self.run in CONFIGS else "takes no config"
            raise ValueError(f"step {self.name}: '{self.run}' {needs}")
        return self

    def settings(self) -> Any:
        """The loaded configuration; None for a step that has none."""
        kind = CONFIGS.get(self.run)
        return load_config(kind, self.config, self.overrides) if kind else None


class ReproduceConfig(Section):
    """All steps in their order."""

    output: Path = Field(description="folder for the marks of finished steps, and the tables")
    release: tuple[Path, ...] = Field(default=(), description="files of the official OMG-LLaVA release")
    converted: Path = Field(default=Path("build/omg-llava"), description="folder for the converted release")
    steps: tuple[StepOfReproduction, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> ReproduceConfig:
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            raise ValueError("two steps have one name")
        return self


def command_line(step: StepOfReproduction, config: ReproduceConfig) -> str:
    """The step as a person would type it."""
    if step.run == "convert-omg-llava":
        files = " ".join(map(str, config.release))
        return f"talking-points convert-omg-llava {files} --output {config.converted}"
    if step.run == "tables":
        return " ".join(["talking-points tables", str(config.output / "tables"), *map(str, report_folders(config))])
    return " ".join([f"talking-points {step.run} --config {step.config}", *(f"--set {o}" for o in step.overrides)])


def report_folders(config: ReproduceConfig) -> list[Path]:
    """The outputs of all evaluations, which the tables are made of."""
    return [step.settings().output for step in config.steps if step.run == "evaluate"]


def output_of(step: StepOfReproduction, config: ReproduceConfig, settings: Any) -> Path:
    """The file that is there when a step has been done."""
    if step.run == "convert-omg-llava":
        return config.converted / "config.json"
    if step.run == "build":
        return Path(settings.output) / "manifest.json"
    if step.run == "tables":
        return config.output / "tables" / "tables.md"
    if step.run == "evaluate":
        return Path(settings.output) / f"{next(iter(settings.sets))}.json"
    folder = {
        "train-localizer": lambda: settings.localizer.stage,
        "train-descriptor": lambda: "descriptor",
        "adapt-descriptor": lambda: f"adapted-{'-'.join(settings.keypoints.categories).lower()}",
    }[step.run]()
    return Path(settings.output) / folder / "stage.json"


def step_key(step: StepOfReproduction, settings: Any, before: str) -> str:
    """Names what a step makes: its settings, and the key of what was made before it."""
    if isinstance(settings, BuildConfig):
        own: Any = dataset_settings(settings)
    else:
        own = settings.model_dump(mode="json") if settings is not None else {}
    return fingerprint({"run": step.run, "settings": own, "before": before})


def is_done(step: StepOfReproduction, config: ReproduceConfig, settings: Any, key: str) -> bool:
    """Whether a step was finished with this key, and what it made is still there."""
    mark = _mark(step, config)
    if not mark.is_file() or not output_of(step, config, settings).is_file():
        return False
    found = read_json(mark, "remove it to run this step again")
    return isinstance(found, dict) and found.get("key") == key


def mark_done(step: StepOfReproduction, config: ReproduceConfig, key: str, result: Any) -> None:
    """Remember that a step was finished."""
    write_json(_mark(step, config), {"key": key, "result": result})


def check_reproduction(config: ReproduceConfig) -> None:
    """Raise ``InputError`` for a step whose configuration cannot be used, before the first one starts.

    Models and datasets that earlier steps make are looked for when their step comes; the release is looked for now.
    """
    for step in config.steps:
        step.settings()
    if any(step.run == "convert-omg-llava" for step in config.steps):
        missing = [str(path) for path in config.release if not path.exists()]
        done = (config.converted / "config.json").is_file()
        if not done and (missing or not config.release):
            raise ConfigError(
                f"expected the files of the OMG-LLaVA release at {', '.join(missing) or 'release: [...]'}, found none: "
                "'talking-points doctor --paper' says where they come from"
            )
        for path in () if done else config.release:
            list_weights(path)


def _mark(step: StepOfReproduction, config: ReproduceConfig) -> Path:
    return config.output / "done" / f"{step.name}.json"
