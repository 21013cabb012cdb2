"""From a configuration to reports, on small models and a small dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from talking_points.config import ConfigError, load_config
from talking_points.evaluation.config import EvaluateConfig
from talking_points.evaluation.evaluate import evaluate
from talking_points.models.localizer import PointLocalizer
from tests.training.conftest import small, write_dataset

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "evaluate"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of an evaluation of two files that describe some points of a dataset, with a text-only control."""
    folder = tmp_path_factory.mktemp("evaluated")
    for seed, name in enumerate(("localizer", "text-only")):
        small(PointLocalizer, seed).save_pretrained(folder / name)
    for name, numbers in {"human": (0, 1, 2, 3), "other": (2, 3, 4), "last": (7,)}.items():
        rows = [json.dumps({"id": f"{number:016x}", "description": f"the dog {number}"}) for number in numbers]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    return {
        "output": folder / "out",
        "dataset": str(write_dataset(folder / "dataset", rows=8)),
        "split": "train",
        "localizer": str(folder / "localizer"),
        "text_only": str(folder / "text-only"),
        "features": {"folder": folder / "features", "limit_gb": 1.0},
        "sets": {name: {"file": folder / f"{name}.jsonl"} for name in ("human", "other")} | {"ground_truth": {}},
    }


def config(made: dict[str, Any], **changed: Any) -> EvaluateConfig:
    return EvaluateConfig.model_validate(made | changed)


@pytest.mark.parametrize("definition", ["talking_points", "mp100"])
def test_sets_of_some_points_are_set_against_controls_and_each_other(
    made: dict[str, Any], definition: str, tmp_path: Path
) -> None:
    reports = evaluate(config(made, output=tmp_path, definition=definition))
    assert {name: (report.points, report.undescribed) for name, report in reports.items()} == {
        "human": (4, 4), "other": (3, 5), "ground_truth": (8, 0),
    }  # fmt: skip
    for report in reports.values():
        assert report.definition["name"] == definition
        assert set(report.controls) >= {"centre", "uniform", "text_only"}
        assert report.above_text_only is not None
        assert report.above_text_only["difference"] == pytest.approx(report.mpck - report.controls["text_only"])
    assert "shuffled_images" in reports["ground_truth"].controls
    compared = json.loads((tmp_path / "comparisons.json").read_text())
    assert {name: found["points"] for name, found in compared.items()} == {
        "human minus ground_truth": 4, "other minus ground_truth": 3, "other minus human": 2,
    }  # fmt: skip
    assert "| 4 of 8 |" in (tmp_path / "tables.md").read_text()


def test_omg_llava_as_it_is_stands_in_the_papers_table(
    made: dict[str, Any], tiny_omg_llava: Path, tmp_path: Path
) -> None:
    given = [f"{name}={made[name]}" for name in ("dataset", "split", "localizer", "text_only")]
    given += [f"features.folder={made['features']['folder']}", f"output={tmp_path}", "limit=4"]
    given += [
        f"sets.omg_llava.backend.{name}={value}" for name, value in {"model": tiny_omg_llava, "max_tokens": 8}.items()
    ]
    reports = evaluate(load_config(EvaluateConfig, CONFIGS / "omg_llava.yaml", given))
    found = reports["omg_llava"]
    assert (found.points, found.undescribed) == (4, 0)
    assert found.above_text_only is not None
    assert f"| OMG-LLaVA | 31.03 | 17.26 | 44.80 | {found.mpck:.2f} |" in (tmp_path / "tables.md").read_text()


def test_sets_without_a_common_point_are_not_compared(made: dict[str, Any], tmp_path: Path) -> None:
    human = made["sets"]["human"]["file"]
    sets = {"human": {"file": human}, "last": {"file": human.with_name("last.jsonl")}}
    reports = evaluate(config(made, output=tmp_path, sets=sets))
    assert set(reports["last"].controls) == {"centre", "uniform", "text_only"}, "one point has no other image to show"
    (reason,) = json.loads((tmp_path / "comparisons.json").read_text()).values()
    assert "none of the 4 points of 'human' is among the 1 of 'last'" in reason["not comparable"]


def test_a_localizer_that_is_not_there_is_found_before_any_work(made: dict[str, Any], tmp_path: Path) -> None:
    nowhere = {"dataset": str(tmp_path / "nowhere"), "output": tmp_path / "out"}
    with pytest.raises(ConfigError, match=r"text_only: expected a Point Localizer.*absent: .*text_only.yaml.*=null"):
        evaluate(config(made, text_only=str(tmp_path / "absent"), **nowhere))
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(
        ConfigError, match=r"^localizer: expected a Point Localizer.*unfinished has no config.json.*train-localizer'"
    ):
        evaluate(config(made, localizer=str(tmp_path / "unfinished"), **nowhere))
    assert not (tmp_path / "out").exists()


def test_the_control_can_be_left_out(made: dict[str, Any], tmp_path: Path) -> None:
    (report,) = evaluate(config(made, output=tmp_path, text_only=None, sets={"ground_truth": {}})).values()
    assert set(report.controls) == {"centre", "uniform", "shuffled_images"}
    assert report.above_text_only is None


def test_scoring_loads_nothing_that_trains_or_draws() -> None:
    code = (
        "import sys, talking_points.evaluation.evaluate\n"
        "loaded = {'transformers.trainer', 'matplotlib', 'talking_points.training.trainer'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(loaded)}' if loaded else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
