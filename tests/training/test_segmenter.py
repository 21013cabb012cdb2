"""The small segmenter: fine-tuned on instructions, refined with held rollouts, interrupted and gone on, evaluated."""

from __future__ import annotations

import json
import math
import multiprocessing
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from commands.training_plan import print_training_plan
from talking_points.config import ConfigError, load_config
from talking_points.evaluation.segmentation import _questions, evaluate_segmentation
from talking_points.evaluation.segmentation_config import EvaluateSegmentationConfig
from talking_points.examples.features import ImageFeatures
from talking_points.examples.regions import RegionSet, load_regions
from talking_points.grounding.grammar import read_lenient
from talking_points.instructions.config import InstructionBuildConfig
from talking_points.models.segmenter import Segmenter
from talking_points.step_progress import PROGRESS
from talking_points.training.grpo import gspo_loss
from talking_points.training.policy import SegmenterPolicy
from talking_points.training.rollouts import HeldBatches, RolloutTrainer
from talking_points.training.segmenter import start_segmenter
from talking_points.training.segmenter_config import RefineStage, SegmenterConfig
from talking_points.training.stages import run_stage
from talking_points.training.trainer import StageTrainer
from tests.training.small_instructions import write_instructions

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["talking_points.training.stages"])


def settings(folder: Path, output: str = "train", **refine: object) -> SegmenterConfig:
    """A configuration of a minute training on the folder's instructions."""
    return SegmenterConfig.model_validate(
        {
            "output": folder / output, "image_size": 64, "vocabulary_size": 400, "lattice": 32, "threads": 1,
            "instructions": {"root": folder / "instructions"},
            "features": {"folder": folder / "features"},
            "segmenter_path": str(folder / "train" / "segmenter"),
            "segmenter": {
                "phrasing": "own", "max_steps": 6, "batch_size": 4, "points_per_image": 2, "learning_rate": 2e-3,
                "optimizer": "muon", "save_steps": 3, "eval_steps": 6, "validation": 0.3, "eval_points": 2,
            },
            "refine": {
                "kinds": [], "batch_size": 4, "group": 3, "updates": 2, "max_steps": 4, "save_steps": 2,
                "eval_steps": 4, "log_steps": 1, "max_new_tokens": 8, "sample_steps": 2, "beta": 0.01,
                "learning_rate": 1e-2, **refine,
            },
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes, their instructions, a trained and a refined segmenter."""
    found = tmp_path_factory.mktemp("segmenter")
    write_instructions(found, 2)
    run_stage("segmenter", settings(found))
    run_stage("refined", settings(found))
    return found


@pytest.fixture(scope="module")
def policy(folder: Path) -> SegmenterPolicy:
    model = Segmenter.from_pretrained(folder / "train" / "segmenter").eval()
    regions = load_regions(folder / "instructions", "train")
    features: ImageFeatures[RegionSet] = ImageFeatures(model, regions, settings(folder).features)
    features.prepare()
    return SegmenterPolicy(model, features, "own", 1.0, 8, reference=True)


def test_stored_tokens_are_as_likely_as_when_they_were_written(policy: SegmenterPolicy) -> None:
    """Padding, shared readings and left-over tokens change nothing: one by one the scores are the same."""
    torch.manual_seed(0)
    samples = policy.sample(policy.features.points.examples[:5], 3)
    scores = policy.log_probs(samples)
    assert scores.shape == samples.mask.shape == (15, scores.shape[1])
    assert not scores[~samples.mask].any()
    assert (scores[samples.mask] < 0).all()
    for number in (0, 2, 4):
        alone = policy.log_probs(samples.part(slice(number, number + 1)))
        here = scores[3 * number : 3 * number + 3, : alone.shape[1]]
        torch.testing.assert_close(here, alone, atol=2e-5, rtol=1e-4)
    before = policy.reference(samples)
    assert not before.requires_grad
    torch.testing.assert_close(before, scores.detach(), atol=1e-5, rtol=1e-5)


def test_the_first_update_of_a_rollout_has_a_ratio_of_one(policy: SegmenterPolicy) -> None:
    torch.manual_seed(1)
    samples = policy.sample(policy.features.points.examples[:2], 4)
    scores = policy.log_probs(samples)
    found = gspo_loss(scores, scores.detach(), torch.linspace(-1, 1, 8), samples.mask)
    torch.testing.assert_close(found.ratios, torch.ones(8), atol=1e-6, rtol=0)
    assert not found.clipped.any()


def test_batches_are_held_for_every_update() -> None:
    once = HeldBatches([1] * 10, 4, seed=3)
    held = HeldBatches([1] * 10, 4, seed=3)
    held.updates = 3
    assert len(held) == 3 * len(once) == 9
    assert list(held) == [batch for batch in once for _ in range(3)]


def test_what_is_reported_and_written(folder: Path) -> None:
    values = json.loads((folder / "train" / "refined" / "stage.json").read_text())["metrics"]
    for name in (
        "ratio",
        "ratio_spread",
        "clipped_low",
        "clipped_high",
        "zero_variance",
        "well_formed",
        "points",
        "kl",
    ):
        assert math.isfinite(values[name])
    assert 0.9 < values["ratio"] < 1.1
    log = json.loads((folder / "train" / "refined" / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    lengths = [entry["kl"] for entry in log if "kl" in entry]
    assert len(lengths) == 4
    assert values["mean_kl"] == pytest.approx(np.mean(lengths)), "of the whole run, not of its end"
    rows = [json.loads(line) for line in (folder / "train" / "refined" / "samples.jsonl").read_text().splitlines()]
    assert Counter(row["step"] for row in rows) == {0: 12, 2: 12}
    assert {row["reward"] for row in rows} >= {0.0}


def _killed(folder: Path, stage: str, after: int) -> None:
    """Train into ``killed`` and die at a step: of reinforcement the second update of a rollout, or the first."""
    owner, name = (RolloutTrainer, "_update") if stage == "refined" else (StageTrainer, "training_step")
    work = getattr(owner, name)

    def dying(self: Any, *arguments: Any, **named: Any) -> Any:
        if self.state.global_step == after:
            signal.raise_signal(signal.SIGKILL)
        return work(self, *arguments, **named)

    setattr(owner, name, dying)  # the process ends with it
    run_stage(stage, settings(folder, "killed"))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "after"), [("refined", 1), ("refined", 2), ("refined", 3), ("segmenter", 4)])
def test_a_killed_stage_goes_on_to_the_same_bytes(folder: Path, stage: str, after: int) -> None:
    process = _forks.Process(target=_killed, args=(folder, stage, after))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = json.loads((folder / "killed" / stage / PROGRESS).read_text())["spent"]["cpu_seconds"]
    result = run_stage(stage, settings(folder, "killed"))
    assert result["cpu_seconds"] > before > 0, "of both processes"
    for name in ("model.safetensors", "samples.jsonl") if stage == "refined" else ("model.safetensors",):
        found, whole = (folder / output / stage / name for output in ("killed", "train"))
        assert found.read_bytes() == whole.read_bytes(), name
    for path in sorted((folder / "killed").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"updates": 2, "objective": "grpo"}, "set updates to 1"),
        ({"updates": 4, "max_steps": 6}, "multiple of updates"),
        ({"updates": 9, "batch_size": 8}, "at most batch_size"),
        ({"rewards": {"beauty": 1.0}}, "iou_steps"),
        ({"rewards": {}}, "found none"),
        ({"rewards": {"iou": float("nan")}}, "finite"),
        ({"rewards": {"iou": 0.0}}, "above it"),
        ({"accumulation": 2}, "without accumulation"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(values: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RefineStage.model_validate({"save_steps": 72, "max_steps": 72, **values})


def test_answers_do_not_depend_on_company_and_sizes_are_the_images_own(folder: Path) -> None:
    model = Segmenter.from_pretrained(folder / "train" / "refined")
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in ((90, 40), (33, 70))]
    questions = ["the dog", "in [0.100, 0.250, 0.500, 0.750]"]
    both = model.answer(images, questions, max_new_tokens=12)
    alone = [model.answer([i], [q], max_new_tokens=12)[0] for i, q in zip(images, questions, strict=True)]
    assert both == alone
    expressions = ["the dog", "<image> the <|im_end|> cat"]
    found = model.segment(images, expressions, max_new_tokens=12, constrained=False)
    assert found[0] == read_lenient(both[0]).outlines
    for given, asked, message in (
        (images, ["the dog", " <mark> "], "number 1"),
        (images, ["???", "the dog"], "number 0"),
        (images, "the dog", "a list of expressions, found one str: put a single one into"),
        (images[0], ["the dog"], "a list of images, found one Image"),
    ):
        with pytest.raises(ValueError, match=message):
            model.segment(given, asked)  # type: ignore[arg-type]
    assert model.answer([], []) == []


def test_places_in_the_image_start_as_waves_and_are_learnt(folder: Path) -> None:
    config = settings(folder)
    start = start_segmenter(config, ["the dog", "the cat"])
    assert start.image_positions is not None
    side = config.image_size // start.config.visual_token_stride
    places = start.image_positions.weight.detach().view(side, side, -1)
    assert places.std() == pytest.approx(1, abs=0.01)
    near = functional.cosine_similarity(places[0, 0], places[0, 1], dim=0)
    far = functional.cosine_similarity(places[0, 0], places[-1, -1], dim=0)
    assert near > far, "what is near is alike"

    trained = Segmenter.from_pretrained(folder / "train" / "segmenter")
    assert trained.image_positions is not None
    learnt = trained.image_positions.weight
    assert not torch.equal(learnt, start.image_positions.weight)

    features = trained.encode_images([Image.new("RGB", (64, 64), "red")])
    tokens = trained.image_tokens(features)[0]
    trained.image_positions = None
    without = trained.image_tokens(features)[0]
    assert torch.allclose((tokens - without)[: side * side], learnt, atol=1e-4)
    assert torch.equal(tokens[side * side :], without[side * side :])


def test_the_report_counts_what_cannot_be_read_and_holds_every_control(folder: Path) -> None:
    config = EvaluateSegmentationConfig(
        output=folder / "evaluation",
        model=str(folder / "train" / "segmenter"),
        compare={"refined": str(folder / "train" / "refined")},
        instructions=folder / "instructions",
        phrasing="own",
        max_new_tokens=8,
    )
    found = evaluate_segmentation(config)["splits"]["test"]
    assert set(found["ways"]) == {"model", "box of the answer", "exchanged images", "mean shape", "refined"}
    assert set(found["differences"]) == {f"model - {way}" for way in found["ways"] if way != "model"}
    form = found["form"]
    assert form["well_formed"] + 100 * sum(form["errors"].values()) / found["samples"] == pytest.approx(100)
    assert 80 < found["ceiling"] <= 100
    assert found["ways"]["mean shape"]["giou"] > 0
    rows = [json.loads(line) for line in (folder / "evaluation" / "predictions-test.jsonl").read_text().splitlines()]
    assert np.mean([row["iou"] for row in rows]) * 100 == pytest.approx(found["res"]["giou"])
    table = (folder / "evaluation" / "report.md").read_text()
    assert "SimpleSeg-Qwen2.5-VL-7B | 80.9" in table
    assert f"| test | {found['samples']} |" in table
    assert f"Model: `{config.model}`" in table
    # Every column and every way to answer is explained where it is read.
    named = ("cIoU is", "gIoU the", "P@0.5 the", "Acc@0.5 is", "*box asked*", "*boundary F*", "*well formed*")
    ways = ("*box of the answer*", "*exchanged images*", "*mean shape*", "*model less this*")
    assert [name for name in (*named, *ways) if name not in table] == []
    assert "| 0.0000 |" not in table


CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ABLATIONS = sorted(path.stem for path in (CONFIGS / "train").glob("segment_*.yaml"))


@pytest.mark.parametrize("name", [*ABLATIONS, "outlines"])
def test_every_shipped_configuration_is_planned_and_listed(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(SegmenterConfig, CONFIGS / "train" / f"{name}.yaml")
    if config.instructions.root is not None and name != "outlines":
        built = [load_config(InstructionBuildConfig, path) for path in (CONFIGS / "build").glob("instructions*.yaml")]
        assert str(config.instructions.root) in {one.output for one in built}
        assert f"{name}.yaml" in (CONFIGS.parent / "docs" / "segmentation.md").read_text()
    given = [f"instructions.root={folder / 'instructions'}", f"output={folder / 'planned'}"]
    settings = load_config(SegmenterConfig, CONFIGS / "train" / f"{name}.yaml", given)
    for command in ("train_segmenter", "refine_segmenter"):
        print_training_plan(command, settings)
    rollout = f"{config.refine.batch_size} in a rollout, {config.refine.group} answers to each"
    assert rollout in " ".join(capsys.readouterr().out.split())


def test_all_ablations_are_judged_beside_the_whole_way() -> None:
    config = load_config(EvaluateSegmentationConfig, CONFIGS / "evaluate" / "segment_ablations.yaml")
    outputs = {name: load_config(SegmenterConfig, CONFIGS / "train" / f"{name}.yaml").output for name in ABLATIONS}
    assert config.model == str(outputs.pop("segment_tiny") / "refined")
    assert config.compare.pop("supervised") == str(Path(config.model).parent / "segmenter")
    outputs.pop("segment_7b")
    expected = {name.removeprefix("segment_"): str(output / "refined") for name, output in outputs.items()}
    assert config.compare == expected


def test_a_split_without_such_questions_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="asks nothing of the kinds mask_to_text"):
        load_regions(folder / "instructions", "test", ["mask_to_text"])


@pytest.mark.parametrize("phrasing", ["rows", "own"])
def test_a_model_of_other_coordinates_is_asked_in_them(folder: Path, phrasing: str) -> None:
    model = MagicMock()
    model.scale.return_value = (1000.0, 1000.0)
    model.question = lambda kind, **elements: f"{kind} {elements['point']} {elements['box']}"
    kinds = ["point_to_mask", "box_to_mask", "text_to_mask"]
    examples = load_regions(folder / "instructions", "test").examples
    regions = [replace(one, kind=kind) for one in examples for kind in kinds]
    given = {"model": "m", "instructions": folder, "output": folder, "phrasing": phrasing}
    asked = _questions(EvaluateSegmentationConfig.model_validate(given), model, regions)
    for one, question in zip(regions, asked, strict=True):
        if phrasing == "rows" and one.kind == "text_to_mask":
            assert question == one.question
        else:
            named = one.elements((1000.0, 1000.0))
            assert named["box" if one.kind == "box_to_mask" else "point"] in question
            assert "0." not in question
