"""What a build has done so far: on the terminal, as Prefect artifacts, and in ``.work/status.json``.

The file is written whenever a stage begins and a shard was made, so that it is true even after a kill; only shards that
were reused, hundreds in a second, may be missing from it for a moment.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from talking_points.escaping import for_markdown
from talking_points.redacted_console import RedactedConsole
from talking_points.redaction import redact, shown
from talking_points.stage_names import BUILD_STAGES
from talking_points.units import counted, format_duration, format_rate
from tasks.running.lease import LeaseLost, check_fence
from tasks.running.stages import SPENT, WORK
from tasks.running.status_tables import COLUMNS, brief_duration, stage_notes, stage_rows, worker_notes
from tasks.running.storage import Storage

if TYPE_CHECKING:
    from tasks.running.manifests import Manifest

STATUS_FILE = f"{WORK}/status.json"
_WRITE_EVERY = 2.0
"""Seconds between two updates of an artifact, and of the status file while shards are only reused."""
_REPORT_EVERY = 15.0
"""Seconds between two reports of a build on a cluster while it runs."""
_SLOWEST = 5
"""Shards that are named as the slowest ones of a run."""
_WORTH_SAYING = 120.0
"""Seconds below which nobody plans a day by what is left."""


@dataclass
class StageStatus:
    """Counts of one stage.

    ``seconds`` is the working time that its shards took when they were made, summed over workers and runs;
    ``executed_seconds`` and ``executed_rows`` are of the shards made in this run.
    """

    shards: int = 0
    executed: int = 0
    reused: int = 0
    failed: int = 0
    rows_in: int = 0
    rows: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    executed_seconds: float = 0.0
    executed_rows: int = 0
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def done(self) -> int:
        return self.executed + self.reused + self.failed

    @property
    def rows_per_second(self) -> float:
        """Rows that one worker makes in a second."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def remaining_seconds(self) -> float | None:
        """Working time of the shards to come, by those made in this run; None before the first of them."""
        left = self.shards - self.done
        if not left:
            return 0.0
        return left * self.executed_seconds / self.executed if self.executed else None


