"""Which sources a build can take, and the numbers under which a dataset publishes their names.

Packages outside the project add sources through the entry point group ``talking_points.sources``: the entry's name is
the source's, its value a subclass of ``talking_points.sources.Source`` whose ``name`` is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from talking_points.records import SOURCES

GROUP = "talking_points.sources"

OWN_SOURCES = ("coco_parts",)
"""Sources of the project for a user's own part annotations: they give points, but are in no published dataset."""


def added_sources() -> dict[str, EntryPoint]:
    """The sources of other installed packages, in the order of their names; nothing of them is imported."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def buildable_sources() -> tuple[str, ...]:
    """Every source that a build may name, in the order in which builds read them."""
    known = (*SOURCES, *OWN_SOURCES)
    return (*known, *(name for name in added_sources() if name not in known))


def class_names(used: Iterable[str]) -> tuple[str, ...]:
    """The names of the ``source`` class label of a dataset that has the sources ``used``.

    The published ones keep their numbers in every dataset; others follow in alphabetical order.
    """
    return (*SOURCES, *sorted(set(used) - set(SOURCES)))
