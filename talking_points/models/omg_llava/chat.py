"""InternLM2's chat template and OMG-LLaVA's way of tokenising it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from talking_points.escaping import encodable
from talking_points.models.omg_llava.configuration import IMAGE_PLACEHOLDER, SPECIAL_TOKENS
from talking_points.models.omg_llava.splicing import IGNORED_LABEL

TURN_END = "<|im_end|>"
QUESTION = "<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


_MARKUP = re.compile("|".join(map(re.escape, (IMAGE_PLACEHOLDER, "<|im_start|>", TURN_END, *SPECIAL_TOKENS))))


def plain_text(text: str) -> str:
    """Text from elsewhere in characters that a tokenizer takes, without what could be mistaken for
    the chat template or a prompt token.
    """
    return " ".join(_MARKUP.sub(" ", encodable(text)).split())


@dataclass(frozen=True)
class Turn:
    """One question with or without its answer: ids (L,) and labels (L,), -100 where no loss is taken."""

    ids: Tensor
    labels: Tensor


def encode_turn(
    tokenizer: PreTrainedTokenizerBase, text: str, answer: str | None = None, image_token_index: int = -200
) -> Turn:
    """Tokenise one turn as the official release does.

    ``<image>`` in ``text`` is no token: both sides of it are tokenised apart and ``image_token_index`` stands
    between them. The loss is on the answer and the token that ends it. Without an answer the turn ends where the
    model starts to write.
    """

    def tokens(piece: str) -> list[int]:
        return tokenizer(piece, add_special_tokens=False)["input_ids"]

    ids = [tokenizer.bos_token_id]
    for index, piece in enumerate(QUESTION.format(text=text).split(IMAGE_PLACEHOLDER)):
        ids += ([image_token_index] if index else []) + tokens(piece)
    labels = [IGNORED_LABEL] * len(ids)
    if answer is not None:
        written, suffix = tokens(answer + TURN_END), tokens("\n")
        ids += written + suffix
        labels += written + [IGNORED_LABEL] * len(suffix)
    return Turn(torch.tensor(ids), torch.tensor(labels))
