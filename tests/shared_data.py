"""Where optional reference data (sample photographs, golden tensors) lives, for the tests that can use it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_path(*parts: str) -> Path:
    """A path inside the reference data; skips the calling test, with the reason, where there is none."""
    root = Path(os.environ.get("TALKING_POINTS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"reference data not present: {path} (set TALKING_POINTS_SHARED to its folder)")
    return path
