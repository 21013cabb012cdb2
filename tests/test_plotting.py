"""Texts are drawn as they stand, whatever they and the settings of the working folder say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import matplotlib
import numpy as np
import pytest

from talking_points.evaluation.tables import Row, Table, draw_table
from talking_points.plotting import WORDS, plain_style, shorten
from talking_points.publishing.comparison import word_differences
from talking_points.publishing.figures import Example, acceptance_bars, composition_sunburst, example_grid
from talking_points.training.curves import draw_curves, draw_group

ROOT = Path(__file__).parents[1]
PIXELS = np.zeros((40, 60, 3), np.uint8)
FORMULAS = [r"the sign of $a^$ on it", r"$\frac{1}$", r"$\foo$", "a $ and a $", "$x"]


def group(text: str, path: Path) -> None:
    draw_group(PIXELS, cast(Any, SimpleNamespace(keypoint=(2.0, 3.0))), [text], np.array([[1.0, 1.0]]), path)


DRAWN: dict[str, Callable[[str, Path], None]] = {
    "grid": lambda text, path: example_grid([Example(PIXELS, (1, 1), text)], path),
    "sunburst": lambda text, path: composition_sunburst({text: {text: {text: 5}}}, path),
    "bars": lambda text, path: acceptance_bars({text: 3}, path),
    "group": group,
    "curves": lambda text, path: draw_curves([{"step": 1, text: 2.0}], path),
    "table": lambda text, path: draw_table(Table("key", text, [Row(text, {}, {"mPCK": 1.0})], [text]), path),
}


@pytest.mark.parametrize("name", DRAWN)
def test_no_text_is_a_formula_and_no_setting_starts_a_program(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting, value in (("text.usetex", True), ("font.size", 40)):
        monkeypatch.setitem(matplotlib.rcParams, setting, value)
    drawn = []
    for number, text in enumerate(FORMULAS):
        DRAWN[name](text, tmp_path / f"{number}.png")
        drawn.append((tmp_path / f"{number}.png").read_bytes())
    monkeypatch.undo()
    DRAWN[name](FORMULAS[0], tmp_path / "again.png")
    assert drawn[0] == (tmp_path / "again.png").read_bytes(), "settings of the folder change no figure"


def test_a_matplotlibrc_of_the_working_folder_is_not_even_read(tmp_path: Path) -> None:
    """A pipe would be waited for; whoever imports matplotlib first, in a command, a task or a worker process."""
    os.mkfifo(tmp_path / "matplotlibrc")
    read = "import sys; import {}; import matplotlib; print(matplotlib.rcParams['figure.dpi']); import os; "
    read += "assert os.path.exists('matplotlibrc')"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {read.format(floor)}"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for floor in ("tasks", "flows", "commands")
    ]  # fmt: skip
    try:
        for process in started:
            said, errors = process.communicate(timeout=60)
            assert said.strip() == "100.0", errors
    finally:
        for process in started:
            process.kill()


def test_long_texts_take_no_longer(tmp_path: Path) -> None:
    text = " ".join("ab"[(k * k // 7) % 2] for k in range(20_000))
    start = time.process_time()
    example_grid([Example(PIXELS, (1, 1), text)] * 3, tmp_path / "grid.png")
    one, _ = word_differences(text, text[5:])
    assert time.process_time() - start < 10
    assert one[-1][1].endswith("…")
    assert len(shorten("x" * 10**6)) < 2000
    assert shorten(" ".join(["w"] * WORDS)) == " ".join(["w"] * WORDS)


def test_settings_of_others_are_left_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    with plain_style({"font.size": 3}):
        assert matplotlib.rcParams["font.size"] == 3
    assert dict(matplotlib.rcParams) == before
