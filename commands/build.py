"""``talking-points build``, in this process: nothing is started before it is known that something has to be made."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from commands.local import RECORDS, local_orchestration
from commands.orchestrator import active_settings, claim_port, orchestrator
from commands.outcome import print_outcome
from commands.outputs import open_output
from talking_points.build_config import BuildConfig
from talking_points.errors import InputError, RunError
from talking_points.instructions.config import InstructionBuildConfig
from talking_points.redaction import seal
from talking_points.stage_names import BUILD_STAGES
from tasks.dataset import make_dataset
from tasks.orders import Orders
from tasks.running.build_checks import check_build
from tasks.running.build_folder import build_folder, check_folder, request_cache_folder
from tasks.running.kept_stages import KeptStages, NotKept
from tasks.running.manifests import Manifest
from tasks.running.progress import STATUS_FILE, BuildProgress
from tasks.running.storage import Storage

_ELSEWHERE = ("PREFECT_API_URL", "PREFECT_RESULTS_", "PREFECT_DEFAULT_RESULT", "PREFECT_LOCAL_STORAGE", "PREFECT_TASK")
"""Beginnings of the settings with which Prefect has to be asked: where runs are recorded, where results lie and
whether they may be used."""


def build_dataset(settings: BuildConfig, config: str, overrides: Sequence[str], verbose: bool) -> dict[str, Any]:
    """Build, and print the outcome on stderr. Returns the numbers that are printed last. Raises as the flow does."""
    records = None if "://" in settings.output else Path(settings.output).absolute() / ".work" / "results"
    local_orchestration(verbose, records)
    # Wrong input is found before the orchestrator, which takes seconds to start.
    storage = open_output(settings.output)
    roots = check_build(settings)
    check_folder(storage, settings)
    result = find_finished(settings, storage, roots, records)
    if result is None:
        with orchestrator(claim_port(), lambda: importlib.import_module("flows.build_llamapointinpart")):
            from flows.build_llamapointinpart import build_llamapointinpart

            # The orchestrator records what a flow is called with.
            result = build_llamapointinpart(config, [seal(override) for override in overrides])
    print_outcome(storage)
    return result


def find_finished(
    settings: BuildConfig, storage: Storage, roots: Mapping[str, str], records: Path | None
) -> dict[str, Any] | None:
    """``find_kept_build`` of the dataset of points."""

    def make(stages: KeptStages) -> Manifest:
        return make_dataset(stages, Orders(settings, roots, request_cache_folder(storage)))

    return find_kept_build(settings, storage, records, make)


def find_kept_build(
    settings: BuildConfig | InstructionBuildConfig,
    storage: Storage,
    records: Path | None,
    make: Callable[[KeptStages], Manifest],
    order: Sequence[str] = BUILD_STAGES,
) -> dict[str, Any] | None:
    """The numbers of a build in which every shard is kept and holds, its status written as a run writes it; else None.

    The rule is that of a run, shard by shard: keys made of settings, versions and digests of inputs, records that are
    judged, files with their recorded content, the folder locked. Only Prefect is not asked, so that there is no run of
    it. Where runs are to be recorded on a server, where records may lie elsewhere, where something is to be published,
    and for all that goes wrong on the way, the answer is None as well: the flow is the one to say so.

    ``make`` walks the stages, whose names are in ``order``.
    """
    if records is None or settings.publish.repo or not _was_finished(storage) or not _is_up_to_us(records):
        return None
    try:
        with build_folder(settings) as storage:
            progress = BuildProgress(storage, workers=settings.workers, on_page=False, order=order)
            stages = KeptStages(storage, records)
            dataset = make(stages)
            with progress:
                stages.tell(progress)
            return progress.outcome(dataset)
    except (NotKept, InputError, RunError, OSError):
        return None


def _was_finished(storage: Storage) -> bool:
    """Whether the last build came to its end: of one that did not, there is more to hash than to gain."""
    try:
        return bool(storage.read_json(STATUS_FILE)["state"] == "finished" and storage.exists("manifest.json"))
    except (InputError, OSError, ValueError, LookupError, TypeError):
        return False


def _is_up_to_us(records: Path) -> bool:
    """Whether no variable and no profile says anything of results or of a server but what this command has set."""
    ours = os.environ.get(RECORDS) == str(records)
    return ours and not any(name.startswith(_ELSEWHERE) for name in active_settings() if name != RECORDS)
