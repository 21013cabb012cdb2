"""What a training would take, before it is begun: steps, samples, hours and memory, from stated assumptions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from talking_points.config import ConfigError
from talking_points.dataset_files import dataset_names, open_parquet
from talking_points.examples.config import KeypointsConfig
from talking_points.examples.points import COLUMNS
from talking_points.hub_sizes import WEIGHTS, to_download
from talking_points.sources.ap10k import Ap10k
from talking_points.sources.coco_parts import BadAnnotationError
from talking_points.sources.keypoint_annotations import raw_keypoints
from talking_points.sources.labels import ap10k_families
from talking_points.training.checkpoints import checkpoint_step, last_checkpoint
from talking_points.training.config import AdaptConfig, RolloutStage, StageConfig, TrainConfig, VisionConfig
from talking_points.training.made_once import FINISHED, STARTED, refuse_other_settings

RATES = {
    "paper": {"localizer": 36.0, "descriptor": 36.0, "adapted": 27.0, "localizing": 68.0, "describing": 30.0},
    "tiny": {"localizer": 46.0, "descriptor": 40.0, "adapted": 12.0, "localizing": 200.0, "describing": 50.0},
}
"""Samples per second: of the 7B on one H100 at half of its arithmetic peak and three quarters of its bandwidth, which
is reckoned and not measured (``benchmarks/training.py`` measures it); of the tiny models, measured on one core in
float32."""

VISION_RATE, BACKBONE_RATE = 14.0, 40.0
"""Images per second of one core while the tiny preset's vision path, and its backbone alone, are pretrained."""

IMAGE_BYTES = {"paper": 12e6, "tiny": 0.2e6}
"""Of one image's cached features, in float32; half of it in bfloat16."""

ASSUMPTIONS = {
    "paper": "time: one H100 at 50 % of 989 TFLOP/s and 75 % of 3.35 TB/s, image features cached; reckoned, not "
    "measured: 'python benchmarks/training.py --sizes 7b' measures it. Reading images the first time comes on top",
    "tiny": "time: one core of this kind of machine, as measured: 46 samples a second (localizer), 40 (descriptor), "
    "12 sampled descriptions (adaptation), 14 images (vision path); two cores take a little more than half",
}
TINY_SIZE = (5_000_000, 4_000_000, 2 * 2**30)
"""Parameters of the tiny preset's models, those in training, and the memory of the whole process, all rounded up."""


@dataclass(frozen=True)
class StagePlan:
    """One stage. ``points``, ``steps``, ``samples`` and ``hours`` are None where the dataset is not here yet.

    ``state`` says what is there of it already.
    """

    name: str
    points: int | None
    steps: int | None
    samples: int | None
    hours: float | None
    state: str


def count_rows(dataset: str, split: str, columns: Iterable[str]) -> int | None:
    """Rows of a split of a dataset in a folder, its schema checked; None for a repository. Raises ``ConfigError``."""
    root = Path(dataset)
    if not root.is_dir():
        return None
    names = dataset_names(root, f"data/{split}-*.parquet")
    if not names:
        raise ConfigError(f"cannot read split '{split}' of the dataset {root}: no file data/{split}-*.parquet in it")
    rows = 0
    for name in names:
        with open_parquet(root / name, tuple(columns)) as file:
            rows += file.metadata.num_rows
    return rows


def plan_training(kind: str, config: TrainConfig) -> list[StagePlan]:
    """The stages that a training of ``kind`` (localizer, descriptor, adapted) goes through. Raises ``ConfigError``."""
    if kind == "adapted":
        from talking_points.training.stages import STAGES  # imports transformers, which takes seconds

        points = count_keypoints(config.keypoints)
        if points is not None:
            points = min(points, config.keypoints.limit or points)
        return [_stage(kind, STAGES[kind].folder(config), config, config.adapt, points)]
    stage = config.localizer if kind == "localizer" else config.descriptor
    rows = count_rows(config.dataset, "train", [*COLUMNS, stage.text, "image"])
    if not stage.validation:
        count_rows(config.dataset, "test", [*COLUMNS, stage.text, "image"])
    if rows is not None and config.limit is not None:
        rows = min(rows, config.limit)
    plans = []
    blind = kind == "localizer" and config.localizer.blind
    if config.vision.steps and not blind:
        plans.append(_vision(config))
    name = config.localizer.stage if kind == "localizer" else "descriptor"
    return [*plans, _stage(kind, name, config, stage, rows)]


def steps_of(stage: StageConfig, points: int | None) -> int | None:
    """Optimizer steps for so many points. Points that share an image may fill fewer batches than is reckoned here."""
    if stage.max_steps is not None:
        return stage.max_steps
    if points is None:
        return None
    if isinstance(stage, RolloutStage):  # whose batches all processes share
        batches = stage.updates * math.ceil(points / stage.batch_size)
    else:
        batches = math.ceil(points / (stage.batch_size * stage.processes))
    return math.ceil(stage.epochs * math.ceil(batches / stage.accumulation))


