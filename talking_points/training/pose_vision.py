"""Pretraining of a small vision model on keypoints, for answerers that start from random weights.

DINOv2 comes with features that tell a paw from an elbow; a small one that starts from nothing has to learn them. For
every labelled keypoint of a training crop it says by name which visual token shows it, and where in that token's cell;
every token also says which cell is its own. That is what the language model will have to read out of the tokens. The
heads are thrown away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LRScheduler
from transformers.utils.logging import tqdm

from talking_points.examples.conversations import ConversationSettings, draw_crop
from talking_points.examples.keypoints import PoseExample, PoseSet, mirror_example
from talking_points.examples.pose_files import DecodedImages
from talking_points.models.answerer import PointAnswerer
from talking_points.models.capellm.crops import normalise
from talking_points.tensor_files import load_pickled
from talking_points.training.answerer_config import PoseVisionConfig
from talking_points.training.optimizers import MuonAdamW, OneCycle
from talking_points.whole_files import going_on, writing_whole

CHECKPOINT_STEPS = 50
PLACE_WEIGHT = 0.2
"""Of saying which cell is one's own, which is soon learnt."""


class CellNames(nn.Module):
    """Which cell of the grid shows a keypoint of this name, and where in the cell it lies."""

    def __init__(self, model: PointAnswerer, names: list[str]) -> None:
        super().__init__()
        size = model.config.text_config.hidden_size
        self.model = model
        self.grid = math.isqrt(model.config.image_tokens)
        self.number = {name: index for index, name in enumerate(names)}
        self.names = nn.Embedding(len(names), size)
        self.offsets = nn.Embedding(len(names), 2 * size)
        self.place = nn.Linear(size, 2 * self.grid)
        nn.init.normal_(self.names.weight, std=size**-0.5)
        nn.init.normal_(self.offsets.weight, std=size**-0.5)

    def forward(self, pixels: Tensor, owner: Tensor, name: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and the predicted places (M, 2), for keypoints with places (M, 2) in shares of the crop."""
        tokens = functional.layer_norm(self.model.image_tokens(pixels), (self.names.embedding_dim,))
        seen = tokens[owner]
        scores = torch.einsum("mnd,md->mn", seen, self.names(name))
        cell = (places * self.grid).long().clamp(max=self.grid - 1)
        index = cell[:, 1] * self.grid + cell[:, 0]
        found = seen[torch.arange(len(index)), index]
        inside = torch.einsum("md,mcd->mc", found, self.offsets(name).unflatten(1, (2, -1)))
        wanted = places * self.grid - cell - 0.5
        loss = functional.cross_entropy(scores, index) + 2 * (inside - wanted).abs().mean()
        loss = loss + PLACE_WEIGHT * self._place_loss(tokens)
        best = scores.argmax(-1)
        return loss, (torch.stack((best % self.grid, best // self.grid), -1) + 0.5) / self.grid

    def _place_loss(self, tokens: Tensor) -> Tensor:
        """Cross-entropy of the column and the row that tokens (B, grid * grid, D) give as their own."""
        own = torch.arange(self.grid, device=tokens.device)
        places = self.place(tokens).unflatten(-1, (2, self.grid)).flatten(0, 2)
        return functional.cross_entropy(places, torch.cartesian_prod(own, own).flip(1).flatten().repeat(len(tokens)))


def pretrain_pose_vision(
    model: PointAnswerer,
    poses: PoseSet,
    settings: ConversationSettings,
    config: PoseVisionConfig,
    memory_gb: float = 1.5,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> dict[str, float]:
    """Train the model's vision and projector in place for ``config.steps`` steps.

    Interrupted and called again with the same ``checkpoint``, a file, it goes on from there to the same weights.

    Returns what the oracle of the visual tokens reaches on the last crops: the percentage of keypoints that lie within
    0.1 of the crop from the middle of the cell that is named. Raises ``TrainingStoppedError`` at a loss that is no
    number.
    """
    names = sorted({name for example in poses.examples for name in example.keypoints.names})
    torch.manual_seed(seed)
    task = CellNames(model, names)
    model.requires_grad_(False)
    for part in (model.vision, model.projector):
        part.requires_grad_(True)
    optimizer = MuonAdamW(task, [model.projector], config.learning_rate)
    cycle = OneCycle(optimizer, config.learning_rate, config.steps)
    images = DecodedImages(poses, memory_gb * 1e9)
    state = _Progress(task, optimizer, cycle.schedule)
    begun = state.read(checkpoint)
    task.train()
    near: list[float] = state.near
    last = max(1, config.steps // 20)
    for step in tqdm(range(begun, config.steps), "vision on keypoints", disable=None):
        chosen = np.random.default_rng((seed, step)).choice(
            len(poses), min(config.batch_size, len(poses)), replace=False
        )
        batch = [poses.examples[index] for index in chosen]
        crops, owner, name, places = keypoint_batch(batch, images, settings, step, task.number)
        pixels = torch.from_numpy(normalise(crops, model.config.image_mean, model.config.image_std))
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            loss, found = task(pixels.to(model.device), owner, name, places)
        cycle.step(loss, chosen.tolist())
        if step >= config.steps - last:
            near.append(float(((found - places).norm(dim=-1) < 0.1).float().mean()))
        if checkpoint is not None and (step + 1) % CHECKPOINT_STEPS == 0:
            state.write(checkpoint, step + 1)
    model.eval().requires_grad_(True)
    return {"near_percent": 100 * float(np.mean(near))}


@dataclass
class _Progress:
    """What a pretraining goes on from: weights, optimizer, learning rates, and the last steps' figures."""

    task: CellNames
    optimizer: MuonAdamW
    schedule: LRScheduler
    near: list[float] = field(default_factory=list)

    def write(self, path: Path, steps: int) -> None:
        with writing_whole(path) as temporary:
            parts = {name: part.state_dict() for name, part in self._parts().items()}
            torch.save({**parts, "steps": steps, "near": self.near}, temporary)

    def read(self, path: Path | None) -> int:
        """Take up what a file holds; returns how many steps were made."""
        if path is None or not path.is_file():
            return 0
        with going_on(path, "remove the file to begin anew"):
            found = load_pickled(path)
            for name, part in self._parts().items():
                part.load_state_dict(found[name])
            self.near[:] = found["near"]
            return int(found["steps"])

    def _parts(self) -> dict[str, Any]:
        return {"task": self.task, "optimizer": self.optimizer, "schedule": self.schedule}


def keypoint_batch(
    batch: list[PoseExample],
    images: DecodedImages,
    settings: ConversationSettings,
    epoch: int,
    number: dict[str, int],
) -> tuple[list[NDArray[np.uint8]], Tensor, Tensor, Tensor]:
    """Augmented crops, and of the keypoints in them the crop, the name's number and the place in shares of the crop."""
    crops, owner, name, places = [], [], [], []
    for row, example in enumerate(batch):
        crop, flip = draw_crop(example, settings, epoch, -1)
        seen = mirror_example(example) if flip else example
        pixels = images[example.image]
        crops.append(crop.warp(np.ascontiguousarray(pixels[:, ::-1]) if flip else pixels))
        inside = np.flatnonzero(crop.contains(seen.points) & seen.visible)
        owner += [row] * len(inside)
        name += [number[seen.keypoints.names[index]] for index in inside]
        places.append(crop.forward(seen.points[inside]) / crop.size)
    where = torch.from_numpy(np.concatenate(places)).float().clamp(0, 1 - 1e-6)
    return crops, torch.tensor(owner, dtype=torch.long), torch.tensor(name, dtype=torch.long), where
