"""What generating, refining and verifying share: the rows that have every text so far, and these texts."""

from __future__ import annotations

from collections.abc import Mapping

from talking_points.descriptions.backends.protocol import RequestError
from talking_points.descriptions.verification import Verdict
from talking_points.records import Candidate
from tasks.running.manifests import Manifest
from tasks.running.storage import Storage
from tasks.running.text_shards import read_candidates, read_texts

Texts = Mapping[str, Mapping[str, str]]
"""Texts by column of the dataset and row id."""


def read_rows(
    storage: Storage, sample: Manifest, **columns: Manifest
) -> tuple[list[Candidate], dict[str, dict[str, str]]]:
    """Rows that have a text in all the columns, and the texts by column and row id."""
    texts = {name: read_texts(storage, shard) for name, shard in columns.items()}
    rows = [row for row in read_candidates(storage, sample) if all(row.id in column for column in texts.values())]
    return rows, texts


def show_captions(row: Candidate, texts: Texts, shown: str) -> tuple[str, str]:
    """Object and local caption of a row as the merge sees them: empty where ``merged_captions`` withholds one."""
    whole, local = (
        texts[name][row.id] if shown in ("both", name) else "" for name in ("object_caption", "local_caption")
    )
    return whole, local


def explain(verdict: Verdict) -> RequestError:
    """Why a text was refused, as the error that rejects its row."""
    fatal = [finding for finding in verdict.findings if finding.fatal]
    return RequestError(fatal[0].code, "; ".join(finding.detail for finding in fatal))
