"""The two stages of an answerer's training: its small vision model on keypoints, then the whole on conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from talking_points.examples.keypoints import PoseSet
from talking_points.examples.pose_files import TrainedPoses, annotations_digest, hold_out, open_poses, texts_for
from talking_points.models.answerer import PointAnswerer
from talking_points.processes import process_state
from talking_points.tensor_files import load_tensors, save_tensors
from talking_points.training.answerer import conversation_settings, start_answerer, train_answerer
from talking_points.training.answerer_config import AnswererConfig, texts_file
from talking_points.training.pose_vision import pretrain_pose_vision
from talking_points.whole_files import advising, file_sha256

_PARTS = ("vision", "projector")


def pose_data(config: AnswererConfig) -> dict[str, Any]:
    """Names what is learnt from: annotation files, and the file of texts."""
    found: dict[str, Any] = dict(annotations_digest(config.poses))
    texts = texts_file(config)
    if texts is not None:
        found["texts"] = file_sha256(texts) if texts.is_file() else None
    return found


def pretrain_pose_vision_stage(config: Any, folder: Path) -> dict[str, float]:
    """The vision model and the projector that an answerer starts from: ``vision.safetensors``."""
    poses = training_poses(config)[0]
    model = _started(config, poses)
    settings = conversation_settings(model.config, config.answerer, config.seed)
    checkpoint = folder / "checkpoint.pt"
    found = pretrain_pose_vision(
        model, poses, settings, config.pose_vision, config.answerer.memory_gb, config.seed, checkpoint
    )
    path = folder / "vision.safetensors"
    with advising(str(path), "make room and run again to train it anew"):
        kept = {name: value for name, value in model.state_dict().items() if name.split(".")[0] in _PARTS}
        save_tensors({name: value.contiguous() for name, value in kept.items()}, path)
        checkpoint.unlink(missing_ok=True)
    return found


def train_answerer_stage(config: Any, folder: Path) -> dict[str, float]:
    """The answerer, or its blind twin."""
    train, held_out = training_poses(config)
    model = _started(config, train)
    if config.pose_vision.steps and not config.answerer.blind:
        weights = load_tensors(config.output / "pose-vision" / "vision.safetensors")
        model.load_state_dict(weights, strict=False)
    texts = texts_for(train, config.answerer.texts)
    if process_state().is_main_process:
        TrainedPoses.of(train).write(folder)
    return train_answerer(model, train, held_out, texts, config.answerer, folder, config.seed)


def training_poses(config: AnswererConfig) -> tuple[PoseSet, PoseSet | None]:
    """What is trained on, and what the running metric is taken on: a share of the images, or the val categories."""
    poses = open_poses(config.poses, "train", config.seed)
    if config.answerer.validation:
        return hold_out(poses, config.answerer.validation, config.seed)
    return poses, None


def _started(config: AnswererConfig, poses: PoseSet) -> PointAnswerer:
    texts = texts_for(poses, config.answerer.texts)
    names = {name for example in poses.examples for name in example.keypoints.names}
    return start_answerer(config, [*texts.values(), *names])
