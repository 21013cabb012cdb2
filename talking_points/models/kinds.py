"""The kinds of models that a run trains, as one table: a further one is a row here, a section of ``TrainConfig`` of the
same name, and a row in ``training.stages.STAGES``. Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelKind:
    """One kind.

    class_name: as ``architectures`` in a model's config.json names it.
    title: in words. command: what trains one. pipeline: the task of the Hub that it belongs to.
    reports: the evaluation reports in its card, the main one first.
    """

    class_name: str
    title: str
    command: str
    pipeline: str
    reports: tuple[str, ...]


KINDS = {
    "descriptor": ModelKind(
        "PointDescriptor", "Point Descriptor", "train-descriptor", "image-to-text", ("descriptor", "ground_truth")
    ),
    "localizer": ModelKind(
        "PointLocalizer", "Point Localizer", "train-localizer", "keypoint-detection", ("ground_truth", "descriptor")
    ),
    "answerer": ModelKind("PointAnswerer", "Point Answerer", "train-answerer", "keypoint-detection", ()),
    "segmenter": ModelKind("Segmenter", "Segmenter", "train-segmenter", "image-segmentation", ()),
}
"""By the name of the stage, of the configuration's section and of the folder below the output."""

RETRAINED = {role: kind for role, kind in KINDS.items() if kind.reports}
"""Those that a run of retraining makes, judges and describes in a card."""


def find_kind(class_name: str) -> ModelKind | None:
    """The kind whose class this is."""
    return next((kind for kind in KINDS.values() if kind.class_name == class_name), None)