class BuildProgress:
    """Follows a build stage by stage. Use as a context manager around the whole build.

    ``planned`` gives working seconds per row of stages to come, as far as they are known before they run; ``workers``
    shards are made at a time. ``order``: all stages that there may be. Without ``on_page`` nothing is told to Prefect,
    which is not even imported.
    """

    def __init__(
        self,
        storage: Storage,
        console: Console | None = None,
        *,
        planned: Mapping[str, float | None] | None = None,
        workers: int = 1,
        on_page: bool = True,
        order: Sequence[str] = BUILD_STAGES,
    ) -> None:
        self.storage = storage
        self.console = console or RedactedConsole(stderr=True)
        self.stages: dict[str, StageStatus] = {}
        self.planned = dict(planned or {})
        self.workers = workers
        self.on_page = on_page
        self.order = tuple(order)
        self.failures: list[dict[str, Any]] = []
        self.error = ""
        self.seen_workers: list[dict[str, Any]] = []
        self.waits_for = ""
        self.slowest: list[dict[str, Any]] = []
        self.busy_seconds = 0.0
        self.offered_seconds = 0.0
        self._looked = time.monotonic()
        self.state = "running"
        self.started = time.monotonic()
        self.ended: float | None = None
        self._bars = Progress(
            TextColumn("{task.description:<15}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._bar: dict[str, TaskID] = {}
        self._artifact: dict[str, UUID] = {}
        self._written = 0.0
        self._published = 0.0
        self._reported = 0.0
        self._report_id: UUID | None = None

    def __enter__(self) -> BuildProgress:
        self._bars.start()
        if self.on_page:
            self._write(force=True)  # a run that goes on is not shown as the one before it ended
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        self._bars.stop()
        self.ended = time.monotonic()
        stopped = kind is not None and not issubclass(kind, Exception)
        self.state = "stopped" if stopped else "failed" if kind else "finished"
        if self.state == "failed" and not self.failures:  # what failed before a shard could has no other place
            self.error = redact(str(error))
        self._write(force=True)
        if not stopped and self.on_page:
            self._report_failures()
            self._report()

    def begin(self, stage: str, shards: int, rows_in: int) -> None:
        """A stage starts with so many shards and input rows."""
        self.stages[stage], self.waits_for = StageStatus(shards=shards, rows_in=rows_in), ""
        self._bar[stage] = self._bars.add_task(stage, total=shards, note="")
        if not self.on_page:
            return
        self._write(force=True)
        from prefect.artifacts import create_progress_artifact

        artifact = create_progress_artifact(
            progress=0.0, key=stage.replace("_", "-"), description=counted(shards, "shard")
        )
        if isinstance(artifact, UUID):
            self._artifact[stage] = artifact

    def expect(self, stage: str, shards: int) -> None:
        """A stage that has begun has further shards: the pieces of its result."""
        self.stages[stage].shards += shards
        self._bars.update(self._bar[stage], total=self.stages[stage].shards)

    def finish_shard(self, stage: str, manifest: Manifest, *, reused: bool, whole: bool = False) -> None:
        """One shard is there, made in this run or reused from an earlier one; or the ``whole`` that its pieces give."""
        status = self.stages[stage]
        status.reused += reused
        status.executed += not reused
        if whole:  # its rows are those of the pieces
            status.rows, status.rejected = 0, {}
        status.rows += manifest["rows"]
        status.rejected = dict(sorted((Counter(status.rejected) + Counter(manifest["rejected"])).items()))
        for name in SPENT:
            setattr(status, name, getattr(status, name) + manifest["details"].get(name, 0))
        status.seconds += manifest["seconds"]
        if not reused:
            status.executed_seconds += manifest["seconds"]
            status.executed_rows += 0 if whole else manifest["rows"]
            made = {"shard": f"{stage}-{manifest['shard']}", "seconds": manifest["seconds"], "rows": manifest["rows"]}
            self.slowest = sorted([*self.slowest, made], key=lambda shard: -shard["seconds"])[:_SLOWEST]
        self._show(stage, force=not reused)
        if status.executed == 1 and not reused:
            self._announce()

    def fail_shard(self, stage: str, shard: int, title: str, error: BaseException) -> None:
        """One shard has no result."""
        self.stages[stage].failed += 1
        self.failures.append(
            {
                "stage": stage,
                "shard": shard,
                "task": title,
                "error": shown(f"{type(error).__name__}: {error}"),
            }
        )
        self._show(stage, force=True)

    def show_workers(self, workers: list[dict[str, Any]], waits_for: str = "") -> None:
        """What every worker of a cluster does now, and what none of them can do."""
        now = time.monotonic()
        self.workers = sum(worker["threads"] for worker in workers) or self.workers
        for worker in self.seen_workers:
            self.offered_seconds += (now - self._looked) * worker["threads"]
            self.busy_seconds += (now - self._looked) * min(len(worker["tasks"]), worker["threads"])
        self.seen_workers, self._looked = workers, now
        if waits_for != self.waits_for:
            self.wait(waits_for)
        self._write(force=False)
        if self.on_page and now - self._reported >= _REPORT_EVERY:
            self._reported = now
            with suppress(Exception):  # what is shown meanwhile; the last report says all
                self._report()

    def say(self, line: str) -> None:
        """Tell people something about the stage that runs."""
        self.console.print(f"{'':<15} {line}", highlight=False, soft_wrap=True)

    def wait(self, line: str) -> None:
        """Tell people what is waited for, here and in the status; nothing any more where ``line`` is empty."""
        self.waits_for = line
        if line:
            self.say(line)
        self._write(force=self.on_page)

    def end(self, stage: str) -> None:
        """A stage is over: one line for people, one last update of its artifact."""
        status = self.stages[stage]
        if stage in self._artifact:
            self._publish(stage)
        self._write(force=True)
        if not self.console.is_terminal:
            self.console.print(f"{stage:<15} {_line(status)}", highlight=False, soft_wrap=True)

    @property
    def _elapsed(self) -> float:
        """Seconds of the build so far; once it is over, the report and the run's last message state the same."""
        return (self.ended or time.monotonic()) - self.started

    def summary(self) -> Mapping[str, Any]:
        """The status as JSON values, as written to ``.work/status.json``."""
        return {
            "stages": {name: asdict(status) for name, status in self.stages.items()},
            "order": self.order,
            "failures": self.failures,
            "error": self.error,
            "workers": self.seen_workers,
            "waits_for": self.waits_for,
            "idle_share": self.idle_share,
            "slowest": self.slowest,
            "estimate": self.estimate(),
            "seconds_left": self.seconds_left(),
            "state": self.state,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(self._elapsed, 1),
        }

    @property
    def idle_share(self) -> float | None:
        """The part of the time of a cluster's workers in which they had no task; None where there is no cluster."""
        if not self.offered_seconds:
            return None
        return round(max(0.0, 1 - self.busy_seconds / self.offered_seconds), 3)

    def describe(self) -> str:
        """The build in words: ``33 rows, 1 rejected, 2 shards made anew, 12 s``."""
        assembled = self.stages.get(self.order[-1])
        rows = f"{counted(assembled.rows, 'row')}, " if assembled and assembled.rows else ""
        rejected = sum(sum(status.rejected.values()) for status in self.stages.values())
        made = sum(status.executed for name, status in self.stages.items() if name != "index")
        reused = sum(status.reused for name, status in self.stages.items() if name != "index")
        failed = f", {len(self.failures):,} failed" if self.failures else ""
        shards = f"{counted(made, 'shard')} made{' anew' if reused else ''}"
        again = f", {reused:,} reused" if reused else ""
        state = "" if self.state in ("running", "finished") else f"{self.state}: "
        seconds = brief_duration(self._elapsed)
        return f"{state}{rows}{rejected:,} rejected, {shards}{again}{failed}, {seconds}"

    def outcome(self, dataset: Manifest) -> dict[str, Any]:
        """What a build prints last. Listing a source is not counted as a shard."""
        shards = [status for name, status in self.stages.items() if name != "index"]
        return {
            "dataset": redact(self.storage.output),
            "rows": dataset["rows"],
            "rejected": sum(dataset["details"]["rejected"].values()),
            "reused_shards": sum(status.reused for status in shards),
            "executed_shards": sum(status.executed for status in shards),
            "seconds": self.summary()["seconds"],
        }

    def estimate(self) -> dict[str, Any]:
        """The whole build, by the shards made so far: ``seconds_left``, and the stages that it leaves out as unknown.

        A stage that has not begun counts with its plan, corrected by how the planned stages before it have turned out.
        """
        left = self._working_seconds_left()
        known = sum(seconds for seconds in left.values() if seconds is not None)
        unknown = [name for name, seconds in left.items() if seconds is None]
        return {"seconds_left": round(known / self.workers, 1), "unknown": unknown}

    def seconds_left(self) -> dict[str, float | None]:
        """Until each stage that is not done is, once it has begun; None where nothing is known yet."""
        left = self._working_seconds_left()
        return {name: None if known is None else round(known / self.workers, 1) for name, known in left.items()}

    def _working_seconds_left(self) -> dict[str, float | None]:
        rows = next((status.rows_in for status in reversed(list(self.stages.values()))), 0)
        made = {name: self.stages[name] for name in self.planned if name in self.stages and self.stages[name].rows}
        expected = sum((self.planned[name] or 0.0) * status.rows for name, status in made.items())
        taken = sum(status.seconds for name, status in made.items() if self.planned[name])
        correction = taken / expected if expected else 1.0
        left: dict[str, float | None] = {}
        for name in [*self.stages, *(name for name in self.planned if name not in self.stages)]:
            known = self.stages[name].remaining_seconds if name in self.stages else None
            per_row = self.planned.get(name)
            if known is None and per_row is not None:
                known = per_row * correction * rows
            left[name] = known
        return left

    def _announce(self) -> None:
        """Tell people once per stage, after its first shard, how long the whole build is going to take."""
        found = self.estimate()
        if found["seconds_left"] >= _WORTH_SAYING:
            left = format_duration(found["seconds_left"])
            without = f", {', '.join(found['unknown'])} not yet known" if found["unknown"] else ""
            self.console.print(f"{'':<15} the whole build: about {left} to go{without}", highlight=False)

    def _show(self, stage: str, force: bool) -> None:
        status = self.stages[stage]
        rate = f", {format_rate(status.rows_per_second)}/s" if status.executed else ""
        self._bars.update(
            self._bar[stage],
            completed=status.done,
            note=f"{counted(status.rows, 'row')}{rate}, {sum(status.rejected.values())} rejected",
        )
        self._write(force)
        if stage in self._artifact and time.monotonic() - self._published >= _WRITE_EVERY:
            self._published = time.monotonic()
            self._publish(stage)

    def _report_failures(self) -> None:
        """Leave the failed shards on the run's page."""
        from prefect.artifacts import create_table_artifact

        if self.failures:
            description = "Retry this run to make these shards again."
            create_table_artifact(key="failed-shards", table=self.failures, description=description)

    def _report(self) -> None:
        """Leave the table and notes of ``talking-points status`` on the run's page, in the place of what was there."""
        from prefect import get_client
        from prefect.artifacts import create_markdown_artifact
        from prefect.client.schemas.actions import ArtifactUpdate

        summary = self.summary()
        found = [[for_markdown(cell) for cell in row] for row in stage_rows(summary)]
        # Of a finished build nothing is left: an empty column would only make the table wide.
        columns = len(COLUMNS) - (not any(row[-1] for row in found))
        marks = ["---", *["--:"] * (columns - 1)]
        rows = [row[:columns] for row in ([*COLUMNS], marks, *found)]
        table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        said = [*stage_notes(summary), *worker_notes(summary)]
        notes = "\n".join(f"- {for_markdown(note)}" for note in said)
        heading = f"# {for_markdown(redact(self.storage.output))}\n\n{for_markdown(self.describe())}"
        report = f"{heading}\n\n{table}\n\n{notes}\n"
        if self._report_id is None:
            made = create_markdown_artifact(key="build-report", markdown=report)
            self._report_id = made if isinstance(made, UUID) else None
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._report_id, ArtifactUpdate(data=report))

    def _publish(self, stage: str) -> None:
        from prefect.artifacts import update_progress_artifact

        status = self.stages[stage]
        update_progress_artifact(
            self._artifact[stage], progress=100.0 * status.done / max(status.shards, 1), description=_line(status)
        )

    def _write(self, force: bool) -> None:
        if not force and time.monotonic() - self._written < _WRITE_EVERY:
            return
        self._written = time.monotonic()
        lease = getattr(self.storage, "lease", None)
        try:
            # That a build has lost its output is no news about the output, in which its successor's stand by now.
            check_fence(self.storage, lease and lease.fence())
            self.storage.write_json(STATUS_FILE, self.summary())
        except LeaseLost:
            return
        except OSError as error:
            # A full disk fails the shards, with a message; the news about them must not fail the build first.
            self.console.print(f"cannot write {STATUS_FILE}: {error}")


def _line(status: StageStatus) -> str:
    parts = [f"{status.done:,}/{status.shards:,} shards", counted(status.rows, "row")]
    parts += [f"{status.reused} reused"] if status.reused else []
    parts += [f"{status.failed} failed"] if status.failed else []
    parts += [f"{sum(status.rejected.values())} rejected"] if status.rejected else []
    if status.executed:
        remaining = status.remaining_seconds or 0.0
        parts += [f"{format_rate(status.rows_per_second)} rows/s per worker"]
        parts += [f"about {format_duration(remaining)} of work left"] if remaining >= 1 else []
    parts += [f"{status.tokens_in:,} tokens read, {status.tokens_out:,} written"] if status.tokens_in else []
    return ", ".join(parts)
