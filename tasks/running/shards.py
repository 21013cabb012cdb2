"""The stage contract: what a shard task gets, what it gives, and when it need not run again.

A stage is a pure function of (input shards, its settings). Each stage file declares both: ``Settings``, and an
``Inputs`` whose manifests go by name. Its task gets one ``Order`` and returns one small manifest. The cache key is
made of the stage's name and version, the settings that can change its output, and the digests of its inputs: never of
paths, run ids or source code.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import pyarrow as pa
from pydantic import JsonValue

from talking_points.allocator import keep_freed_memory
from talking_points.config import Section, fingerprint
from talking_points.descriptions.asking import WholesaleFailure
from talking_points.descriptions.spending import Spending
from talking_points.errors import AnswersPending, RunError
from talking_points.redaction import protect_settings, redact_errors
from talking_points.stop_requests import Stopped, stop_if_requested, watch_for_stop
from tasks.running.claims import Attempt, begin_attempt, this_worker, was_begun
from tasks.running.lease import Fence, stop_asked
from tasks.running.manifests import Details, Manifest, add_seal, holds
from tasks.running.result_records import ShardTask
from tasks.running.stages import WAITING, WORK
from tasks.running.storage import Storage, write_small
from tasks.running.worker_checks import Expectation, check_worker

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

REJECTED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("image_path", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
"""A row that was left out: where, why, and the text that was refused, if any."""


@dataclass(frozen=True)
class Inputs:
    """The manifests that a stage reads. Fields are a manifest, several of them, or further inputs."""

    def manifests(self) -> list[Manifest]:
        """All of them, in the order of the fields; it is part of the cache key."""
        found: list[Manifest] = []
        for declared in fields(self):
            value = getattr(self, declared.name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Inputs):
                    found += item.manifests()
                elif isinstance(item, dict):
                    found.append(cast(Manifest, item))
        return found


class Place(Section):
    """Where a source lies, and how its reader is told to read it."""

    root: str
    options: dict[str, JsonValue]


class Environment(Section):
    """What cannot change the output of any stage: places of this machine, and how much may be rejected."""

    output: str
    sources: dict[str, Place]
    cache: str
    max_rejected_share: float
    spending: Spending | None = None
    fence: Fence | None = None
    answers: str | None = None
    """The URL of a request cache that workers on several machines share."""
    expected: Expectation | None = None

    @property
    def is_shared(self) -> bool:
        """Whether its task may run on another machine."""
        return self.fence is not None and self.fence.shared

    @property
    def roots(self) -> dict[str, str]:
        """The folder of every source."""
        return {name: place.root for name, place in self.sources.items()}


SettingsT = TypeVar("SettingsT", bound=Section)
InputsT = TypeVar("InputsT", bound=Inputs)


@dataclass(frozen=True)
class Order(Generic[SettingsT, InputsT]):
    """Work for one task, called ``title`` on the run's page. ``settings`` can change the output, as JSON values.

    ``pieces``: what tasks before have made of the same inputs and settings for it (``pieces.InPieces``).
    """

    stage: str
    version: int
    shard: int
    title: str
    inputs: InputsT
    settings: SettingsT
    environment: Environment
    pieces: tuple[Manifest, ...] = ()


AnyOrder = Order[Any, Any]


class ShardFailed(RunError):
    """The shard as a whole has no trustworthy result."""


def order_key(order: AnyOrder) -> str:
    """The cache key of an order: stage, version, shard number, settings, digests of the inputs."""
    digests = [sorted(manifest["files"].values()) for manifest in order.inputs.manifests()]
    identity = [order.stage, order.version, order.shard, order.settings.model_dump(mode="json"), digests]
    return f"{order.stage}-{order.shard:05d}-{fingerprint(identity)}"


def count_rows(order: AnyOrder) -> int:
    """Rows of the first kind of input: the others carry further columns of the same rows."""
    inputs = order.inputs.manifests()
    return sum(manifest["rows"] for manifest in inputs if manifest["stage"] == inputs[0]["stage"])


def shard_task(stage: str) -> Callable[[Callable[[Order[SettingsT, InputsT]], Manifest]], ShardTask]:
    """Decorator: a Prefect task named ``stage`` whose sealed manifest is kept under the order's key.

    A shard that is asked to stop ends Cancelled, not Failed; one whose answers a batch has yet to give ends in a state
    named ``WAITING`` and is run again when they are there.
    """
    as_task = partial(
        ShardTask,
        name=stage,
        task_run_name="{order.title}",
        cache_key_fn=_key_of_run,
        persist_result=True,
        cache_result_in_memory=False,
        retries=0,
    )

    def decorate(run: Callable[[Order[SettingsT, InputsT]], Manifest]) -> ShardTask:
        @wraps(run)
        @redact_errors
        def run_and_seal(order: Order[SettingsT, InputsT]) -> Manifest | State[Any]:
            keep_freed_memory()
            _protect_secrets(order)
            try:
                _begin_on_cluster(order)
                return _made_by_another(order) or add_seal(run(order))
            except Stopped as stopped:
                from prefect.states import Cancelled

                _keep_no_result()
                return Cancelled(message=str(stopped))
            except AnswersPending as pending:
                from prefect.states import Completed

                _keep_no_result()
                return Completed(name=WAITING, message=str(pending))
            except (OSError, WholesaleFailure) as error:
                if not order.environment.is_shared:
                    raise
                # A full disk, a file that is not readable, a key, a model or a server: whose, people have to be told.
                if isinstance(error, WholesaleFailure):
                    raise WholesaleFailure(f"on the worker {this_worker()}: {error}") from error
                raise RunError(f"on the worker {this_worker()}: {type(error).__name__}: {error}") from error

        return as_task(run_and_seal)

    return decorate


def _keep_no_result() -> None:
    from prefect.transactions import get_transaction

    transaction = get_transaction()
    if transaction is not None:
        transaction.write_on_commit = False


def _begin_on_cluster(order: AnyOrder) -> None:
    """On a worker that may be on another machine: is it fit for the build, and is the build to go on?"""
    fence, expected = order.environment.fence, order.environment.expected
    if fence is None or not order.environment.is_shared:
        return
    storage = Storage(order.environment.output)
    watch_for_stop(partial(stop_asked, storage, fence.number))
    stop_if_requested()
    if expected is not None:
        check_worker(expected, order.stage)


def _made_by_another(order: AnyOrder) -> Manifest | None:
    """What an earlier attempt has made whose worker was lost only afterwards: a cluster then runs the task again, while
    the driver may already go on with the files of the first, which a second attempt would replace.
    """
    environment = order.environment
    if not environment.is_shared:
        return None
    storage = Storage(environment.output)
    if not was_begun(storage, order.stage, order.shard):
        return None
    from tasks.running.prefect_tasks import find_manifest

    manifest = find_manifest(order_key(order))
    return manifest if manifest is not None and holds(storage, manifest) else None


def _protect_secrets(order: AnyOrder) -> None:
    """Let nothing that goes out of this process show the keys among the options of sources and backends."""
    protect_settings(order.environment.model_dump(mode="json"))
    step = getattr(order.settings, "step", None)
    if step is not None:
        protect_settings(step.config.model_dump(mode="json"))


def _key_of_run(_context: Any, parameters: dict[str, Any]) -> str:
    return order_key(parameters["order"])


@dataclass
class ShardWriter:
    """Collects the rows and the rejected rows of one shard and commits both, with a manifest."""

    order: AnyOrder
    folder: str = ""
    rejected: list[dict[str, str]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.attempt  # noqa: B018  # it begins now

    @cached_property
    def storage(self) -> Storage:
        """The output of the build."""
        return Storage(self.order.environment.output)

    @cached_property
    def attempt(self) -> Attempt:
        """What fences this writer off where somebody else makes the same shard."""
        return begin_attempt(self.storage, self.order.environment.fence, self.order.stage, self.order.shard)

    def reject(self, row: Mapping[str, Any], reason: str, detail: str = "", text: str = "") -> None:
        """Quarantine one row; it goes no further, and the reason is kept with it."""
        self.rejected.append(
            {
                "id": str(row.get("id", "")),
                "source": str(row.get("source", "")),
                "image_path": str(row.get("image_path", "")),
                "stage": self.order.stage,
                "reason": reason,
                "detail": detail,
                "text": text,
            }
        )

    def write_part(self, name: str, table: pa.Table) -> None:
        """Write one file of the shard, unless the shard is somebody else's by now."""
        with self.writing(name) as path:
            write_small(path, table)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write to; it becomes ``name`` unless the shard is somebody else's by then."""
        self.attempt.check()
        with self.storage.writing(name) as path:
            yield path
        try:
            self.attempt.check()
        except RunError:
            if self.attempt.ending or self.attempt.number:
                self.storage.remove(name)
            raise

    def name(self, kind: str) -> str:
        """Name of a further file of the shard, to be removed with it: ``FOLDER/NUMBER.KIND``."""
        return f"{WORK}/{self.folder or self.order.stage}/{self.order.shard:05d}{self.attempt.ending}.{kind}"

    def commit(self, table: pa.Table, details: Details | None = None) -> Manifest:
        """Write the shard (and its rejected rows, if any) and return its manifest."""
        folder = f"{WORK}/{self.folder or self.order.stage}"
        stem = f"{folder}/{self.order.shard:05d}{self.attempt.ending}"
        names = {f"{stem}.parquet": table}
        if self.rejected:
            names[f"{stem}.rejected.parquet"] = pa.Table.from_pylist(self.rejected, schema=REJECTED_SCHEMA)
        for name, content in names.items():
            self.write_part(name, content)
        files = {name: self.storage.sha256(name) for name in names}
        self.attempt.remove_earlier(folder, self.order.shard)
        path = f"{stem}.parquet"
        return Manifest(
            stage=self.order.stage,
            shard=self.order.shard,
            path=path,
            rows=table.num_rows,
            rejected=dict(sorted(Counter(row["reason"] for row in self.rejected).items())),
            files=files,
            seconds=round(time.perf_counter() - self.started, 3),
            details=details or {},
        )


