"""The way to the paper's tables: the shipped steps fit together, know what is done, and say what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands import cli  # noqa: F401  (adds its commands)
from commands.console import app
from commands.paper_commands import steps_done
from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from talking_points.errors import InputError
from talking_points.evaluation import reproduction
from talking_points.evaluation.paper import FIGURES
from talking_points.evaluation.reproduction import ReproduceConfig
from talking_points.evaluation.resources import find_resources
from talking_points.models.omg_llava.release import read_catalogue
from talking_points.sources.drawn import draw_sample
from talking_points.training.config import TrainConfig
from talking_points.training.paper_plan import plan_stage

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT / "configs" / "reproduce" / "paper.yaml"


@pytest.fixture(scope="module")
def paper() -> ReproduceConfig:
    return load_config(ReproduceConfig, PAPER)


def test_every_step_reads_what_an_earlier_one_leaves(paper):
    made: set[str] = set()
    for step in paper.steps:
        settings = step.settings()
        needed: set[str] = set()
        if isinstance(settings, TrainConfig):
            needed = {settings.dataset, str(settings.start)}
            if step.run == "adapt-descriptor":
                needed |= {str(settings.output / "localizer"), str(settings.output / "descriptor")}
        elif step.run == "build":
            needed = {str(settings.object_caption.model)}
        elif step.run == "evaluate":
            needed = {settings.localizer, settings.text_only} | ({settings.dataset} if settings.dataset else set())
            for source in settings.sets.values():
                needed |= {source.descriptor} if source.descriptor else set()
                needed |= {source.backend.model} if source.backend else set()
        assert needed <= made, f"{step.name} needs {sorted(needed - made)}"
        made.add(str(reproduction.output_of(step, paper, settings).parent))


def test_every_row_of_the_paper_that_a_model_of_ours_fills_is_evaluated(paper):
    sets = {name for step in paper.steps if step.run == "evaluate" for name in step.settings().sets}
    by_others = {"dam", "human", "gpt"}
    for figure in FIGURES:
        if figure.key not in by_others:
            assert sets & set(figure.keys), figure


def test_train_and_evaluation_families_are_opposite(paper):
    adapted = {
        step.settings().keypoints.categories[0]: step.settings()
        for step in paper.steps
        if step.run == "adapt-descriptor"
    }
    assert set(adapted) == {"Bovidae", "Canidae"}
    for step in paper.steps:
        settings = step.settings()
        if step.run == "evaluate" and settings.keypoints:
            (descriptor,) = {source.descriptor for source in settings.sets.values()}
            trained = next(f for f in adapted if descriptor.endswith(f"adapted-{f.lower()}"))
            assert adapted[trained].keypoints.test_categories == settings.keypoints.categories != [trained]


def test_a_step_is_done_until_it_or_one_before_it_changes(tmp_path):
    steps = [
        {"name": "dataset", "run": "build", "config": "configs/build/rules.yaml"},
        {"name": "tables", "run": "tables"},
    ]

    def settings(*overrides: str) -> ReproduceConfig:
        given = [{**steps[0], "overrides": [f"output={tmp_path / 'made'}", *overrides]}, steps[1]]
        return ReproduceConfig.model_validate({"output": tmp_path / "r", "steps": given})

    def mark(config: ReproduceConfig) -> None:
        key = ""
        for step in config.steps:
            own = step.settings()
            key = reproduction.step_key(step, own, key)
            made = reproduction.output_of(step, config, own)
            made.parent.mkdir(parents=True, exist_ok=True)
            made.touch()
            reproduction.mark_done(step, config, key, {})

    def done(config: ReproduceConfig) -> list[bool]:
        return [found for _, found in steps_done(config)]

    assert done(settings()) == [False, False]
    mark(settings())
    assert done(settings()) == [True, True]
    assert done(settings("workers=1")) == [True, True], "how it is made changes nothing"
    assert done(settings("seed=1")) == [False, False], "what follows depends on it"
    (tmp_path / "made" / "manifest.json").unlink()
    assert done(settings()) == [False, True]


def test_a_step_with_a_wrong_configuration_and_a_missing_release_are_told_before_anything_starts(tmp_path, paper):
    wrong = {"output": tmp_path, "steps": [{"name": "x", "run": "build", "config": "configs/build/none.yaml"}]}
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        reproduction.check_reproduction(ReproduceConfig.model_validate(wrong))
    with pytest.raises(ValueError, match="needs a config"):
        ReproduceConfig.model_validate({"output": tmp_path, "steps": [{"name": "x", "run": "build"}]})
    moved = paper.model_copy(update={"converted": tmp_path / "none", "release": (tmp_path / "no.pth",)})
    with pytest.raises(ConfigError, match="doctor --paper"):
        reproduction.check_reproduction(moved)


def test_the_plan_says_hours_memory_disk_and_downloads_without_any_of_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, ["plan"])
    assert done.exit_code == 0, done.output
    assert "…" not in done.output
    lines = done.output.splitlines()
    assert "talking-points train-localizer --config configs/train/paper_text_only.yaml" in lines, "to be copied"
    for expected in (
        "adapted_canidae",
        "GPU, GB",
        "24 GB",
        "zhangtao-whu/OMG-LLaVA",
        "Llama 3.3 Community",
        "measured",
    ):
        assert expected in done.output


def test_training_hours_grow_with_epochs_and_the_frozen_model_needs_less_memory():
    def plan(*overrides: str, kind: str = "localizer"):
        found = plan_stage(load_config(TrainConfig, ROOT / "configs" / "train" / "paper.yaml", list(overrides)), kind)
        assert found is not None
        return found

    assert plan().steps == 31_875
    assert plan("localizer.epochs=30").hours > 1.8 * plan().hours
    assert plan("localizer.blind=true").hours < plan().hours
    assert plan("localizer.model.train_lora=false").memory < plan().memory - 15e9
    assert plan(kind="adapted").hours > 1
    assert plan_stage(load_config(TrainConfig, ROOT / "configs" / "train" / "tiny.yaml"), "localizer") is None


def test_the_doctor_names_what_is_missing_and_where_it_comes_from(tmp_path, monkeypatch, paper):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["doctor", "--paper"])
    assert "  from:     https://huggingface.co/zhangtao-whu/OMG-LLaVA/tree/main" in done.output.splitlines()
    assert done.exit_code == 2
    assert "4 datasets are missing" in done.output
    assert "https://github.com/TACJu/PartImageNet, then set sources.partimagenet.root" in done.output
    assert not list(tmp_path.iterdir()), "nothing is downloaded"

    roots = draw_sample(tmp_path, 2, sources=["pascal_part116", "ade20k_part234", "partimagenet", "ap10k"])
    build = load_config(
        BuildConfig,
        ROOT / "configs" / "build" / "paper.yaml",
        [f"sources.{name}.root={root}" for name, root in roots.items() if name != "ap10k"],
    )
    train = load_config(TrainConfig, ROOT / "configs" / "train" / "paper.yaml", [f"keypoints.root={roots['ap10k']}"])
    found = {entry.resource.name: entry for entry in find_resources(paper, build, train, cached=lambda *_: True)}
    assert [name for name, entry in found.items() if entry.missing] == ["OMG-LLaVA"]
    assert all(entry.resource.place.startswith("https://") and entry.resource.licence for entry in found.values())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (None, "expected weights"),
        ("folder", "found a folder"),
    ],
)
def test_a_release_that_was_not_fetched_is_not_found(content, said, tmp_path, monkeypatch, paper):
    """An empty folder, a pointer and an empty file are what an interrupted download leaves; hours later is too late."""
    path = tmp_path / "release" / "omg_seg_convl.pth"
    (path.parent if content is None else path if content == "folder" else path.parent).mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    release = path.parent if content in (None, "folder") else path
    moved = paper.model_copy(update={"converted": tmp_path / "none", "release": (release,)})
    build = load_config(BuildConfig, ROOT / "configs" / "build" / "paper.yaml")
    train = load_config(TrainConfig, ROOT / "configs" / "train" / "paper.yaml")
    found = {entry.resource.name: entry for entry in find_resources(moved, build, train, cached=lambda *_: True)}
    assert said in found["OMG-LLaVA"].missing
    assert not found["OMG-LLaVA"].found
    for refuse in (lambda: reproduction.check_reproduction(moved), lambda: read_catalogue([release])):
        with pytest.raises(InputError, match=said):
            refuse()
