"""Small models that several test files share. They are never changed by a test that uses them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.presets import tiny_config, train_tokenizer

TEXTS = (
    "A dog stands in the top left of the image. The point lies on its head, in the lower right, near a dark ear.",
    "The chair is at the bottom.",
    "Two birds sit on a wire; the point is on the wing of the left one, where a white stripe begins.",
)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 400)


@pytest.fixture(scope="session")
def descriptor(tokenizer) -> PointDescriptor:
    torch.manual_seed(0)
    model = PointDescriptor(tiny_config(tokenizer)).eval()
    model.tokenizer = tokenizer
    return model


@pytest.fixture(scope="session")
def localizer(tokenizer) -> PointLocalizer:
    torch.manual_seed(1)
    model = PointLocalizer(tiny_config(tokenizer)).eval()
    model.tokenizer = tokenizer
    return model


@pytest.fixture(scope="session")
def images() -> list[np.ndarray]:
    """Three images of different shapes with some structure, uint8 RGB."""
    random = np.random.default_rng(0)
    shapes = ((90, 120), (150, 70), (64, 64))
    return [
        np.kron(random.integers(0, 255, (8, 8, 3)), np.ones((20, 20, 1)))[:h, :w].astype(np.uint8) for h, w in shapes
    ]
