"""What a run says of itself on its page in Prefect: a name, tags, and a last message in words.

A name that somebody typed stays. The names that Prefect makes up give way: two words such as ``golden-otter``, and in
the form of its page a star such as ``pi48-vega`` or ``beta-lyrae-cluster``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from coolname.data import config as coolname_words
from prefect import get_client, runtime
from prefect.context import FlowRunContext
from prefect.states import Completed, Crashed

from talking_points.build_config import BuildConfig
from talking_points.config import Section
from talking_points.escaping import for_terminal
from talking_points.records import SOURCES
from talking_points.redaction import redact
from talking_points.regular_files import read_text
from talking_points.units import counted
from tasks.running.run_form import load_run

_LETTERS = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|"
    "psi|omega"
)
_BODIES = (
    "[a-z]|adjunct|anomaly|band|boundary|cloud|cluster|collapse|conflux|expanse|field|fringe|instability|manifold|mass|"
    "nebula|point|quadrant|reach|ring|sector|shift|tensor|terminus|vector|void|warp"
)
_STAR = re.compile(rf"(?:{_LETTERS})(?:\d{{1,3}}-[a-z-]+|-[a-z-]+-(?:{_BODIES}))")
"""A Greek letter with a number, a name, and often a last word; without both it could be what somebody typed."""


def name_run(describe: Callable[[Mapping[str, Any]], str]) -> Callable[[], str]:
    """For ``flow_run_name``: the name that was typed, else what ``describe`` makes of the run's parameters."""

    def name() -> str:
        given = runtime.flow_run.name
        if given and not is_made_up(given):
            return str(given)
        parameters = runtime.flow_run.parameters
        try:
            return for_terminal(describe(parameters))
        except Exception:
            # What is wrong with the parameters the run itself says, in full.
            return str(Path(str(parameters.get("config", runtime.flow_run.flow_name))).stem)

    return name


def describe_build(parameters: Mapping[str, Any]) -> str:
    """Output, size and sources of a build, e.g. ``llamapointinpart-paper: 21,000 points``."""
    settings = load_run(BuildConfig, **parameters)
    sources = settings.open_sources
    wanted = [source.points for source in sources.values()]
    size = "all points"
    if settings.limit is not None:
        size = f"at most {counted(settings.limit, 'point')}"
    elif wanted and all(wanted):
        size = f"{counted(sum(points or 0 for points in wanted), 'point')}"
    chosen = "" if not sources or set(sources) == set(SOURCES) else f" of {', '.join(sources)}"
    return f"{last_part(settings.output)}: {size}{chosen}"


def describe_output(kind: str, model: type[Section], place: str = "output") -> Callable[[Mapping[str, Any]], str]:
    """For ``name_run``: what is made, and the folder it goes to, e.g. ``descriptor: build/train/tiny``."""

    def describe(parameters: Mapping[str, Any]) -> str:
        settings = load_run(model, **parameters)
        return redact(f"{kind}: {getattr(settings, place)}")

    return describe


def tag_training(stage: str, preset: str, dataset: str) -> None:
    """Tag the run as a training, with its stage, its preset and its dataset."""
    tag_run("training", stage, f"preset:{preset}")
    tag_dataset(dataset)


def tag_build(config: str, settings: BuildConfig) -> None:
    """Tag the run as a build, with its configuration and its sources."""
    tag_run("build", f"preset:{Path(config).stem}", *(f"source:{name}" for name in settings.open_sources))


def last_part(place: str | Path) -> str:
    """The last name of a path or URL."""
    return redact(str(place).rstrip("/").rpartition("/")[2])


def is_made_up(name: str) -> bool:
    """Whether Prefect made the name up: words of one of its generators, joined by hyphens."""
    words = name.split("-")
    return bool(_STAR.fullmatch(name)) or (len(words) > 1 and _vocabulary().issuperset(words))


def tag_run(*tags: str) -> None:
    """Add tags to the run that is under way, beside those it has."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    with get_client(sync_client=True) as client:
        known = client.read_flow_run(context.flow_run.id).tags
        client.update_flow_run(context.flow_run.id, tags=list(dict.fromkeys([*known, *tags])))


def tag_dataset(dataset: str) -> None:
    """Tag the run with the fingerprint of the built dataset it uses, where that is known."""
    try:
        manifest = json.loads(read_text(Path(dataset, "manifest.json")))
        tag_run(f"dataset:{manifest['fingerprint']}")
    except (OSError, ValueError, LookupError, TypeError):
        return


def end_run(message: str, result: dict[str, Any]) -> Any:
    """What a flow returns so that its last message is in words; who calls the flow gets ``result``."""
    return Completed(message=redact(for_terminal(message)), data=result)


def end_training(stage: str, result: dict[str, Any]) -> Any:
    """What a training flow returns: ``descriptor made in 312 s``, or that it was there already."""
    words = "was made before" if result.get("reused") else f"made in {result['seconds']:,.0f} s"
    return end_run(f"{stage} {words}", result)


@cache
def _vocabulary() -> frozenset[str]:
    words: set[str] = set()
    for entry in cast(dict[str, dict[str, Any]], coolname_words).values():
        words.update(entry.get("words", ()))
        for phrase in entry.get("phrases", ()):
            words.update(phrase.split() if isinstance(phrase, str) else phrase)
    return frozenset(words)


def crash_task_run(task_run: UUID, why: str) -> None:
    """Say on the page of a task whose worker was lost that it does not run any more; it cannot do so itself."""
    with suppress(Exception), get_client(sync_client=True) as client:  # what is shown must not end the build
        client.set_task_run_state(task_run, Crashed(message=redact(why)), force=True)
