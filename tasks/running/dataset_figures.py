"""The figures of a dataset's card: drawn where what they show has changed, and taken over where it has not.

Drawing them takes seconds of processor time. What the published ones show, and their content, is kept in a small file
beside the shards; nothing is taken over that is not, byte for byte, what was drawn then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from talking_points.config import fingerprint
from talking_points.errors import InputError
from talking_points.records import Candidate
from talking_points.stop_requests import stop_if_requested
from tasks.running.manifests import Manifest
from tasks.running.source_images import image_pixels
from tasks.running.stages import WORK
from tasks.running.storage import Storage

VERSION = 2
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


def draw_figures(
    storage: Storage,
    staging: str,
    manifest: dict[str, Any],
    lengths: Counter[int],
    examples: Sequence[tuple[Candidate, str]] | None,
    roots: Mapping[str, str],
) -> list[str]:
    """Put the card's figures into ``staging``, and the text lengths they show into the manifest; returns their names.

    ``lengths``: how many descriptions have so many words. ``examples``: rows with their texts, None where no image
    is to be shown.
    """
    manifest["lengths"] = describe_lengths(lengths)
    figures = _choose_figures(manifest, lengths, examples, roots)
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


def describe_lengths(lengths: Counter[int]) -> dict[str, float]:
    """Least, median, most and mean number of words, of texts that are counted by it."""
    words = np.repeat(*(np.array(column) for column in zip(*sorted(lengths.items()), strict=True)))
    low, high = (int(words[place]) for place in ((len(words) - 1) // 2, len(words) // 2))
    return {
        "min": int(words[0]),
        "median": high if len(words) % 2 else (low + high) / 2,
        "max": int(words[-1]),
        "mean": round(int(words.sum()) / len(words), 2),
    }


def _choose_figures(
    manifest: Mapping[str, Any],
    lengths: Counter[int],
    examples: Sequence[tuple[Candidate, str]] | None,
    roots: Mapping[str, str],
) -> dict[str, _Figure]:
    # matplotlib takes half a second to import, and is not needed where all is taken over.
    def composition(*paths: Path) -> None:
        from talking_points.publishing.figures import composition_sunburst

        composition_sunburst(manifest["composition"], *paths)

    def histogram(*paths: Path) -> None:
        from talking_points.publishing.figures import length_histogram

        length_histogram(list(lengths.elements()), *paths)

    rejected = Counter[str]()
    for stage in manifest["stages"].values():
        rejected.update(stage["rejected"])
    outcomes = {"accepted": lengths.total(), **dict(rejected.most_common())}

    def acceptance(*paths: Path) -> None:
        from talking_points.publishing.figures import acceptance_bars

        acceptance_bars(outcomes, *paths)

    figures = {
        "composition": _Figure(_in_order(manifest["composition"]), composition),
        "lengths": _Figure(sorted(lengths.items()), histogram),
        "acceptance": _Figure(_in_order(outcomes), acceptance),
    }
    if examples is None:
        return figures
    shown = examples

    def grid(*paths: Path) -> None:
        from talking_points.publishing.figures import Example, example_grid

        example_grid([Example(image_pixels(row, roots), row.keypoint, text) for row, text in shown], *paths)

    seen = [[row.source, row.image_sha256, list(row.keypoint), text] for row, text in shown]
    return figures | {"examples": _Figure(seen, grid)}


def _in_order(counts: Mapping[str, Any]) -> list[Any]:
    """Nested counts as lists: where they tie, their order decides what is drawn."""
    return [[name, _in_order(value) if isinstance(value, Mapping) else value] for name, value in counts.items()]


def choose_examples(
    storage: Storage, finished: Sequence[Manifest], sides: Iterator[NDArray[np.uint8]]
) -> list[tuple[Candidate, str]]:
    """The first rows of the sample, which is in hash order, taken from the sources in turn, with their texts.

    ``sides``: of the rows of each shard, 0 for one that is not published.
    """
    by_source: dict[str, list[dict[str, Any]]] = {}
    for shard, own in zip(finished, sides, strict=True):
        for row in storage.read_table(shard["path"]).filter(pa.array(own > 0)).to_pylist():
            by_source.setdefault(row["source"], []).append(row)
        if all(len(rows) >= EXAMPLES for rows in by_source.values()):
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
