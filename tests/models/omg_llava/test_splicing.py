"""Image and prompt tokens take the place of their placeholders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from talking_points.models.omg_llava.splicing import splice_inputs

IMAGE, MARK = -200, 99  # neither has a row in the table


@pytest.fixture
def embedding():
    torch.manual_seed(0)
    return nn.Embedding(10, 4)


def _blocks(*lengths: int) -> list[torch.Tensor]:
    return [torch.full((length, 4), float(100 + index)) for index, length in enumerate(lengths)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_blocks_are_used_in_order_and_padded(embedding, side):
    ids = [torch.tensor([1, IMAGE, 2, MARK]), torch.tensor([3, MARK, IMAGE, MARK, 4, 5])]
    labels = [torch.tensor([-100, -100, 2, -100]), torch.tensor([-100, -100, -100, -100, 4, 5])]
    images, marks = _blocks(3, 1), _blocks(1, 1, 2)
    batch = splice_inputs(embedding, ids, {IMAGE: images, MARK: marks}, labels, side)
    rows = embedding.weight
    expected = [
        torch.cat((rows[1:2], images[0], rows[2:3], marks[0])),
        torch.cat((rows[3:4], marks[1], images[1], marks[2], rows[4:6])),
    ]
    assert batch.inputs_embeds.shape == (2, 7, 4)
    assert batch.attention_mask.sum(1).tolist() == [6, 7]
    for index, sample in enumerate(expected):
        assert torch.equal(batch.inputs_embeds[index][batch.attention_mask[index]], sample)
    padding = 0 if side == "left" else 6
    assert not batch.attention_mask[0, padding]
    assert batch.inputs_embeds[0, padding].eq(0).all()
    assert batch.labels[0][batch.attention_mask[0]].tolist() == [-100, -100, -100, -100, 2, -100]
    assert batch.labels[1].tolist() == [-100, -100, -100, -100, -100, 4, 5]
    assert batch.position_ids[0][batch.attention_mask[0]].tolist() == list(range(6))
    start = 1 if side == "left" else 0
    assert batch.offsets[0].tolist() == [start, start + 1, start + 4, start + 5]
    assert batch.offsets[1].tolist() == [0, 1, 2, 3, 5, 6]


@pytest.mark.parametrize("marks", [0, 2])
def test_prompts_and_placeholders_must_be_as_many(embedding, marks):
    with pytest.raises(ValueError, match=f"placeholder {MARK} occurs 1 times in the text but has {marks}"):
        splice_inputs(embedding, [torch.tensor([1, MARK])], {MARK: _blocks(*[1] * marks)})


def test_gradients_reach_embedding_and_blocks(embedding):
    block = torch.ones(2, 4, requires_grad=True)
    batch = splice_inputs(embedding, [torch.tensor([1, IMAGE]), torch.tensor([2])], {IMAGE: [block]})
    batch.inputs_embeds.sum().backward()
    assert block.grad is not None
    assert block.grad.eq(1).all()
    # The placeholder borrows row 0 for the look-up; it must not be trained by it.
    assert embedding.weight.grad is not None
    assert embedding.weight.grad.sum(1).nonzero()[:, 0].tolist() == [1, 2]
