"""A stage that does nothing but wait, for ``benchmarks/scale.py``: workers import it by its name."""

from __future__ import annotations

import time

import pyarrow as pa

from talking_points.config import Section
from tasks.running.manifests import Manifest
from tasks.running.shards import Inputs, Order, ShardWriter, shard_task


class Settings(Section):
    """How long a shard waits; ``output`` tells the shards of one run from those of another."""

    seconds: float
    output: str


@shard_task("candidates")
def wait(order: Order[Settings, Inputs]) -> Manifest:
    """Wait, and commit one row, which says when it was begun (seconds since 1970)."""
    began = time.time()
    writer = ShardWriter(order)
    time.sleep(order.settings.seconds)
    return writer.commit(pa.table({"id": [str(order.shard)], "began": [began]}))
