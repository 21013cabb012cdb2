"""Descriptions of a dataset that say almost the same: counted, and left out but for one where that is configured."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from talking_points.build_config import NearDuplicatesConfig
from talking_points.descriptions.near_duplicates import near_duplicate_texts, repeats, summary
from tasks.running.shards import ShardWriter


def without_repeats(
    writer: ShardWriter, rows: pa.Table, config: NearDuplicatesConfig
) -> tuple[pa.Table, dict[str, Any]]:
    """The rows that stay, and what the manifest says; ``rows`` has id, source, image_path and description.

    The first of a group in the order of the sample stays; the others are rejected, each naming the one that stays.
    """
    groups = near_duplicate_texts(rows["description"].to_pylist(), config.threshold)
    found = summary(groups, config.threshold)
    if not config.remove:
        return rows, found | {"removed": 0}
    kept_for = {number: group[0] for group in groups for number in group[1:]}
    chosen = rows.take(pa.array(sorted(kept_for), pa.int64())).to_pylist()
    for number, row in zip(sorted(kept_for), chosen, strict=True):
        detail = f"almost the text of {rows['id'][kept_for[number]]}"
        writer.reject(row, "near_duplicate", detail, row["description"])
    stays = sorted(set(range(rows.num_rows)) - repeats(groups))
    return rows.take(pa.array(stays, pa.int64())), found | {"removed": len(kept_for)}
