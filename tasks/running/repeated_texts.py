"""Descriptions of a dataset that say almost the same: counted, and left out but for one where that is configured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from talking_points.build_config import NearDuplicatesConfig
from talking_points.descriptions.near_duplicates import near_duplicate_texts, repeats, summary
from tasks.running.shards import ShardWriter


def without_repeats(
    writer: ShardWriter, rows: pa.Table, config: NearDuplicatesConfig
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Which rows stay, and what the manifest says; ``rows`` has id, source, image_path and description.

    The first of a group in the order of the sample stays; the others are rejected, each naming the one that stays.
    """
    groups = near_duplicate_texts(rows["description"].to_pylist(), config.threshold)
    found = summary(groups, config.threshold)
    stays = np.ones(rows.num_rows, np.bool_)
    if not config.remove:
        return stays, found | {"removed": 0}
    kept_for = {number: group[0] for group in groups for number in group[1:]}
    chosen = rows.take(pa.array(sorted(kept_for), pa.int64())).to_pylist()
    for number, row in zip(sorted(kept_for), chosen, strict=True):
        detail = f"almost the text of {rows['id'][kept_for[number]]}"
        writer.reject(row, "near_duplicate", detail, row["description"])
    stays[sorted(repeats(groups))] = False
    return stays, found | {"removed": len(kept_for)}
