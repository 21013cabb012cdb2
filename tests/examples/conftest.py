"""The Hub on this machine, for datasets that are read from it."""

from __future__ import annotations

from tests.publishing.conftest import hub, reached, run, start

__all__ = ["hub", "reached", "run", "start"]
