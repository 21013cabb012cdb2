"""What a person sees at the end of a build: composition, splits, and where everything lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from talking_points.redacted_console import RedactedConsole
from talking_points.sources.protocol import reasons_in_words
from talking_points.units import counted
from tasks.running.storage import Storage


def print_outcome(storage: Storage) -> None:
    """Print the composition of the finished dataset and the paths it was written to, on stderr."""
    manifest = storage.read_json("manifest.json")
    console = RedactedConsole(stderr=True, highlight=False)
    console.print(composition_table(manifest))
    found = manifest["availability"]
    console.print(
        f"{found['objects_sampled']} of {found['objects_available']} object categories, "
        f"{found['pairs_sampled']} of {found['pairs_available']} (object, part) pairs; paper: 64 and 297"
    )
    for source, counts in manifest["sources"].items():
        if counts.get("skipped"):
            line = f"left out of {source}: {reasons_in_words(counts['skipped'])}"
            console.print(line, soft_wrap=True)
    for name in ("README.md", "data/", "figures/", "rejected/", "manifest.json"):
        if storage.exists(name.rstrip("/")):
            console.print(f"  {storage.path(name)}", soft_wrap=True)


def composition_table(manifest: Mapping[str, Any]) -> Table:
    """Points per source and split, and how many categories they reach (paper Figure 6)."""
    table = Table(
        title=f"{manifest['name']}: {counted(sum(manifest['rows'].values()), 'point')}", box=None, padding=(0, 2, 0, 0)
    )
    columns = ("source", "train", "test", "points", "images", "objects", "pairs", "most frequent")
    for column in columns:
        left = column in {"source", "most frequent"}
        table.add_column(column, justify="left" if left else "right", no_wrap=not column.startswith("most"))
    for source, counts in manifest["sources"].items():
        objects = {name: sum(parts.values()) for name, parts in manifest["composition"][source].items()}
        frequent = sorted(objects, key=lambda name: (-objects[name], name))[:3]
        numbers = [f"{counts[column]:,}" for column in columns[1:-1]]
        named = ", ".join(f"{name} {objects[name]}" for name in frequent)
        table.add_row(source, *numbers, named)
    return table
