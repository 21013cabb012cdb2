"""Two builds side by side: what was set differently, what their numbers are, and which texts differ, word by word."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talking_points.config import list_changes
from talking_points.descriptions.backends.protocol import STEPS
from talking_points.plotting import shorten
from talking_points.publishing.figures import SOURCE_TITLES
from talking_points.publishing.quality import (
    LEVELS,
    Row,
    add_images,
    choose_examples,
    draw_image_url,
    measure,
    read_built,
    read_rows,
    render_page,
)
from talking_points.whole_files import write_text

SHOWN = 60
"""Rows with images on a page."""


@dataclass(frozen=True)
class Comparison:
    """``metrics``: name, value in the first build, value in the second. ``settings``: what was configured differently.

    ``different`` are the rows of both whose texts differ; ``same`` counts the equal ones; ``only`` the rows that just
    one of them has.
    """

    names: tuple[str, str]
    settings: tuple[str, ...]
    metrics: tuple[tuple[str, str, str], ...]
    different: tuple[tuple[Row, Row], ...]
    same: int
    only: tuple[int, int]


def compare_builds(first: str | Path, second: str | Path) -> Comparison:
    """Measure both datasets and match their rows by id. Raises ``DatasetError`` for a folder that holds no dataset."""
    roots = Path(first), Path(second)
    manifests = [read_built(root) for root in roots]
    rows = [read_rows(root) for root in roots]
    measured = [_metrics(measure(root, found)) for root, found in zip(roots, rows, strict=True)]
    names = list(dict.fromkeys([*measured[0], *measured[1]]))
    by_id = [{row["id"]: row for row in found} for found in rows]
    both = [(row, by_id[1][row["id"]]) for row in rows[0] if row["id"] in by_id[1]]
    different = [(one, other) for one, other in both if one["description"] != other["description"]]
    return Comparison(
        names=(str(first), str(second)),
        settings=tuple(list_changes(manifests[0]["config"], manifests[1]["config"]) + _prompts(*manifests)),
        metrics=tuple((name, measured[0].get(name, "0"), measured[1].get(name, "0")) for name in names),
        different=tuple(different),
        same=len(both) - len(different),
        only=(len(rows[0]) - len(both), len(rows[1]) - len(both)),
    )


def write_comparison(comparison: Comparison, path: str | Path, rows: int = SHOWN, seed: int = 0) -> Path:
    """Write one self-contained page; of the rows that differ, ``rows`` at random with their images."""
    chosen = choose_examples((one for one, _ in comparison.different), rows, seed)
    others = {other["id"]: other for _, other in comparison.different}
    add_images(Path(comparison.names[0]), chosen)
    pairs = [
        {
            "row": row,
            "image_url": draw_image_url(row),
            "drafts": (row["draft"], others[row["id"]]["draft"]),
            "flags": (row["flags"], others[row["id"]]["flags"]),
            "words": word_differences(row["description"], others[row["id"]]["description"]),
        }
        for row in chosen
    ]
    file = Path(path)
    write_text(file, render_page("comparison.html.jinja", comparison=comparison, pairs=pairs, titles=SOURCE_TITLES))
    return file


def word_differences(first: str, second: str) -> tuple[list[tuple[bool, str]], list[tuple[bool, str]]]:
    """Both texts in pieces (differs, words), cut where they start or stop to differ; of long ones, the beginning."""
    one, other = shorten(first).split(), shorten(second).split()
    pieces: tuple[list[tuple[bool, str]], list[tuple[bool, str]]] = ([], [])
    for kind, *ends in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        for words, found, (start, end) in ((one, pieces[0], ends[:2]), (other, pieces[1], ends[2:])):
            if start < end:
                found.append((kind != "equal", " ".join(words[start:end])))
    return pieces


def _metrics(quality: dict[str, Any]) -> dict[str, str]:
    """The numbers that two builds are compared by, ready to be shown."""
    self_bleu = quality["self_bleu"]
    return {
        "rows": f"{sum(quality['rows'].values()):,}",
        **{
            f"accepted, {name}": f"{quality['stages'][name]['accepted']:.1%}"
            for name in (*STEPS, "verify")
            if name in quality["stages"]
        },
        **{f"names {level.replace('_', ' ')}": f"{quality['levels'][level]:.1%}" for level in LEVELS},
        **{f"words, {name}": f"{quality['words'][name]:g}" for name in ("mean", "median", "min", "max")},
        **{name.replace("_", "-"): f"{share:.3f}" for name, share in quality["distinct"].items()},
        "self-BLEU": "-" if self_bleu is None else f"{self_bleu:.3f}",
        **{f"rejected, {reason}": f"{count:,}" for reason, count in quality["reasons"].items()},
        **{f"flag, {flag}": f"{count:,}" for flag, count in quality["flags"].items()},
    }


def _prompts(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    digests = [
        [(manifest["steps"][step].get("prompt_sha256") or "-")[:12] for step in STEPS] for manifest in (first, second)
    ]
    return [
        f"{step}, text of the prompt: {one} -> {other}"
        for step, one, other in zip(STEPS, *digests, strict=True)
        if one != other
    ]