def downloads(config: TrainConfig) -> dict[str, int | None]:
    """Bytes to be fetched from the Hub, by what they are; None where nobody tells."""
    found = {}
    if not Path(config.dataset).is_dir() and not config.streaming:
        found[f"dataset {config.dataset}"] = to_download(config.dataset, "dataset", ["data/*.parquet"], config.revision)
    if config.start and not Path(config.start).is_dir():
        found[f"model {config.start}"] = to_download(config.start, "model", WEIGHTS, config.start_revision)
    return found


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a model, those that a stage trains, and the bytes of memory that training takes.

    ``exact`` tells what was counted on the model from what is known of the tiny preset.
    """

    parameters: int
    trained: int
    memory: int
    exact: bool

    def disk(self, config: TrainConfig, images: int) -> float:
        """Bytes that a stage writes: cached features, the model, checkpoints with Adam's moments."""
        each = IMAGE_BYTES[config.preset] / (2 if config.features.dtype == "bfloat16" else 1)
        features = min(images * each, config.features.limit_gb * 1e9)
        model = (2 if config.preset == "paper" else 4) * self.parameters
        return features + model + (config.descriptor.keep + 1) * (model + 8 * self.trained)


def model_size(kind: str, config: TrainConfig) -> ModelSize:
    """Size of the model that a stage trains, counted without allocating it where it starts from a checkpoint's folder
    or from the paper's preset."""
    stage = {"localizer": config.localizer, "descriptor": config.descriptor, "adapted": config.adapt}[kind]
    if config.preset == "tiny" and not config.start:
        return ModelSize(*TINY_SIZE, exact=False)
    # Only here: transformers takes seconds to import.
    from talking_points.models.configuration import TalkingPointsConfig
    from talking_points.models.descriptor import PointDescriptor
    from talking_points.models.localizer import PointLocalizer
    from talking_points.models.omg_llava.memory import on_meta
    from talking_points.models.omg_llava.memory import plan_training as plan_memory

    model_kind = PointLocalizer if kind == "localizer" else PointDescriptor
    start = config.start or ""
    settings = model_kind.read_config(start) if start and Path(start).is_dir() else TalkingPointsConfig()
    for name, value in stage.model.items():
        setattr(settings, name, value)
    model = on_meta(model_kind, settings)
    trained = set(model.prepare_training())
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    memory = plan_memory(model, stage.batch_size).total
    return ModelSize(sum(counts.values()), sum(counts[name] for name in trained), memory, exact=True)


def count_keypoints(keypoints: KeypointsConfig) -> int | None:
    """Labelled keypoints of families of AP-10K, no image decoded; None for what is told by images alone.

    Raises ``SourceError``.
    """
    wanted = set(keypoints.categories)
    if keypoints.source != "ap10k" or keypoints.root is None or not wanted <= set(ap10k_families().values()):
        return None
    families = ap10k_families()
    source = Ap10k(keypoints.root, keypoints.split, families=sorted(wanted) or None)
    found = 0
    for entry in source.entries():
        for annotation in entry.annotation["annotations"]:
            if not wanted or families.get(annotation["category_id"]) in wanted:
                with suppress(BadAnnotationError):
                    found += sum(labelled for _, _, labelled in raw_keypoints(annotation))
    return found


def _stage(kind: str, name: str, config: TrainConfig, stage: StageConfig, points: int | None) -> StagePlan:
    if points is not None and stage.validation:
        points = max(1, round(points * (1 - stage.validation)))
    steps = steps_of(stage, points)
    group = stage.group if isinstance(stage, AdaptConfig) else 1
    samples = None if steps is None else steps * stage.batch_size * stage.processes * stage.accumulation * group
    state, left = stage_state(kind, config, config.output / name, steps)
    hours = None
    if samples is not None:
        hours = left * samples / (RATES[config.preset][kind] * stage.processes) / 3600
    return StagePlan(name, points, steps, samples, hours, state)


def _vision(config: TrainConfig) -> StagePlan:
    vision: VisionConfig = config.vision
    samples = vision.steps * vision.batch_size
    backbone = vision.backbone_steps * vision.backbone_batch_size
    state, left = stage_state("vision", config, config.output / "vision", vision.steps)
    hours = left * (samples / VISION_RATE + backbone / BACKBONE_RATE) / 3600
    return StagePlan("vision", None, vision.steps + vision.backbone_steps, samples + backbone, hours, state)


def stage_state(kind: str, config: TrainConfig, folder: Path, steps: int | None) -> tuple[str, float]:
    """What is there of a stage, and the share of its steps that is left. Raises ``ConfigError`` for another's."""
    if (folder / STARTED).is_file():
        from talking_points.training.stages import stage_settings  # imports transformers, which takes seconds

        refuse_other_settings(folder, stage_settings(config, kind))
    if (folder / FINISHED).is_file():
        return "made before", 0.0
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        return "to be made", 1.0
    done = checkpoint_step(checkpoint)
    return f"goes on from step {done:,}", max(0.0, 1 - done / steps) if steps else 1.0
