"""Stage 1: one SIFT keypoint inside an annotated part per image (or per part), with its place in words."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from talking_points.build_config import KeypointConfig
from talking_points.candidates.build import build_candidates
from talking_points.records import CANDIDATE_SCHEMA, Candidate
from talking_points.sources import open_source
from talking_points.sources.protocol import SkippedImage
from talking_points.stop_requests import stop_if_requested
from tasks.index import read_entries
from tasks.running.shards import Manifest, Order, ShardWriter, shard_task
from tasks.running.storage import Storage

VERSION = 1


def run_candidates(order: Order) -> Manifest:
    """Read one shard of a source's entries; images without a usable keypoint go to the quarantine."""
    settings, environment = order["settings"], order["environment"]
    storage = Storage(environment["output"])
    source = open_source(settings["source"], environment["root"], split=settings["split"], **environment["options"])
    config = KeypointConfig.model_validate(settings["keypoints"])
    writer = ShardWriter(order, storage, folder=f"candidates/{source.name}")
    rows: list[Candidate] = []
    skipped: Counter[str] = Counter()
    for entry, sha256 in read_entries(storage.read_table(order["inputs"][0]["path"])):
        stop_if_requested()
        row = {"id": entry.image_id, "source": source.name, "image_path": entry.image_path}
        try:
            record = source.read(entry)
        except SkippedImage as reason:
            writer.reject(row, reason.reason, reason.detail)
            continue
        found, reasons = build_candidates(record, sha256, config)
        rows += found
        skipped += reasons
        if not found:
            writer.reject(row, "no_keypoint", ", ".join(f"{reason}: {n}" for reason, n in sorted(reasons.items())))
    table = pa.Table.from_pylist([vars(candidate) for candidate in rows], schema=CANDIDATE_SCHEMA)
    return writer.commit(table, {"skipped": dict(skipped + source.skipped)})


candidates = shard_task("candidates")(run_candidates)
