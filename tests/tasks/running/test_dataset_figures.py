"""Figures are drawn where what they show has changed, and are otherwise those that are there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from talking_points.publishing import figures
from tasks.running.dataset_figures import DRAWN, draw_figures
from tasks.running.storage import Storage

NAMES = [f"figures/{name}.{end}" for name in ("acceptance", "composition", "lengths") for end in ("png", "svg")]
FUNCTIONS = ("acceptance_bars", "composition_sunburst", "length_histogram")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is drawn; the files say what they show."""
    names: list[str] = []
    for name in FUNCTIONS:

        def draw(shown: Any, *paths: Path, name: str = name) -> None:
            names.append(name)
            for path in paths:
                path.write_text(f"{path.suffix} {shown}")

        monkeypatch.setattr(figures, name, draw)
    return names


def assemble(storage: Storage, texts: list[str], rejected: dict[str, int] | None = None) -> dict[str, bytes]:
    """The figures that an assembling publishes, by name."""
    lengths = Counter(len(text.split()) for text in texts)
    manifest = {"composition": {"a": {"dog": {"head": 2}}}, "stages": {"verify": {"rejected": rejected or {}}}}
    assert draw_figures(storage, "staged", manifest, lengths, None, {}) == NAMES
    storage.move("staged/figures", "figures")
    return {name: storage.read_bytes(name) for name in NAMES}


def damage_record(storage: Storage) -> None:
    storage.write_bytes(DRAWN, b'["\xff')


def forge_record(storage: Storage) -> None:
    storage.write_json(DRAWN, {name: ["shows", "sha256"] for name in NAMES})


def damage_figure(storage: Storage) -> None:
    storage.write_bytes("figures/lengths.svg", b"half")


def remove_figure(storage: Storage) -> None:
    storage.remove("figures/lengths.png")


@pytest.mark.parametrize(
    ("texts", "rejected", "spoil", "anew"),
    [
        (["one two", "three"], {}, None, []),
        (["other words", "four"], {}, None, []),  # of as many words
        (["one two", "three four"], {}, None, ["length_histogram"]),
        (["one two", "three"], {"too_long": 1}, None, ["acceptance_bars"]),
        (["one two", "three"], {}, damage_figure, ["length_histogram"]),
        (["one two", "three"], {}, remove_figure, ["length_histogram"]),
        (["one two", "three"], {}, damage_record, list(FUNCTIONS)),
        (["one two", "three"], {}, forge_record, list(FUNCTIONS)),
    ],
)
def test_what_shows_the_same_is_taken_over_and_all_else_is_drawn(
    texts: list[str], rejected: dict[str, int], spoil: Any, anew: list[str], drawn: list[str], tmp_path: Path
) -> None:
    storage = Storage(tmp_path / "again")
    assemble(storage, ["one two", "three"])
    if spoil:
        spoil(storage)
    drawn.clear()
    found = assemble(storage, texts, rejected)
    assert sorted(drawn) == anew
    assert {name: content.decode().split()[0] for name, content in found.items()} == {name: name[-4:] for name in NAMES}
    fresh = assemble(Storage(tmp_path / "fresh"), texts, rejected)
    assert {name: fresh[name] for name in NAMES if "lengths" not in name or texts[0] == "one two"} == {
        name: found[name] for name in NAMES if "lengths" not in name or texts[0] == "one two"
    }
