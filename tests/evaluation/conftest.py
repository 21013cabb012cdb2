"""The local Hub of the tests of publishing, for retraining on its datasets, and the backends' tiny models."""

from __future__ import annotations

from tests.descriptions.backends.conftest import tiny_llava, tiny_omg_llava
from tests.publishing.conftest import hub, reached
from tests.training.conftest import _one_thread

__all__ = ["_one_thread", "hub", "reached", "tiny_llava", "tiny_omg_llava"]
