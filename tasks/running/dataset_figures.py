"""The figures of a dataset's card: drawn where what they show has changed, and taken over where it has not.

Drawing them takes seconds of processor time. What the published ones show, and their content, is kept in a small file
beside the shards; nothing is taken over that is not, byte for byte, what was drawn then.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from talking_points.config import fingerprint
from talking_points.errors import InputError
from talking_points.records import Candidate
from talking_points.stop_requests import stop_if_requested
from tasks.running.source_images import image_pixels
from tasks.running.stages import WORK
from tasks.running.storage import Storage

VERSION = 1
"""To be raised when the same numbers are drawn in another way."""
DRAWN = f"{WORK}/figures.json"
EXTENSIONS = ("png", "svg")
EXAMPLES = 12

_PACKAGES = ("matplotlib", "pillow", "numpy")


@dataclass(frozen=True)
class _Figure:
    """``shows``: JSON values that decide what is drawn."""

    shows: Any
    draw: Callable[..., None]


def draw_figures(order: Any, storage: Storage, staging: str, manifest: dict[str, Any], light: pa.Table) -> list[str]:
    """Put the card's figures into ``staging``, and the text lengths they show into the manifest; returns their names.

    ``order`` is that of assembling, ``light`` has the ids of the rows that are published.
    """
    texts: list[str] = []
    for shard in order.inputs.finished:
        rows = storage.read_table(shard["path"], columns=["id", "description"])
        texts += rows.filter(pc.is_in(rows["id"], value_set=light["id"]))["description"].to_pylist()
    lengths = [len(text.split()) for text in texts]
    manifest["lengths"] = {
        "min": min(lengths),
        "median": statistics.median(lengths),
        "max": max(lengths),
        "mean": round(statistics.fmean(lengths), 2),
    }
    figures = _choose_figures(order, storage, manifest, light, texts)
    drawn, names = _read_drawn(storage), []
    for name, figure in figures.items():
        stop_if_requested()
        files = [f"figures/{name}.{extension}" for extension in EXTENSIONS]
        shows = fingerprint([VERSION, {package: metadata.version(package) for package in _PACKAGES}, figure.shows])
        if not all(_take_over(storage, file, staging, drawn, shows) for file in files):
            _draw(storage, files, staging, figure.draw)
            for file in files:
                drawn[file] = {"shows": shows, "sha256": storage.sha256(f"{staging}/{file}")}
        names += files
    storage.write_json(DRAWN, {name: drawn[name] for name in names})
    return sorted(names)


def _choose_figures(
    order: Any, storage: Storage, manifest: Mapping[str, Any], light: pa.Table, texts: list[str]
) -> dict[str, _Figure]:
    # matplotlib takes half a second to import, and is not needed where all is taken over.
    def composition(*paths: Path) -> None:
        from talking_points.publishing.figures import composition_sunburst

        composition_sunburst(manifest["composition"], *paths)

    def histogram(*paths: Path) -> None:
        from talking_points.publishing.figures import length_histogram

        length_histogram(texts, *paths)

    rejected = Counter[str]()
    for stage in manifest["stages"].values():
        rejected.update(stage["rejected"])
    outcomes = {"accepted": light.num_rows, **dict(rejected.most_common())}

    def acceptance(*paths: Path) -> None:
        from talking_points.publishing.figures import acceptance_bars

        acceptance_bars(outcomes, *paths)

    lengths = sorted(Counter(len(text.split()) for text in texts).items())
    figures = {
        "composition": _Figure(_in_order(manifest["composition"]), composition),
        "lengths": _Figure(lengths, histogram),
        "acceptance": _Figure(_in_order(outcomes), acceptance),
    }
    if order.settings.images != "embed":
        return figures
    shown = _choose_examples(order, storage, light)

    def examples(*paths: Path) -> None:
        from talking_points.publishing.figures import Example, example_grid

        roots = order.environment.roots
        example_grid([Example(image_pixels(row, roots), row.keypoint, text) for row, text in shown], *paths)

    seen = [[row.source, row.image_sha256, list(row.keypoint), text] for row, text in shown]
    return figures | {"examples": _Figure(seen, examples)}


def _in_order(counts: Mapping[str, Any]) -> list[Any]:
    """Nested counts as lists: where they tie, their order decides what is drawn."""
    return [[name, _in_order(value) if isinstance(value, Mapping) else value] for name, value in counts.items()]


def _choose_examples(order: Any, storage: Storage, light: pa.Table) -> list[tuple[Candidate, str]]:
    """The first rows of the sample, which is in hash order, taken from the sources in turn, with their texts."""
    by_source: dict[str, list[dict[str, Any]]] = {}
    for shard in order.inputs.finished:
        rows = storage.read_table(shard["path"])
        for row in rows.filter(pc.is_in(rows["id"], value_set=light["id"])).to_pylist():
            by_source.setdefault(row["source"], []).append(row)
        if all(len(own) >= EXAMPLES for own in by_source.values()):
            break
    turns = [own[turn] for turn in range(EXAMPLES) for own in by_source.values() if turn < len(own)]
    return [(Candidate.from_row(row), row["description"]) for row in turns[:EXAMPLES]]


def _draw(storage: Storage, files: list[str], staging: str, draw: Callable[..., None]) -> None:
    with storage.writing(f"{staging}/{files[0]}") as first, storage.writing(f"{staging}/{files[1]}") as second:
        # The format is chosen by the extension, which the temporary names do not have.
        paths = [path.with_suffix(f".{extension}") for path, extension in zip((first, second), EXTENSIONS, strict=True)]
        draw(*paths)
        for path, temporary in zip(paths, (first, second), strict=True):
            path.replace(temporary)


def _read_drawn(storage: Storage) -> dict[str, Any]:
    """What the published figures show; nothing where that is not known."""
    try:
        drawn = storage.read_json(DRAWN) if storage.exists(DRAWN) else {}
    except (InputError, OSError, ValueError):
        return {}
    return {name: known for name, known in drawn.items() if isinstance(known, dict)} if isinstance(drawn, dict) else {}


def _take_over(storage: Storage, file: str, staging: str, drawn: Mapping[str, Any], shows: str) -> bool:
    """Copy a published figure that shows the same, if it is still what was drawn."""
    known = drawn.get(file)
    if known is None or known.get("shows") != shows:
        return False
    try:
        if not storage.exists(file) or storage.sha256(file) != known.get("sha256"):
            return False
        storage.write_bytes(f"{staging}/{file}", storage.read_bytes(file))
        return storage.sha256(f"{staging}/{file}") == known["sha256"]
    except (InputError, FileNotFoundError):
        return False
