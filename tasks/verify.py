"""Stage 7: judge every description once more, whoever wrote it, and join the row together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from talking_points.config import Section
from talking_points.descriptions import verification
from talking_points.descriptions.asking import release_backend
from talking_points.records import CANDIDATE_SCHEMA
from tasks.refine import DraftedInputs
from tasks.running.manifests import Manifest
from tasks.running.merging import explain, read_rows
from tasks.running.shards import Order, ShardWriter, shard_task
from tasks.running.text_shards import Checks, check_share

VERSION = 3
"""To be raised with every change to verifying or the rows."""

VERIFIED_SCHEMA = pa.schema(
    [
        *CANDIDATE_SCHEMA,
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("object_caption", "local_caption", "draft", "description")
        ),
    ]
)
"""A finished row without its image."""


class Settings(Section):
    """What can change the verdicts."""

    verification: Checks


@dataclass(frozen=True)
class DescribedInputs(DraftedInputs):
    """One shard of the sample, its captions, its drafts and its descriptions."""

    description: Manifest


def run_verify(order: Order[Settings, DescribedInputs]) -> Manifest:
    """Judge every description and join the row together."""
    # Every text is written: what comes after the build has the accelerator to itself.
    release_backend()
    writer, inputs = ShardWriter(order), order.inputs
    rows, texts = read_rows(
        writer.storage,
        inputs.sample,
        object_caption=inputs.object_caption,
        local_caption=inputs.local_caption,
        draft=inputs.draft,
        description=inputs.description,
    )
    composed = {
        name for manifest in (inputs.draft, inputs.description) for name in manifest["details"].get("composed", [])
    }
    finished: list[dict[str, Any]] = []
    for row in rows:
        verdict = verification.verify(texts["description"][row.id], row, order.settings.verification)
        if verdict.accepted:
            flags = sorted({*row.flags, *verdict.flags, *(["composed"] if row.id in composed else [])})
            finished.append(vars(row) | {name: column[row.id] for name, column in texts.items()} | {"flags": flags})
        else:
            error = explain(verdict)
            writer.reject(row.__dict__, error.reason, error.detail, texts["description"][row.id])
    check_share(writer, len(rows))
    return writer.commit(pa.Table.from_pylist(finished, schema=VERIFIED_SCHEMA))


verify = shard_task("verify")(run_verify)
