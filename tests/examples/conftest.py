"""Models and caches of the training tests."""

from tests.training.conftest import _one_thread, descriptor, features, localizer

__all__ = ["_one_thread", "descriptor", "features", "localizer"]
