"""The local Hub of the tests of publishing, for the flows that publish."""

from __future__ import annotations

from tests.publishing.conftest import hub, run, start

__all__ = ["hub", "run", "start"]
