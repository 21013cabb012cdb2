"""The names of ``talking_points`` itself, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import talking_points

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", talking_points.__all__)
def test_every_name_is_there(name: str) -> None:
    found = getattr(talking_points, name)
    assert found.__name__ == name
    assert name in dir(talking_points)


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(AttributeError, match="PointLocalizer"):
        talking_points.Localizer  # noqa: B018


def test_importing_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.process_time(); import talking_points\n"
        "spent = time.process_time() - start; assert spent < 0.2, spent\n"
        "heavy = {'torch', 'transformers', 'prefect', 'datasets', 'numpy', 'cv2', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy; from talking_points import open_source; assert 'torch' not in sys.modules"
    )
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert time.monotonic() - start < 60
