"""The first half of the pretraining of a small vision path: the backbone learns alone what lies where.

Most of what a vision path has to learn is in its backbone, and without the decoders an image costs a third. Each of
the coarser stages names the object and the part in every cell of one grid that is finer than the stage itself, as in
sub-pixel convolution (Shi et al. 2016): a visual token, which is one cell of the coarsest stage, then knows what lies
where within it. The heads are thrown away.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from talking_points.examples.labelled_images import (
    BOX_WEIGHT,
    LabelledImages,
    accuracy,
    box_errors,
    cell_middles,
    label_loss,
    main_regions,
    middles,
    mirror_boxes,
)
from talking_points.models.base import TalkingPointsModel
from talking_points.step_progress import follow
from talking_points.training.config import VisionConfig
from talking_points.training.optimizers import MuonAdamW, OneCycle
from talking_points.training.pretraining_state import PretrainingState


class DenseLabels(nn.Module):
    """The loss of all stages that are at least as coarse as the second one, whose grid is the one that is named."""

    def __init__(self, model: TalkingPointsModel, data: LabelledImages) -> None:
        super().__init__()
        self.backbone = model.vision.backbone
        self.data = data
        self.labels = (int(data.part.max()) + 1, int(data.object.max()) + 1)
        channels = model.config.vision_config.hidden_sizes[1:]
        self.heads = nn.ModuleList(
            nn.Conv2d(size, sum(self.labels) * 4**stage, 1) for stage, size in enumerate(channels)
        )
        self.box_head = nn.Linear(channels[-1], 16)
        self.boxes = torch.stack((data.boxes, mirror_boxes(data.boxes)))
        processor = model.image_processor
        self.register_buffer("mean", torch.tensor(processor.image_mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(processor.image_std).view(3, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, index: NDArray[np.intp], mirrored: NDArray[np.bool_]) -> tuple[Tensor, dict[str, float]]:
        """Loss of some images, some of them mirrored, and the accuracies of the coarsest stage."""
        flip = torch.from_numpy(mirrored)[:, None, None]
        pixels = torch.from_numpy(self.data.pixels[index]).permute(0, 3, 1, 2).float() / 255
        pixels = torch.where(flip[:, None], pixels.flip(-1), pixels)
        regions = torch.from_numpy(self.data.regions[index]).long()
        regions = torch.where(flip, regions.flip(-1), regions)
        stages = self.backbone((pixels - self.mean) / self.std)[1:]
        at_cells = middles(regions, stages[0].shape[-1])
        parts, objects = self.data.part[at_cells], self.data.object[at_cells]
        losses: list[Tensor] = []
        for stage, (features, head) in enumerate(zip(stages, self.heads, strict=True)):
            part, named = functional.pixel_shuffle(head(features), 2**stage).split(self.labels, 1)
            losses += [label_loss(part, parts), label_loss(named, objects)]
        cells = stages[-1].shape[-1]
        place = cell_middles(cells).repeat(len(index), 1)
        region = main_regions(at_cells, cells).flatten(1)
        box = self.box_head(stages[-1].flatten(2).mT)
        # Regions of mirrored images are rows of the second half of the table.
        row = torch.where(flip[:, 0] & (region > 0), region + len(self.data.boxes), region).flatten()
        errors = box_errors(box.flatten(0, 1), place, self.boxes.flatten(0, 1), row)
        losses.append(BOX_WEIGHT * errors.abs().mean())
        measured = {"backbone part": accuracy(part, parts), "backbone object": accuracy(named, objects)}
        measured["backbone box"] = float(errors.detach().abs().mean())
        return torch.stack(losses).sum(), measured


def pretrain_backbone(
    model: TalkingPointsModel,
    data: LabelledImages,
    config: VisionConfig,
    random: np.random.Generator,
    seen: NDArray[np.intp],
    held_out: NDArray[np.intp],
    checkpoint: Path | None = None,
) -> dict[str, float]:
    """Train the backbone in place for ``config.backbone_steps`` steps on the images ``seen``, given by number.

    Interrupted and called again with the same ``checkpoint``, a file, it goes on from there to the same weights.

    Returns accuracies in percent on the images ``held_out``. Raises ``TrainingStoppedError`` at a loss or gradient
    that is no number.
    """
    task = DenseLabels(model, data)
    model.requires_grad_(False)
    model.vision.backbone.requires_grad_(True)
    rate = config.backbone_learning_rate
    cycle = OneCycle(MuonAdamW(task, [task.heads, task.box_head], rate), rate, config.backbone_steps)
    size = min(config.backbone_batch_size, len(seen))
    device = next(task.parameters()).device.type
    state = PretrainingState(checkpoint, task, cycle, random)
    begun = state.read()
    with follow("backbone of the vision path", config.backbone_steps, begun) as progress:
        for step in range(begun, config.backbone_steps):
            index = random.choice(seen, size=size, replace=False)
            with torch.autocast(device, torch.bfloat16, enabled=config.backbone_bf16):
                loss, _ = task(index, random.random(size) < 0.5)
            cycle.step(loss, index)
            state.keep(step + 1, config.backbone_steps)
            progress.advance(loss=float(loss.detach()))
    with torch.no_grad():
        batches = np.array_split(held_out, -(-len(held_out) // size))
        measured = [task(batch, np.zeros(len(batch), bool))[1] for batch in batches]
    return {name: float(np.nanmean([values[name] for values in measured])) for name in measured[0]}
