"""The perception prior of OMG-LLaVA: which object queries each visual token belongs to."""

from __future__ import annotations

import torch
from torch import Tensor

from talking_points.models.omg_llava.pixel_decoder import GridSize


def _bilinear_rows(source: int, target: int, rows: Tensor) -> Tensor:
    """A bilinear resize (align_corners False) of ``source`` to ``target`` cells, for some target rows: (R, source)."""
    position = ((rows + 0.5) * source / target - 0.5).clamp(min=0)
    low = position.floor().long().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    fraction = (position - low).float()
    matrix = torch.zeros(len(rows), source, device=rows.device)
    matrix.scatter_add_(1, low[:, None], 1 - fraction[:, None])
    return matrix.scatter_add_(1, high[:, None], fraction[:, None])


def _axis(logit_cells: int, frame: int, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Along one axis: the frame pixels that a bilinear resize to ``tokens`` cells reads, and their weights.

    Returns the matrix that gives logits at these pixels (2 * tokens, logit_cells) and the weights (2 * tokens,).
    """
    centre = ((torch.arange(tokens, device=device, dtype=torch.float64) + 0.5) * frame / tokens - 0.5).clamp(min=0)
    low = centre.floor()
    fraction = (centre - low).float()
    pixels = torch.stack((low, (low + 1).clamp(max=frame - 1)), dim=1).flatten()
    weights = torch.stack((1 - fraction, fraction), dim=1).flatten()
    return _bilinear_rows(logit_cells, frame, pixels), weights


def query_scores(class_logits: Tensor) -> Tensor:
    """Probability of the likeliest class that is not void: (B, Q, classes + 1) -> (B, Q)."""
    return class_logits.softmax(-1)[..., :-1].amax(-1)


def weigh_masks(mask_logits: Tensor, scores: Tensor, frame: GridSize, tokens: GridSize) -> Tensor:
    """How strongly each query claims each visual token: (B, Q, h, w) for mask logits (B, Q, H, W), scores (B, Q).

    The official order is: enlarge the logits to the frame, sigmoid, weigh by (score + 1) / 2, reduce to the
    tokens without antialiasing. The reduction reads two rows and two columns per token, so only those pixels of
    the frame are ever computed here: the same values without 300 full-size masks.
    """
    device = mask_logits.device
    rows, row_weights = _axis(mask_logits.shape[2], frame[0], tokens[0], device)
    columns, column_weights = _axis(mask_logits.shape[3], frame[1], tokens[1], device)
    logits = torch.einsum("rh,bqhw,cw->bqrc", rows, mask_logits.float(), columns)
    masks = logits.sigmoid() * (0.5 * scores + 0.5)[..., None, None]
    masks = masks * row_weights[:, None] * column_weights
    return masks.unflatten(3, (tokens[1], 2)).unflatten(2, (tokens[0], 2)).sum((3, 5))


def valid_queries(weighted: Tensor) -> Tensor:
    """Queries that claim at least one visual token more than any other query: bool (B, Q) of (B, Q, h, w)."""
    winners = weighted.flatten(2).argmax(1)
    return torch.zeros(weighted.shape[:2], dtype=torch.bool, device=weighted.device).scatter_(1, winners, True)


def perception_prior(weighted: Tensor, queries: Tensor) -> Tensor:
    """Per visual token the mean of all queries (B, Q, F), weighted by the softmax of their claims: (B, h * w, F)."""
    return weighted.flatten(2).softmax(1).transpose(1, 2) @ queries
