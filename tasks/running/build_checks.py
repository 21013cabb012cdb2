"""What is checked before a build spends anything: sources, prompts and backends."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any, cast

from talking_points.build_config import BuildConfig, SourceConfig
from talking_points.config import ConfigError
from talking_points.descriptions.backends import BACKENDS, check_capabilities, find_missing_model, what_is_missing
from talking_points.descriptions.backends.protocol import Step
from talking_points.descriptions.prompts import prompt_digest
from talking_points.extras import how_to_install
from talking_points.instructions.config import InstructionBuildConfig, region_sources
from talking_points.instructions.described_points import identify_points
from talking_points.instructions.phrasings import load_phrasings
from talking_points.models.model_folders import check_model
from talking_points.sources import open_source
from talking_points.sources.protocol import SourceError
from tasks.running.runner_checks import check_runner


def check_build(settings: BuildConfig, *, installed: bool = True) -> dict[str, str]:
    """Check sources, prompts and backends before anything is spent; returns the resolved folder of every source.

    A plan for another machine is checked with ``installed=False``: it may name packages that are missing on this one.
    Raises ``ConfigError`` with all problems of the backends, or for the first source or prompt that cannot be read.
    """
    if not settings.open_sources:
        raise ConfigError(
            "no source has a root: set at least one of sources.{pascal_part116,ade20k_part234,partimagenet}.root, "
            "or draw sample sources with 'talking-points draw-sample DIR' (--config build/sample.yaml reads those in "
            "build/sample)"
        )
    check_runner(settings.runner)
    if settings.request_cache is not None:
        from talking_points.descriptions.shared_cache import check_shared_cache

        check_shared_cache(settings.request_cache)
    problems = []
    for step, section in settings.asking.items():
        missing = what_is_missing(section)
        found = check_capabilities(cast(Step, step), section)
        problems += [problem for problem in found if installed or not missing or missing not in problem]
        # A plan lists, among what is still to be made, the one model that is converted at home.
        absent = find_missing_model(section) if installed or section.backend != "omg_llava" else None
        problems += [f"{step}.model: {absent}"] if absent else []
    if problems:
        raise ConfigError("this build cannot start:\n  " + "\n  ".join(problems))
    for step, section in settings.asking.items():
        prompt_digest(section.prompt or step)
    if installed and settings.judge is not None and settings.judge.by == "localizer":
        if not util.find_spec("torch"):
            raise ConfigError(f"judge.by: 'localizer' needs torch, which is not installed; {how_to_install('train')}")
        check_model(str(settings.judge.model), "localizer", "judge.model")
    return {name: _resolve_root(name, source, source.options) for name, source in settings.open_sources.items()}


def check_shared_answers(settings: BuildConfig, machines: int) -> str:
    """What to say of answers that are kept in files where workers run on several ``machines``; nothing where they are
    not, or where no model is asked. Raises ``ConfigError`` where a budget would hold for each of them alone.
    """
    asking = [step for step, section in settings.asking.items() if BACKENDS[section.backend].package]
    if machines < 2 or settings.request_cache is not None or not asking:
        return ""
    files = f"the answers to {', '.join(asking)} are kept in files, safe for one machine, and workers run on {machines}"
    if settings.budget is not None:
        raise ConfigError(
            f"budget: {files}: set request_cache=postgresql://HOST/DATABASE, where they are counted for all together"
        )
    return (
        f"{files}: with request_cache=postgresql://HOST/DATABASE a shard that moves to another one asks for none again"
    )


def check_instructions(settings: InstructionBuildConfig) -> dict[str, str]:
    """Check the sources and the phrasings of an instruction build; returns the resolved folder of every source.

    Raises ``ConfigError`` for the first that cannot be read.
    """
    if not settings.open_sources:
        raise ConfigError(
            f"no source has a root: set at least one of sources.{{{','.join(region_sources())}}}.root, or draw sample "
            "sources with 'talking-points draw-sample build/sample' (--config build/instructions_sample.yaml)"
        )
    check_runner(settings.runner)
    load_phrasings(settings.instructions.phrasings)
    if settings.points is not None:
        identify_points(settings.points)
    return {
        name: _resolve_root(name, source, settings.reader_options(name))
        for name, source in settings.open_sources.items()
    }


_DRAWN = {"sample": "", "sample-plain": " --variant plain", "sample-hard": " --variant hard"}
"""The folders in ``build`` that shipped configurations read drawn sources from, and how each is drawn."""


def _resolve_root(name: str, source: SourceConfig, options: Mapping[str, Any]) -> str:
    """The folder of a source. Where nothing is at its root, which a configuration may have set, ways on are told."""
    root = source.root or Path()
    if isinstance(segmenter := options.get("segmenter"), str) and not (Path(segmenter) / "config.json").is_file():
        check_model(segmenter, "segmenter", f"sources.{name}.options.segmenter")
    try:
        return str(open_source(name, root, split=source.split, **options).root)
    except SourceError as error:
        if root.expanduser().exists():
            raise
        sample = root.parent
        drawing = sample.parent.name == "build" and sample.name in _DRAWN
        how = f", or draw the sample with 'talking-points draw-sample {sample}{_DRAWN[sample.name]}'" if drawing else ""
        raise SourceError(f"{error}, or leave this source out with --set sources.{name}.root=null{how}") from error
