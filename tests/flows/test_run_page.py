"""Runs that one can tell apart: names, tags, last messages, the report, and what hostile text does to them: nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from prefect import flow, get_client
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_RESULTS_LOCAL_STORAGE_PATH, temporary_settings
from rich.console import Console

from flows.build_llamapointinpart import build_llamapointinpart
from talking_points.build_config import BuildConfig
from talking_points.config import Section
from talking_points.shipped import config_names
from talking_points.stop_requests import Stopped
from tasks.running.manifests import Manifest
from tasks.running.progress import BuildProgress
from tasks.running.run_form import (
    BuildPreset,
    EvaluatePreset,
    EvaluateSegmentationPreset,
    InstructionPreset,
    SegmentPreset,
    TrainPreset,
    load_run,
)
from tasks.running.run_page import describe_build, is_made_up
from tasks.running.shards import Environment, Inputs, Order, ShardWriter, shard_task
from tasks.running.storage import Storage
from tests.flows.building import CONFIG, SOURCES, overrides
from tests.prefect_records import prefect_records

pytestmark = pytest.mark.usefixtures("orchestrator")


def test_made_up_names_are_told_from_typed_ones() -> None:
    from prefect.utilities.names import generate_slug

    assert all(is_made_up(generate_slug(2)) for _ in range(200))
    for starred in ("pi48-ukita", "alpha2-canis-majoris-nebula", "beta-vega-b", "omega-ursae-majoris-cluster"):
        assert is_made_up(starred), "of the form of Prefect's page"
    for typed in (
        "beta-test",
        "alpha run",
        "phi-4-mini",
        "paper",
        "second try",
        "paper-run",
        "Golden-Otter",
        "run-2",
        "out: 12 points",
        "",
    ):
        assert not is_made_up(typed)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["output=s3://bucket/points-v2", "limit=1200"], "points-v2: at most 1,200 points"),
        (["output=out/"], "out: all points"),
        ([f"sources.{name}={{root: /data, points: 7000}}" for name in SOURCES], "llamapointinpart: 21,000 points"),
        ([f"sources.{name}.root=/data" for name in SOURCES[:2]],
         "llamapointinpart: all points of pascal_part116, ade20k_part234"),
    ],
)  # fmt: skip
def test_a_build_is_called_by_its_output_size_and_sources(given: list[str], name: str) -> None:
    assert describe_build({"config": CONFIG, "overrides": given}) == name


def test_fields_of_the_form_stand_above_the_configuration_and_below_overrides() -> None:
    form: dict[str, Any] = {
        "config": "nowhere.yaml",
        "preset": "paper",
        "output": "out",
        "limit": 5,
        "seed": 0,
        "partimagenet": "",
    }
    settings = load_run(BuildConfig, **form, pascal_part116="/data/P", overrides=["limit=7"])
    assert (settings.output, settings.limit, settings.seed) == ("out", 7, 0)
    roots = {name: str(source.root) for name, source in settings.sources.items()}
    assert roots["pascal_part116"] == "/data/P"
    assert roots["partimagenet"] == "data/PartImageNet", "what is left empty says nothing"
    assert settings.refine.backend == "vllm_server"


def test_the_forms_offer_every_shipped_configuration() -> None:
    """Each one in one of the forms, but those of flows without a form."""
    forms: dict[str, tuple[Any, ...]] = {
        "build": (BuildPreset, InstructionPreset),
        "train": (TrainPreset, SegmentPreset),
        "evaluate": (EvaluatePreset, EvaluateSegmentationPreset),
    }
    without = ("answerer", "poses", "retrain")
    for folder, presets in forms.items():
        shipped = {Path(name).stem for name in config_names() if name.startswith(folder)}
        offered = [name for preset in presets for name in get_args(preset) if name != "none"]
        assert sorted(offered) == sorted(name for name in shipped if not name.startswith(without))


def test_a_typed_name_stays_and_the_page_says_in_words_what_was_made(drawn: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "out_<b>"
    parameters = {"config": CONFIG, "overrides": overrides(output, {"partimagenet": drawn["partimagenet"]}, "limit=4")}
    with get_client(sync_client=True) as client:
        runs = [
            client.create_flow_run(build_llamapointinpart, name=name, parameters=parameters)
            for name in ("Anna's", None)
        ]
        for run in runs:
            run_flow(build_llamapointinpart, flow_run=run, parameters=parameters)
        typed, default = (client.read_flow_run(run.id) for run in runs)
    assert typed.name == "Anna's"
    assert default.name == "out_<b>: at most 4 points of partimagenet"
    assert {"build", "preset:rules", "source:partimagenet"} <= set(default.tags)
    assert typed.state is not None
    assert default.state is not None
    assert str(typed.state.message).startswith("4 rows, 0 rejected, 8 shards made, ")
    assert str(default.state.message).startswith("4 rows, 0 rejected, 0 shards made anew, 8 reused, ")

    records = prefect_records()
    tasks = [task for task in json.loads(records["task_runs"]) if task["flow_run_id"] == str(typed.id)]
    names = {task["name"] for task in tasks}
    assert {"index partimagenet", "candidates partimagenet 1/1", "sample", "refine 1/1", "assemble"} <= names
    assert len(names) == len(tasks), "every task has a name of its own"
    reports = [entry for entry in json.loads(records["artifacts"]) if entry["key"] == "build-report"]
    (report,) = (entry["data"] for entry in reports if entry["flow_run_id"] == str(default.id))
    assert "0 shards made anew, 8 reused" in report
    assert "<b>" not in report
    assert "| assemble | 1/1 | 1 | 0 | 4 | 0 |" in report
    assert "left" not in report, "nothing is left of a finished build"
    assert str(default.state.message) in report


class Settings(Section):
    place: str


def test_a_shard_that_is_asked_to_stop_is_cancelled_and_leaves_no_record(tmp_path: Path) -> None:
    asked = [True]

    @shard_task("refine")
    def make(order: Order[Settings, Inputs]) -> Manifest:
        if asked.pop():
            raise Stopped("the build was stopped")
        return ShardWriter(order).commit(pa.table({"id": ["a"]}))

    environment = Environment(output=str(tmp_path / "out"), sources={}, cache="", max_rejected_share=1)
    order = Order("refine", 1, 0, "refine 1/1", Inputs(), Settings(place=str(tmp_path)), environment)

    @flow
    def stage() -> list[str]:
        states: list[Any] = []
        for answer in (True, False):
            asked[:] = [answer]
            states.append(make(order, return_state=True))
        return [state.name or "" for state in states]

    with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: tmp_path / "results"}):
        assert stage() == ["Cancelled", "Completed"], "what was stopped is made the next time"


def test_what_data_says_reaches_neither_terminal_nor_page_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;gone\x07 ![x](https://example.org/?leak) <img src=x> | cell \u202e"
    with BuildProgress(Storage(tmp_path), Console(stderr=True)) as progress:
        progress.begin("candidates", 1, 1)
        progress.fail_shard("candidates", 0, "candidates x 1/1", OSError(evil))
        progress.stages["candidates"].rejected = {evil: 1}
    shown = [entry["data"] for entry in json.loads(prefect_records()["artifacts"])]
    pages = [page for page in map(str, shown) if "gone" in page]
    assert pages
    for page in pages:
        assert "\x1b" not in page
        assert "\\u001b" not in page
        assert "\u202e" not in page
    assert not any("![x](" in page or "<img" in page for page in pages if page.startswith("#"))
    from commands.status import print_status

    print_status(Storage(tmp_path))
    printed = capsys.readouterr()
    assert "gone" in printed.out
    assert "\x1b" not in printed.out + printed.err
