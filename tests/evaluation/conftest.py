"""The local Hub of the tests of publishing, for retraining on its datasets."""

from __future__ import annotations

from tests.publishing.conftest import hub, reached

__all__ = ["hub", "reached"]
