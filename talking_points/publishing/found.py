"""How well a build's descriptions are found, for its quality report: mPCK of a saved evaluation, by who wrote them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from talking_points.config import ConfigError
from talking_points.evaluation.pck import PckDefinition, mpck
from talking_points.evaluation.saved_reports import read_folder


def mpck_by_writer(rows: Sequence[Mapping[str, Any]], evaluation: Path) -> list[dict[str, Any]]:
    """Of each report in ``evaluation`` its mPCK in [0, 100] with its interval, and that of the rows that a model wrote
    and of the others.

    ``rows`` have ``id`` and ``flags``; composed ones carry that flag. Points of other datasets are left out. Raises
    ``ConfigError`` where no report is of these rows.
    """
    writers = {row["id"]: "composed" if "composed" in row["flags"] else "written" for row in rows}
    found = []
    for report in read_folder(evaluation).values():
        distances = defaultdict(list)
        for point in report.predictions:
            if point["id"] in writers:
                distances[writers[point["id"]]].append(point["distance"])
        if not distances:
            continue
        definition = PckDefinition.from_dict(report.definition)
        by_writer = {
            writer: {"points": len(values), "mpck": round(mpck(values, definition), 2)}
            for writer, values in sorted(distances.items(), reverse=True)
        }
        everywhere = [value for values in distances.values() for value in values]
        found.append(
            {
                "descriptions": report.name,
                "localizer": report.localizer,
                "points": len(everywhere),
                "mpck": round(mpck(everywhere, definition), 2),
                # That of the whole report, which says nothing about a part of its points.
                "interval": report.interval if len(everywhere) == len(report.predictions) else None,
                "by_writer": by_writer,
            }
        )
    if not found:
        raise ConfigError(f"no report in {evaluation} is of points of this dataset: evaluate its descriptions first")
    return found
