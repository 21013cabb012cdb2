"""The names of ``talking_points`` itself, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import talking_points
from talking_points import PointDescriptor, PointLocalizer
from tests.test_readme import blocks
from tests.training.conftest import small, write_dataset

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


def test_the_example_of_the_readme_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (block for block in blocks("README.md", "python") if "PointLocalizer" in block)
    write_dataset(tmp_path / "dataset", split="test")
    small(PointDescriptor).save_pretrained(tmp_path / "descriptor")
    small(PointLocalizer).save_pretrained(tmp_path / "localizer")
    places = {
        "build/llamapointinpart": tmp_path / "dataset",
        "build/learn/train/descriptor": tmp_path / "descriptor",
        "build/learn/train/localizer": tmp_path / "localizer",
    }
    for written, place in places.items():
        assert written in code
        code = code.replace(written, str(place))
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["row"]["image"], Image.Image)  # type: ignore[index]
    assert "is found at" in capsys.readouterr().out
    assert isinstance(names["text"], str)
