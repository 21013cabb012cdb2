"""Models and caches of the training tests, and the Hub on this machine, for datasets that are read from it."""

from __future__ import annotations

from tests.publishing.conftest import hub, reached, run, start
from tests.training.conftest import _one_thread, descriptor, features, localizer

__all__ = ["_one_thread", "descriptor", "features", "hub", "localizer", "reached", "run", "start"]
