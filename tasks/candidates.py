"""Stage 1: one SIFT keypoint inside an annotated part per image (or per part), with its place in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
from pydantic import JsonValue

from talking_points.build_config import KeypointConfig
from talking_points.candidates.build import build_candidates
from talking_points.config import Section
from talking_points.records import CANDIDATE_SCHEMA, Candidate
from talking_points.sources import open_source
from talking_points.sources.protocol import SkippedImage
from talking_points.stop_requests import stop_if_requested
from tasks.index import read_entries
from tasks.running.manifests import Manifest
from tasks.running.shards import Inputs, Order, ShardWriter, shard_task
from tasks.running.source_images import check_listed

VERSION = 1


class Settings(Section):
    """What can change the candidates. Options that name a file are left out: its content is in the listing."""

    source: str
    split: str | None
    options: dict[str, JsonValue]
    keypoints: KeypointConfig


@dataclass(frozen=True)
class ListingInput(Inputs):
    """One shard of a source's entries."""

    entries: Manifest


def run_candidates(order: Order[Settings, ListingInput]) -> Manifest:
    """Read one shard of a source's entries; images without a usable keypoint go to the quarantine."""
    settings = order.settings
    place = order.environment.sources[settings.source]
    source = open_source(settings.source, place.root, split=settings.split, **place.options)
    writer = ShardWriter(order, folder=f"candidates/{source.name}")
    rows: list[Candidate] = []
    skipped: Counter[str] = Counter()
    for entry, digests in read_entries(writer.storage.read_table(order.inputs.entries["path"])):
        stop_if_requested()
        for name, sha256 in zip(entry.files, digests, strict=True):
            check_listed(order.environment, source.root / name, sha256)
        row = {"id": entry.image_id, "source": source.name, "image_path": entry.image_path}
        try:
            record = source.read(entry)
        except SkippedImage as reason:
            writer.reject(row, reason.reason, reason.detail)
            continue
        found, reasons = build_candidates(record, digests[0], settings.keypoints)
        rows += found
        skipped += reasons
        if not found:
            writer.reject(row, "no_keypoint", ", ".join(f"{reason}: {n}" for reason, n in sorted(reasons.items())))
    table = pa.Table.from_pylist([vars(candidate) for candidate in rows], schema=CANDIDATE_SCHEMA)
    return writer.commit(table, {"skipped": dict(skipped + source.skipped)})


candidates = shard_task("candidates")(run_candidates)
