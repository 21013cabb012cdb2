"""``talking-points compare``: two builds side by side on the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from talking_points.publishing.comparison import Comparison
from talking_points.redacted_console import RedactedConsole


def print_comparison(comparison: Comparison) -> None:
    """The settings that differ, the numbers of both builds, and how many texts differ."""
    console = RedactedConsole()
    for setting in comparison.settings:
        console.print(setting, highlight=False, soft_wrap=True)
    table = Table()
    for column in ("", *comparison.names):
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    for name, one, other in comparison.metrics:
        table.add_row(name, one, other if one == other else Text(other, "bold"))
    console.print(table)
    first, second = comparison.only
    console.print(
        f"texts that are the same: {comparison.same:,}, that differ: {len(comparison.different):,}; "
        f"rows in the first only: {first:,}, in the second only: {second:,}",
        highlight=False,
        soft_wrap=True,
    )
