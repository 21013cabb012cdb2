"""The plan of the shipped model configuration on a machine that has neither the models nor their packages."""

from __future__ import annotations

import re
from importlib import util
from pathlib import Path

import pytest

from commands import plan
from commands.outcome import print_outcome
from commands.outputs import open_output
from talking_points.build_config import BuildConfig
from talking_points.config import ConfigError, load_config
from talking_points.descriptions.backends import server_command
from talking_points.extras import how_to_install
from talking_points.records import SOURCES
from talking_points.sources import SourceError
from talking_points.sources.protocol import NothingListedError
from tasks.running.build_checks import check_build
from tasks.running.storage import Storage
from tests.publishing.small_dataset import small_manifest
from tests.sources.trees import annotation, coco, image_entry, write_image, write_json

PAPER = Path(__file__).resolve().parents[2] / "configs" / "build" / "paper.yaml"


def settings(output: Path, roots: dict[str, Path], *more: str) -> BuildConfig:
    given = [f"sources.{name}.root={roots[name]}" for name in SOURCES]
    return load_config(BuildConfig, PAPER, [f"output={output}", *given, *more])


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without vLLM and without torch."""
    monkeypatch.setitem(server_command.ENVIRONMENTS, "vllm_server", "build/none")
    find_spec = util.find_spec
    missing = {"vllm", "torch"}
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in missing else find_spec(name))
    monkeypatch.setenv("COLUMNS", "200")


def test_the_whole_plan_is_printed_and_nothing_is_made(
    bare: None, drawn: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan.print_plan(settings(tmp_path / "out", drawn))
    printed = capsys.readouterr().out
    for expected in (
        "at most 36 points",
        "casperhansen/llama-3.3-70b-instruct-awq@",
        "yes, 14 at a time",
        "45 to 108",
        "to download for local_caption: llava-hf/llava-1.5-7b-hf, about 14 GB by its weights",
        "without models: about 1 s with 4 workers",
        "disk: about",
        "hours on one H100",
        "make it with 'make vllm-env', or set server.environment to yours",
        f"to install: the package 'torch' is not installed; {how_to_install('train')}",
        "to make for object_caption: build/omg-llava",
        "at 40% of 989 TFLOP/s",
    ):
        assert expected in printed, printed
    assert not (tmp_path / "out").exists()


def test_batches_and_the_judge_are_part_of_the_plan(
    bare: None, drawn: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = "backend: openai, model: gpt, endpoint: 'http://127.0.0.1:9/v1', revision: null"
    direct = settings(tmp_path / "out", drawn, f"generate={{{served}}}", "prices.gpt={tokens_in: 4e4, tokens_out: 0}")
    plan.print_plan(direct)
    price = re.search(r"generate +\W? *gpt +\W? *([\d.,]+)", capsys.readouterr().out)
    halved = f"generate={{{served}, batch: {{max_requests: 20}}}}"
    judge = "judge={by: localizer, model: build/none}"
    plan.print_plan(settings(tmp_path / "out", drawn, halved, judge, "prices.gpt={tokens_in: 4e4, tokens_out: 0}"))
    printed = capsys.readouterr().out
    assert "generate: 36 requests in at least 2 files of at most 20 requests" in printed
    assert "answered within 24h" in printed
    assert "to have for judge: the Point Localizer build/none" in printed
    off = re.search(r"gpt as batches, 50% off +\W? *([\d.,]+)", printed)
    assert price
    assert off
    assert float(off[1].replace(",", "")) == pytest.approx(float(price[1].replace(",", "")) / 2, abs=0.01)


def test_nothing_is_cut_on_a_narrow_terminal(
    bare: None,
    drawn: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    plan.print_plan(settings(tmp_path / "out", drawn))
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert printed.count("object_caption") >= 3, "step names stand in one piece"
    assert [f"{name}: {drawn[name]}" in printed for name in SOURCES] == [True] * 3
    assert "images: embed" in " ".join(printed.split())


def test_a_missing_sample_is_told_how_to_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, variant in (("sample", ""), ("plain", " --variant plain")):
        folder = "build/sample" + ("-plain" if variant else "")
        with pytest.raises(SourceError, match=f"draw-sample {folder}{variant}'") as refused:
            check_build(load_config(BuildConfig, f"build/{name}.yaml"))
        assert "--set sources.pascal_part116.root=null" in str(refused.value)
    elsewhere = ["sources.pascal_part116.root=data/PascalPart116"]
    with pytest.raises(SourceError, match="root=null") as refused:
        check_build(load_config(BuildConfig, "build/rules.yaml", elsewhere))
    assert "draw-sample" not in str(refused.value)
    with pytest.raises(ConfigError, match="no source has a root"):
        check_build(load_config(BuildConfig, "build/rules.yaml"))


def test_a_context_that_is_too_short_is_told(
    bare: None, drawn: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan.print_plan(settings(tmp_path / "out", drawn, "refine.options.max_model_len=1024"))
    assert "exceed the model's context of 1024" in capsys.readouterr().out


def test_the_build_itself_refuses_what_is_not_installed(bare: None, drawn: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make vllm-env") as refused:
        check_build(settings(tmp_path / "out", drawn, "refine.server.environment=/none"))
    assert str(refused.value).count("not installed") == 1
    assert str(refused.value).count("make vllm-env") == 3


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("note", "found the file .*note; choose another output"),
        ("note/below/it", "found the file .*note; choose another output"),
        ("loop", "found the file .*loop; choose another output"),
        ("loop/below", "found the file .*loop; choose another output"),
        ("x" * 300, "File name too long"),
        ("nowhere://x", "Protocol not known"),
    ],
)
def test_an_output_that_no_folder_can_be_is_refused(tmp_path: Path, output: str, problem: str) -> None:
    (tmp_path / "note").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=problem):
        open_output(output if "://" in output else str(tmp_path / output))
    assert open_output(str(tmp_path / "not" / "yet" / "there")).is_local


def test_the_plan_still_refuses_what_cannot_work(bare: None, drawn: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes none"):
        plan.print_plan(settings(tmp_path / "out", drawn, "local_caption.backend=llama_cpp"))


def test_the_cost_of_priced_models_is_planned(
    drawn: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    served = "{backend: openai, model: m, endpoint: 'http://user:planted-word@models.example/v1'}"
    price = "{m: {tokens_in: 1000000, tokens_out: 0, images: 0}}"
    more = (f"generate={served}", f"prices={price}", "budget=50 EUR")
    plan.print_plan(settings(tmp_path / "out", drawn, *more))
    printed = capsys.readouterr().out
    assert "Cost, of a budget of 50 EUR" in printed
    tokens = next(line for line in printed[printed.index("Budget") :].splitlines() if "generate" in line).split("│")[3]
    assert f"{int(tokens.replace(',', '')):,}.00" in printed[printed.index("Cost, of") :], "one EUR for each token in"
    assert "planted-word" not in printed


def test_a_plan_without_images_names_the_source_and_the_reasons(bare: None, tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "bird"}, {"id": 2, "name": "bird's wing"}]
    images = [image_entry(number, f"../{number}.jpg") for number in range(4)]
    boxes = [annotation(10 * number + kind, number, kind, (2, 2, 30, 20)) for number in range(4) for kind in (1, 2)]
    root = write_json(tmp_path / "birds" / "own.json", coco(images, boxes, categories)).parent
    given = [f"sources.{name}.root=null" for name in SOURCES] + [f"sources.coco_parts.root={root}"]
    rules = load_config(BuildConfig, PAPER.with_name("rules.yaml"), [f"output={tmp_path / 'out'}", *given])
    with pytest.raises(NothingListedError, match=rf"coco_parts at {root}: path_outside_root: 4"):
        plan.print_plan(rules)


def test_what_is_left_out_of_own_annotations_is_told_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    categories = [{"id": 1, "name": "bird"}, {"id": 2, "name": "bird's wing"}]
    images = [image_entry(number, f"{number}.webp") for number in range(3)]
    boxes = [annotation(10 * number + kind, number, kind, (2, 2, 30, 20)) for number in range(3) for kind in (1, 2)]
    root = write_json(tmp_path / "birds" / "own.json", coco(images, boxes, categories)).parent
    write_image(root / "0.png").rename(root / "0.webp")
    given = [f"sources.{name}.root=null" for name in SOURCES] + [f"sources.coco_parts.root={root}"]
    plan.print_plan(load_config(BuildConfig, PAPER.with_name("rules.yaml"), [f"output={tmp_path / 'out'}", *given]))
    printed = capsys.readouterr().out
    assert "left out of coco_parts: missing_image: 2\n  missing_image: such as own.json: 1.webp" in printed

    manifest = small_manifest({"train": 2, "test": 1}, "embed")
    storage = Storage(str(tmp_path / "built"))
    storage.write_json("manifest.json", manifest | {"composition": {name: {} for name in manifest["sources"]}})
    print_outcome(storage)
    assert "left out of partimagenet: crowd: 2" in capsys.readouterr().err
