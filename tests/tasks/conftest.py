"""The local Hub of the tests of publishing, for the tasks that publish."""

from __future__ import annotations

from tests.publishing.conftest import hub, reached, run, start

__all__ = ["hub", "reached", "run", "start"]
