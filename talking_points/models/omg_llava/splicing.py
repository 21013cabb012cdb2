"""Building the language model's input: image and prompt tokens take the place of their placeholders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

IGNORED_LABEL = -100


@dataclass(frozen=True)
class SplicedBatch:
    """A padded batch: embeddings (B, L, D), mask (B, L) bool, labels (B, L), positions (B, L), counted from 0.

    ``offsets`` gives, for every token of the inputs, its column in the batch: [(length_b,)]. A token that was
    replaced by several has the column of the first.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    labels: Tensor
    position_ids: Tensor
    offsets: list[Tensor]


def check_replacements(token: int, found: int, given: int) -> None:
    """Refuse a placeholder that occurs more or less often than there is something for it."""
    if found != given:
        raise ValueError(
            f"placeholder {token} occurs {found} times in the text but has {given} replacements: "
            "pass exactly one image per <image> and one visual prompt per prompt token"
        )


def splice_inputs(
    embedding: nn.Embedding,
    input_ids: Sequence[Tensor],
    replacements: Mapping[int, Sequence[Tensor]],
    labels: Sequence[Tensor] | None = None,
    padding_side: Literal["left", "right"] = "right",
) -> SplicedBatch:
    """Replace placeholder ids by blocks of embeddings and pad.

    Args:
        embedding: the token embedding of the language model.
        input_ids: one 1-D tensor of ids per sample, without padding.
        replacements: placeholder id -> blocks [(n, D)], used up in order of occurrence over the batch.
        labels: one 1-D tensor per sample; replaced positions get -100.
        padding_side: left for generation, right for training.

    Raises:
        ValueError: when a placeholder occurs more or less often than it has blocks.
    """
    ids = torch.cat(list(input_ids))
    device = embedding.weight.device
    for token, blocks in replacements.items():
        found = int((ids == token).sum())
        check_replacements(token, found, len(blocks))
    # Placeholders may lie outside the table (-200, or <mark> in the released checkpoint).
    replaced = torch.isin(ids, torch.tensor(list(replacements), dtype=ids.dtype, device=ids.device))
    embedded = embedding(ids.masked_fill(replaced, 0).to(device))
    queues = {token: iter(blocks) for token, blocks in replacements.items()}

    samples, targets, offsets = [], [], []
    start = 0
    for index, sample in enumerate(input_ids):
        pieces, marks = [], []
        columns, column, run = [], 0, 0
        sample_labels = sample.new_full(sample.shape, IGNORED_LABEL) if labels is None else labels[index]
        for position, token in enumerate(sample.tolist()):
            columns.append(column)
            if token not in queues:
                column += 1
                continue
            block = next(queues[token]).to(device=device, dtype=embedded.dtype)
            pieces += [embedded[start + run : start + position], block]
            marks += [sample_labels[run:position], sample_labels.new_full((len(block),), IGNORED_LABEL)]
            column, run = column + len(block), position + 1
        pieces.append(embedded[start + run : start + len(sample)])
        marks.append(sample_labels[run:])
        samples.append(torch.cat(pieces))
        targets.append(torch.cat(marks).to(device))
        offsets.append(torch.tensor(columns))
        start += len(sample)

    lengths = [len(sample) for sample in samples]
    longest = max(lengths)
    starts = [longest - length if padding_side == "left" else 0 for length in lengths]

    def pad_rows(rows: Sequence[Tensor], fill: float) -> Tensor:
        room = [(begin, longest - begin - len(row)) for begin, row in zip(starts, rows, strict=True)]
        return torch.stack(
            [
                functional.pad(row, (0, 0) * (row.dim() - 1) + ends, value=fill)
                for ends, row in zip(room, rows, strict=True)
            ]
        )

    positions = [torch.arange(length, device=device) for length in lengths]
    return SplicedBatch(
        inputs_embeds=pad_rows(samples, 0.0),
        attention_mask=pad_rows([torch.ones_like(position, dtype=torch.bool) for position in positions], 0),
        labels=pad_rows(targets, IGNORED_LABEL),
        position_ids=pad_rows(positions, 0),
        offsets=[offset + begin for offset, begin in zip(offsets, starts, strict=True)],
    )
