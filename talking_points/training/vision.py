"""Pretraining of a small vision path on part masks, in place of OMG-Seg's.

A model that starts from random weights has a vision path that knows nothing, and it is frozen in all later stages.
As OMG-Seg's, it learns to segment: object queries find objects (Mask2Former, Cheng et al. 2022) and every cell of the
mask features names its part. Besides, every visual token and the query of a point, confined to its Gaussian, learn
the object and the part that they lie on with both boxes, and the point's query the colour there and how it lies in
its part and its object: what a description speaks of. The heads of these tasks are thrown away.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
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
    relative_places,
)
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.omg_llava.positions import box_positions
from talking_points.step_progress import follow
from talking_points.training.backbone import pretrain_backbone
from talking_points.training.config import VisionConfig
from talking_points.training.optimizers import MuonAdamW, OneCycle
from talking_points.training.pretraining_state import BACKBONE_CHECKPOINT, CHECKPOINT, PretrainingState

POINTS_PER_IMAGE = 24
GRID = 32
"""Places along each side of the frame that position codes are whitened over."""


class PartTasks(nn.Module):
    """The losses over one vision path, with their heads."""

    def __init__(self, model: PointDescriptor, data: LabelledImages) -> None:
        super().__init__()
        config = model.config
        self.model = model
        self.data = data
        size, self.parts, self.objects = config.decoder_size, int(data.part.max()) + 1, int(data.object.max()) + 1
        self.pixel_head = nn.Conv2d(size, self.parts, 1)
        self.token_head = nn.Linear(config.visual_token_size, self.parts + self.objects + 16)
        self.point_head = nn.Linear(size, self.parts + self.objects + 16 + 3 + 6)
        self.query_head = nn.Linear(size, self.objects + 4)
        processor = model.image_processor
        self.register_buffer("mean", torch.tensor(processor.image_mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(processor.image_std).view(3, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, index: NDArray[np.intp], random: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of some images; the accuracy of each task on what is not background, and errors of boxes."""
        pixels = torch.from_numpy(self.data.pixels[index]).permute(0, 3, 1, 2).float() / 255
        regions = torch.from_numpy(self.data.regions[index]).long()
        features = self.model.encode_pixels((pixels - self.mean) / self.std)
        assert features.mask_features is not None
        at_cells = middles(regions, features.mask_features.shape[-1])
        named = {"pixel part": (self.pixel_head(features.mask_features), self.data.part[at_cells])}
        boxes = {}

        tokens = features.visual_tokens[..., : self.model.config.visual_token_size]
        side = round(tokens.shape[1] ** 0.5)
        at_tokens = main_regions(at_cells, side).flatten()
        part, obj, box = self.token_head(tokens.flatten(0, 1)).split((self.parts, self.objects, 16), 1)
        named["token part"] = (part, self.data.part[at_tokens])
        named["token object"] = (obj, self.data.object[at_tokens])
        boxes["token box"] = box_errors(box, cell_middles(side).repeat(len(index), 1), self.data.boxes, at_tokens)

        points, owner = _points(regions, random)
        at_points = regions[owner, points[:, 1].long(), points[:, 0].long()]
        queries = self.model.encode_points(features, points, owner)[:, : self.model.config.decoder_size]
        answers = self.point_head(queries).split((self.parts, self.objects, 16, 3, 6), 1)
        part, obj, box, colour, relative = answers
        named["point part"] = (part, self.data.part[at_points])
        named["point object"] = (obj, self.data.object[at_points])
        places = points / pixels.shape[-1]
        boxes["point box"] = box_errors(box, places, self.data.boxes, at_points)
        boxes["point place"] = relative - relative_places(places, self.data.boxes[at_points])
        around = functional.avg_pool2d(pixels, 4)
        boxes["point colour"] = colour - around[owner, :, points[:, 1].long() // 4, points[:, 0].long() // 4]

        losses = [label_loss(logits, labels) for logits, labels in named.values()]
        losses += [BOX_WEIGHT * errors.abs().mean() for errors in boxes.values()]
        losses.append(self._object_loss(features, at_cells))
        measured = {name: accuracy(logits, labels) for name, (logits, labels) in named.items()}
        errors = {name: float(errors.detach().abs().mean()) for name, errors in boxes.items()}
        return torch.stack(losses).sum(), measured | errors

    def _object_loss(self, features: VisionFeatures, regions: Tensor) -> Tensor:
        """Set prediction: every object of an image is matched with the query that fits it best, the others are void.

        ``regions`` (B, h, w) at the cells of the mask features.
        """
        assert features.mask_features is not None
        decoder = self.model.vision.query_decoder
        queries = features.object_queries[..., : self.model.config.decoder_size]
        logits = decoder.mask_logits(queries, features.mask_features).flatten(2)
        classes, boxes = self.query_head(decoder.post_norm(queries)).split((self.objects, 4), -1)
        labels = torch.zeros(classes.shape[:2], dtype=torch.long)
        losses = []
        for row, image in enumerate(regions.flatten(1)):
            instances, first = np.unique(self.data.instance[image].numpy(), return_index=True)
            found = image[torch.from_numpy(first[instances > 0])]
            if not len(found):
                continue
            masks = (self.data.instance[image] == self.data.instance[found][:, None]).float()
            wanted, corners = self.data.object[found], self.data.boxes[found, :4]
            with torch.no_grad():
                cost = _mask_costs(logits[row], masks) - classes[row].softmax(-1)[:, wanted]
                cost += BOX_WEIGHT * torch.cdist(boxes[row], corners, p=1) / 4
            # Costs that are no numbers cannot be matched; the loss, which is none then either, tells of them.
            matched = linear_sum_assignment(np.nan_to_num(cost.numpy()))
            chosen, order = (torch.from_numpy(side) for side in matched)
            labels[row, chosen] = wanted[order]
            losses.append(_mask_costs(logits[row, chosen], masks[order]).diagonal().mean())
            losses.append(BOX_WEIGHT * (boxes[row, chosen] - corners[order]).abs().mean())
        named = label_loss(classes.flatten(0, 1), labels.flatten())
        return named + torch.stack(losses).sum() / max(1, len(regions)) if losses else named


def _mask_costs(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy plus Dice of every mask logit (Q, K) with every mask (O, K): (Q, O)."""
    entropy = functional.softplus(logits).mean(1, keepdim=True) - logits @ masks.T / logits.shape[1]
    inside = logits.sigmoid()
    dice = 1 - (2 * inside @ masks.T + 1) / (inside.sum(1, keepdim=True) + masks.sum(1) + 1)
    return entropy + dice


def _points(regions: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random points on parts, every part as likely: (M, 2) in pixels of the frame, and the image of each."""
    points, owner = [], []
    for row, image in enumerate(regions.numpy()):
        present = np.unique(image[image > 0])
        for region in random.choice(present, POINTS_PER_IMAGE) if len(present) else ():
            ys, xs = np.nonzero(image == region)
            chosen = random.integers(len(xs))
            points.append((float(xs[chosen]), float(ys[chosen])))
            owner.append(row)
    return torch.tensor(points).reshape(-1, 2), torch.tensor(owner, dtype=torch.long)


@torch.no_grad()
def spread_positions(model: PointDescriptor) -> None:
    """Start the map of position codes so that it whitens them: components of equal spread over all places of a frame.

    The code itself is nearly the same everywhere: most of its numbers are slow waves or speak of the box's size. A
    language model that starts from nothing would hardly see the rest in the token that tells it where a point is.
    """
    config, layer = model.config, model.vision.pos_linear
    places = torch.cartesian_prod(*(torch.linspace(0, 1, GRID),) * 2)
    sides = torch.full_like(places, 2 * config.prompt_box_half_side / config.image_size)
    codes = box_positions(torch.cat((places, sides), 1), config.decoder_size // 2).double()
    middle = codes.mean(0)
    _, sizes, directions = torch.linalg.svd(codes - middle, full_matrices=False)
    spread = sizes[: layer.out_features] / len(codes) ** 0.5
    # Beyond the precision of the code there is nothing but noise to be amplified.
    scale = torch.where(spread > 1e-3 * spread[0], 1 / spread, 0)
    weight = directions[: layer.out_features] * scale[:, None]
    layer.weight.copy_(weight)
    layer.bias.copy_(-weight @ middle)


def pretrain_vision(
    model: PointDescriptor, data: LabelledImages, config: VisionConfig, seed: int = 0, folder: Path | None = None
) -> dict[str, float]:
    """Train the model's vision path in place: its backbone first, then all of it for ``config.steps`` steps.

    Interrupted and called again with the same ``folder``, which keeps a checkpoint of either, it goes on from there to
    the same weights.

    Returns accuracies in percent and errors in shares of the frame (of the range, for colours) on a twentieth of the
    images, which is not trained on; on all of them where they are fewer than 20. Raises ``TrainingStoppedError`` at
    a loss or gradient that is no number.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(data))
    held_out, seen = (order[: len(data) // 20], order[len(data) // 20 :]) if len(data) >= 20 else (order, order)
    first, second = (folder / name if folder else None for name in (BACKBONE_CHECKPOINT, CHECKPOINT))
    backbone = pretrain_backbone(model, data, config, random, seen, held_out, first) if config.backbone_steps else {}
    spread_positions(model)
    tasks = PartTasks(model, data)
    model.requires_grad_(False)
    model.vision.requires_grad_(True)
    heads = (tasks.pixel_head, tasks.token_head, tasks.point_head, tasks.query_head)
    cycle = OneCycle(MuonAdamW(tasks, heads, config.learning_rate), config.learning_rate, config.steps)
    tasks.train()
    state = PretrainingState(second, tasks, cycle, random)
    begun = state.read()
    with follow("vision path", config.steps, begun) as progress:
        for step in range(begun, config.steps):
            index = random.choice(seen, size=min(config.batch_size, len(seen)), replace=False)
            loss, _ = tasks(index, random)
            cycle.step(loss, index)
            state.keep(step + 1, config.steps)
            progress.advance(loss=float(loss.detach()))
    model.eval().vision.requires_grad_(False)
    with torch.no_grad():
        batches = np.array_split(held_out, -(-len(held_out) // config.batch_size))
        measured = [tasks(batch, random)[1] for batch in batches]
    return backbone | {name: float(np.nanmean([values[name] for values in measured])) for name in measured[0]}
