"""What people are shown of the status of a build (``BuildProgress.summary()``): a table and lines below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from talking_points.stage_names import BUILD_STAGES
from talking_points.units import format_rate
from tasks.running.stages import OPTIONAL_STAGES

_SHOWN = 20
"""Workers of which it is shown what they do."""

COLUMNS = ("stage", "shards", "reused", "failed", "rows", "rejected", "work", "left")
"""``work`` is what the shards took when they were made, summed over workers and runs; ``left`` is until the stage is
done, by the shards made so far or else by the plan. Eighty characters hold them."""


def stage_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """What people are shown of ``BuildProgress.summary()``: a row per stage, begun or to come, in its ``order`` (that
    of ``BUILD_STAGES`` where an older status says none) and that of ``COLUMNS``."""
    rows = []
    left = summary.get("seconds_left", {})
    for name in summary.get("order", BUILD_STAGES):
        stage = summary["stages"].get(name)
        remaining = brief_duration(left.get(name))
        if stage is None and name in OPTIONAL_STAGES:
            continue
        if stage is None:
            rows.append([name, "to come", *[""] * 5, remaining])
            continue
        done = stage["executed"] + stage["reused"] + stage["failed"]
        counts = [stage["reused"], stage["failed"], stage["rows"], sum(stage["rejected"].values())]
        shards = f"{done:,}/{stage['shards']:,}"
        rest = "" if done == stage["shards"] else remaining
        rows.append([name, shards, *(f"{count:,}" for count in counts), brief_duration(stage["seconds"]), rest])
    return rows


def stage_notes(summary: Mapping[str, Any]) -> list[str]:
    """What the table has no room for, stage by stage: why rows were rejected, rates, requests and tokens."""
    notes = []
    for name in summary.get("order", BUILD_STAGES):
        stage = summary["stages"].get(name)
        if stage is None:
            continue
        parts = [f"{reason} {count:,}" for reason, count in stage["rejected"].items()]
        if stage["requests"]:
            rate = stage["rows"] / stage["seconds"] if stage["seconds"] else 0.0
            # Rules write without reading: no model was asked, and nothing counted is a request or a token of one.
            if stage["tokens_in"] or not stage["tokens_out"]:
                parts.append(f"{stage['requests']:,} requests")
                parts.append(f"{stage['tokens_in']:,} tokens read, {stage['tokens_out']:,} written")
            parts.append(f"{format_rate(rate)} rows/s per worker")
        if parts:
            notes.append(f"{name}: {', '.join(parts)}")
    return notes


def worker_notes(summary: Mapping[str, Any]) -> list[str]:
    """Of a build on a cluster: what its workers do, how much of their time they had nothing to do, its slow shards."""
    workers, waits_for = summary.get("workers") or [], summary.get("waits_for") or ""
    waiting = [waits_for] if waits_for and summary["state"] == "running" else []
    if not workers and summary.get("idle_share") is None:
        return waiting
    rows = sum(stage.get("executed_rows", 0) for stage in summary["stages"].values())
    idle = summary.get("idle_share")
    parts = [f"{len(workers)} worker(s)", f"{format_rate(rows / max(summary['seconds'], 1))} rows/s of all stages"]
    parts += [f"{idle:.0%} of their time idle"] if idle is not None else []
    notes = [", ".join(parts), *waiting]
    if summary["state"] == "running":
        for worker in workers[:_SHOWN]:
            does, note = ", ".join(worker["tasks"][:3]) or "idle", worker.get("note")
            notes.append(f"{worker['worker']}: {does}{f' ({note})' if note else ''}")
    slow = [f"{shard['shard']} {brief_duration(shard['seconds'])}" for shard in summary.get("slowest") or []]
    return notes + ([f"slowest shards: {', '.join(slow)}"] if slow else [])


def brief_duration(seconds: float | None) -> str:
    """``12.3 s``, ``4 min``, ``2 h 05 min``; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
