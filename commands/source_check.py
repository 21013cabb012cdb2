"""``talking-points doctor --source mp100 DIR``: what of a dataset is on disk, and where the rest is to be had."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from rich.table import Table

from talking_points.config import ConfigError
from talking_points.errors import InputError
from talking_points.redacted_console import RedactedConsole
from talking_points.sources.mp100_check import ANNOTATIONS, CategoryCheck, check_mp100
from talking_points.terminal import show


def print_source(name: str, root: Path) -> None:
    """Print a row per category. Raises ``InputError`` where no image of any category is there."""
    if name != "mp100":
        raise ConfigError(f"expected --source mp100 DIR, found {name!r}: other sources come in one piece")
    found = check_mp100(root)
    table = Table(title=f"MP-100: annotations from {ANNOTATIONS}, images from 13 datasets")
    for column in ("id", "category", "keypoints", "annotations", "images", "found", "missing", "images of"):
        named = column in ("category", "images of")
        # A name that is cut off could not be looked for: longer ones go on in the next line.
        table.add_column(column, justify="left" if named else "right", overflow="fold")
    for one in found:
        counts = (one.keypoints, one.annotations, one.references, one.found, one.missing)
        table.add_row(str(one.category), one.name, *map(str, counts), one.dataset)
    RedactedConsole().print(table)
    listed = [one for one in found if one.references]
    here = sum(one.found for one in listed)
    total = sum(one.references for one in listed)
    whole = sum(not one.missing for one in listed)
    show(f"{here} of {total} images are there; {whole} of {len(listed)} listed categories are whole")
    for line in _missing_by_dataset(found):
        show(line)
    links = sorted({str(place) for one in found for place in one.linked})
    if links:
        show(f"links lead out of {root} to images in {', '.join(links)}: where you made them yourself, trainings and "
              f"evaluations follow them with poses.links=[{', '.join(links)}]")  # fmt: skip
    if not here and not links:
        raise InputError(
            f"none of the {total} images that the annotations of {root} list is there: put each dataset's images into "
            "images/<folder>/ as the annotations name them"
        )


def _missing_by_dataset(found: list[CategoryCheck]) -> list[str]:
    """One line for every dataset of which images are missing: how many, of which categories, where it is."""
    groups: dict[str, list[CategoryCheck]] = defaultdict(list)
    for one in found:
        if one.missing:
            groups[one.dataset].append(one)
    lines = []
    for dataset, members in groups.items():
        names = ", ".join(one.name for one in members[:6]) + (" and more" if len(members) > 6 else "")
        note = f"; {members[0].note}" if members[0].note else ""
        lines.append(f"{dataset}: {sum(one.missing for one in members)} missing ({names}): {members[0].place}{note}")
    return lines
