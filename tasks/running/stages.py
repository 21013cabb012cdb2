"""The names of what lies around the shards of a build. Imports nothing: the status is made of them."""

from __future__ import annotations

from typing import Literal

WORK = ".work"
"""Folder of intermediate shards inside the output; the published dataset never refers to it."""

WAITING = "Waiting"
"""Name of the state of a shard that waits for a batch."""

OPTIONAL_STAGES = ("judge",)
"""Those that run only where the configuration asks for them."""

SPENT: tuple[Literal["requests", "tokens_in", "tokens_out"], ...] = ("requests", "tokens_in", "tokens_out")
"""What the texts of a shard took, in its manifest's details; answers from the request cache count as when paid."""
