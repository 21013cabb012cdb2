"""The perception prior against its literal definition with full-size masks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from talking_points.models.omg_llava.perception_prior import (
    perception_prior,
    query_scores,
    valid_queries,
    weigh_masks,
)


@pytest.mark.parametrize(
    ("logits", "frame", "tokens"),
    [
        ((32, 32), (128, 128), (2, 2)),
        ((16, 24), (64, 96), (1, 3)),
        ((64, 64), (128, 128), (8, 8)),
        ((12, 20), (50, 70), (3, 7)),
    ],
)
def test_weighted_masks_equal_resizing_through_the_full_frame(logits, frame, tokens):
    torch.manual_seed(0)
    mask_logits, scores = 5 * torch.randn(2, 6, *logits), torch.rand(2, 6)
    full = functional.interpolate(mask_logits, size=frame, mode="bilinear", align_corners=False).sigmoid()
    literal = functional.interpolate(
        full * (0.5 * scores + 0.5)[..., None, None], size=tokens, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(weigh_masks(mask_logits, scores, frame, tokens), literal, rtol=1e-5, atol=1e-6)


def test_scores_leave_out_the_void_class():
    logits = torch.tensor([[[1.0, 2.0, 9.0]]])
    assert query_scores(logits).item() == pytest.approx(logits.softmax(-1)[0, 0, 1].item())


def test_valid_queries_win_at_least_one_token():
    weighted = torch.tensor([[[[0.9, 0.1]], [[0.2, 0.3]], [[0.1, 0.2]]]])
    assert valid_queries(weighted).tolist() == [[True, True, False]]


def test_prior_is_the_softmax_mean_of_all_queries():
    weighted = torch.tensor([[[[0.0, 2.0]], [[0.0, 1.0]]]])
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    share = 1 / (1 + torch.tensor(-1.0).exp().item())
    torch.testing.assert_close(perception_prior(weighted, queries), torch.tensor([[[0.5, 0.5], [share, 1 - share]]]))
