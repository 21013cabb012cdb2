"""Which sources a build can take.

Packages outside the project add sources through the entry point group ``talking_points.sources``: the entry's name is
the source's, its value a subclass of ``talking_points.sources.Source`` whose ``name`` is the same.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from talking_points.records import LABELS

GROUP = "talking_points.sources"


def find_added_sources() -> dict[str, EntryPoint]:
    """The sources of other installed packages, in the order of their names; nothing of them is imported."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def buildable_sources() -> tuple[str, ...]:
    """Every source that a build may name, in the order in which builds read them."""
    own = (*LABELS[:-1], "images")
    return (*own, *(name for name in find_added_sources() if name not in own))