def write_part(writer: ShardWriter, folder: str, number: int, kind: str, table: pa.Table) -> Manifest:
    """Write one of several shards that a single task cuts, ``FOLDER/NUMBER.KIND``, and return the manifest that later
    stages get as input.
    """
    name = f"{WORK}/{folder}/{number:05d}{writer.attempt.ending}.{kind}"
    writer.write_part(name, table)
    return describe_part(writer, number, name, table.num_rows)


def describe_part(writer: ShardWriter, number: int, name: str, rows: int) -> Manifest:
    """The manifest of a file that a task has written beside its own."""
    return Manifest(
        stage=writer.order.stage,
        shard=number,
        path=name,
        rows=rows,
        rejected={},
        files={name: writer.storage.sha256(name)},
        seconds=0.0,
        details={},
    )


def commit_parts(writer: ShardWriter, parts: list[Manifest], details: Details | None = None) -> Manifest:
    """The manifest of a task that cut ``parts``: it holds as long as every one of them does."""
    manifest = writer.commit(pa.table({"path": pa.array([part["path"] for part in parts], pa.string())}), details)
    manifest["rows"] = sum(part["rows"] for part in parts)
    manifest["details"]["shards"] = parts
    for part in parts:
        manifest["files"].update(part["files"])
    return manifest
