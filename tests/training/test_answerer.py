"""The answerer's training and evaluation in miniature: from drawn scenes to a report."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model, LlamaConfig, LlamaForCausalLM

from talking_points.config import ConfigError, load_config
from talking_points.descriptions.keypoint_texts import texts_of_rules, write_texts
from talking_points.evaluation.pose_config import EvaluatePosesConfig
from talking_points.evaluation.pose_inputs import check_poses
from talking_points.evaluation.poses import evaluate_poses, exchanged_texts
from talking_points.examples.config import KeypointFiles
from talking_points.examples.pose_files import check_keypoints, open_poses, texts_for
from talking_points.models.answerer import PointAnswerer
from talking_points.models.capellm.conversation import PARAPHRASES, Query
from talking_points.models.capellm.modeling import attention_loss
from talking_points.models.capellm.presets import train_tokenizer
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.publishing.answerer_cards import describe_answerer
from talking_points.publishing.model_release import prepare_model
from talking_points.publishing.release import ReleaseError
from talking_points.sources.drawn import draw_sample
from talking_points.training import pose_vision
from talking_points.training.answerer import AnswererTrainer, Asked, start_answerer
from talking_points.training.answerer_config import AnswererConfig
from talking_points.training.answerer_inputs import check_answerer
from talking_points.training.answerer_plan import count_examples, plan_training
from talking_points.training.answerer_stages import training_poses
from talking_points.training.stages import run_stage
from tasks.model_cards import train_with_card
from tests.publishing.hub_card import card_problems
from tests.sources.trees import animal, coco, image_entry, write_image, write_json
from tests.training.conftest import small


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_sample(tmp_path_factory.mktemp("drawn"), 40, 5, sources=["mp100"])["mp100"]


def settings(root: Path, output: Path, *more: str) -> AnswererConfig:
    given = [f"output={output}", f"poses.root={root}", "pose_vision.steps=2", "answerer.max_steps=3"]
    given += ["answerer.batch_size=3", "answerer.rounds_per_step=3", "answerer.save_steps=2", "answerer.log_steps=1"]
    return load_config(AnswererConfig, "configs/train/answerer.yaml", [*given, "pose_vision.batch_size=4", *more])


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An answerer and its twin, trained for three steps."""
    output = tmp_path_factory.mktemp("trained")
    config = settings(root, output)
    assert run_stage("pose_vision", config)["metrics"]["near_percent"] >= 0
    assert train_with_card("answerer", config)["reused"] is False
    train_with_card("answerer", config.blind_twin())
    return output


def test_an_interrupted_pretraining_ends_with_the_same_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pose_vision, "CHECKPOINT_STEPS", 2)
    found = []
    for name, stop in (("whole", None), ("interrupted", 3)):
        config = settings(root, tmp_path / name, "pose_vision.steps=4")
        with monkeypatch.context() as patch:
            if stop is not None:
                batches = iter(range(stop))
                whole = pose_vision.keypoint_batch
                patch.setattr(pose_vision, "keypoint_batch", lambda *given, n=batches, w=whole: (next(n), w(*given))[1])
                with pytest.raises(StopIteration):
                    run_stage("pose_vision", config)
                assert (config.output / "pose-vision" / "checkpoint.pt").is_file()
        result = run_stage("pose_vision", config)
        folder = config.output / "pose-vision"
        assert not (folder / "checkpoint.pt").exists()
        found.append(((folder / "vision.safetensors").read_bytes(), result["metrics"]))
    assert found[0] == found[1]


def test_an_interrupted_training_ends_with_the_same_weights(root: Path, trained: Path, tmp_path: Path) -> None:
    config = settings(root, tmp_path / "again")
    shutil.copytree(trained / "pose-vision", config.output / "pose-vision")
    shutil.copytree(trained / "answerer" / "checkpoint-2", config.output / "answerer" / "checkpoint-2")
    shutil.copy(trained / "answerer" / "started.json", config.output / "answerer")
    counts = config.output / "answerer" / "checkpoint-2" / "dropped-0.json"
    before = json.loads(counts.read_text()).get("nothing_to_ask", 0)
    counts.write_text(json.dumps({"nothing_to_ask": before + 1000}))
    dropped = run_stage("answerer", config)["metrics"]["dropped_nothing_to_ask"]
    assert dropped >= before + 1000, "what was dropped before the interruption counts too"
    weights = [(folder / "answerer" / "model.safetensors").read_bytes() for folder in (trained, config.output)]
    assert weights[0] == weights[1]
    assert run_stage("answerer", config)["reused"] is True


def test_a_trained_answerer_is_taught_on_where_to_look(root: Path, trained: Path, tmp_path: Path) -> None:
    more = (f"start={trained / 'answerer'}", "answerer.model.attention_weight=1", "pose_vision.steps=0")
    config = settings(root, tmp_path, *more, "answerer.max_steps=1", "answerer.name_only=0")
    assert run_stage("answerer", config)["metrics"]["loss"] > 0


@pytest.mark.parametrize("k", [1, 4])
def test_packed_conversations_have_the_loss_of_those_alone(root: Path, tmp_path: Path, k: int) -> None:
    config = settings(root, tmp_path, f"answerer.k={k}", "answerer.name_only=0")
    poses, _ = training_poses(config)
    texts = texts_for(poses, "rules")
    model = start_answerer(config, list(texts.values())).eval()
    losses = []
    for packed in (True, False):
        stage = config.answerer.model_copy(update={"pack_instance": packed})
        trainer = AnswererTrainer(model, poses, texts, stage, tmp_path / str(packed), 0)
        examples = [Asked(poses.examples[0], None)]
        inputs = trainer.batch_inputs(examples)
        if not packed:  # the same conversations about the same crop
            inputs["image_index"] = torch.zeros(len(inputs["input_ids"]), dtype=torch.long)
            inputs["pixel_values"] = inputs["pixel_values"][:1]
        with torch.no_grad():
            losses.append(float(model(**inputs).loss))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


VARIANTS = {
    "answerer.model.list_keypoints=true": "The keypoints of this object are: ",
    "answerer.model.outline=true": "This is a conversation about one image: the user names",
    "answerer.paraphrase=true": None,
    "answerer.step_by_step=true": "User: What is the object in this image?\nAssistant: It is a ",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_wordings_of_the_ablations(root: Path, tmp_path: Path, variant: str) -> None:
    more = ["answerer.model.attention_weight=1", "answerer.name_only=0"]
    config = settings(root, tmp_path, variant, *more)
    poses, _ = training_poses(config)
    texts = texts_for(poses, "rules")
    model = start_answerer(config, list(texts.values())).eval()
    trainer = AnswererTrainer(model, poses, texts, config.answerer, tmp_path, 0)
    (talk, *others) = trainer.conversations(Asked(poses.examples[0], None), texts)
    encoded = trainer._encoded(talk)
    text = model.text_tokenizer.decode(encoded.ids)
    wanted = VARIANTS[variant]
    if wanted is None:
        asked = {trainer._worded(one)[0].question for one in (talk, *others)}
        assert len(asked) > 1
        assert asked <= {None, *PARAPHRASES}
    else:
        assert text.count(wanted) == 1
    learnt = model.text_tokenizer.decode([label for label in encoded.labels if label >= 0])
    assert learnt.endswith(talk.rounds[-1].answer + model.end_text)
    inputs = trainer.batch_inputs([Asked(one, None) for one in poses.examples[:2]])
    # What the object is lies nowhere: only places are looked for.
    assert (inputs["cells"] >= 0).sum() > 0
    assert ((inputs["cells"] >= 0).sum() < (inputs["labels"] >= 0).sum()).item() is ("step_by_step" in variant)
    assert torch.isfinite(model(**inputs).loss)
    one = poses.examples[0]
    query = Query("nose", "A text.", one.keypoints.names)
    image = np.zeros((*one.size[::-1], 3), np.uint8)
    alone = model.answer([image], [query], [one.box])
    together = model.answer([image] * 2, [query, Query("tail", None, ("tail",))], [one.box] * 2)
    assert np.allclose(alone[0], together[0])


def test_descriptions_of_other_keypoints_are_not_silently_none(root: Path, tmp_path: Path) -> None:
    poses = open_poses(settings(root, tmp_path).poses, "train")
    path = tmp_path / "others.jsonl"
    write_texts([replace(row, set="dragon") for row in texts_of_rules()[:1]], path)
    with pytest.raises(ConfigError, match="found those of dragon"):
        texts_for(poses, path)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("image_size=13", "found image_size; leave it out"),
        ("decimals=9", "decimals must be 1 to 4, found 9"),
        ("decimals=three", "decimals"),
        ("crop_padding=0", "crop_padding must be positive"),
        ("attention_weight=-1", "attention_weight must be at least 0"),
        ("question=hello", "must hold {keypoint}"),
    ],
)
def test_a_choice_that_no_model_has_is_refused_before_anything_is_trained(
    root: Path, tmp_path: Path, choice: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"answerer\.model: .*{said}"):
        check_answerer(settings(root, tmp_path, f"answerer.model.{choice}"))


def test_the_coordinate_head_learns_packed_or_not_and_is_saved(root: Path, tmp_path: Path) -> None:
    config = settings(root, tmp_path, "answerer.model.head=token", "answerer.k=2")
    poses, _ = training_poses(config)
    texts = texts_for(poses, "rules")
    model = start_answerer(config, list(texts.values()))
    losses = []
    for packed in (True, False):
        stage = config.answerer.model_copy(update={"pack_instance": packed})
        trainer = AnswererTrainer(model, poses, texts, stage, tmp_path / str(packed), 0)
        inputs = trainer.batch_inputs([Asked(poses.examples[0], None)])
        if not packed:
            inputs["image_index"] = torch.zeros(len(inputs["input_ids"]), dtype=torch.long)
            inputs["pixel_values"] = inputs["pixel_values"][:1]
        losses.append(model(**inputs).loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(8):
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < losses[0]
    one = poses.examples[0]
    image = np.zeros((*one.size[::-1], 3), np.uint8)
    queries = [Query(name, texts[one.keypoints.key, name]) for name in one.keypoints.names]
    model.eval()
    found = model.answer_all(image, one.box, queries)
    alone = np.concatenate([model.answer([image], [query], [one.box]) for query in queries[:3]])
    np.testing.assert_allclose(found.points[:3], alone, atol=1e-3)
    assert found.parsed.all()
    model.save_pretrained(tmp_path / "saved")
    again = PointAnswerer.from_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(again.answer_all(image, one.box, queries).points, found.points, atol=1e-3)
    with pytest.raises(ConfigError, match="step_by_step"):
        start_answerer(settings(root, tmp_path, "answerer.model.head=token", "answerer.step_by_step=true"), [])


def test_answers_are_taught_to_look_at_the_token_that_shows_the_keypoint(root: Path, tmp_path: Path) -> None:
    config = settings(root, tmp_path, "answerer.model.attention_weight=1", "answerer.k=2", "answerer.name_only=1")
    poses, _ = training_poses(config)
    model = start_answerer(config, [])
    trainer = AnswererTrainer(model, poses, {}, config.answerer, tmp_path, 0)
    examples = [Asked(one, None) for one in poses.examples[:2]]
    inputs = trainer.batch_inputs(examples)
    talks = [talk for one in examples for talk in trainer.conversations(one, {})]
    cells, labels = inputs["cells"], inputs["labels"]
    assert torch.equal(cells >= 0, labels >= 0)
    for row, talk in enumerate(talks):
        asked = [int(y * 8) * 8 + int(x * 8) for x, y in talk.places]
        assert torch.unique_consecutive(cells[row][cells[row] >= 0]).tolist() == [
            cell for number, cell in enumerate(asked) if number == 0 or cell != asked[number - 1]
        ]
    with_look = model(**inputs).loss
    del inputs["cells"]
    without = model(**inputs).loss
    assert with_look > without
    # Attention that is all at the cells costs nothing, attention that is spread costs the logarithm of its breadth.
    spread = torch.full((*labels.shape[:1], 3, labels.shape[1], 65 + labels.shape[1]), 1 / 64)
    assert float(attention_loss(spread, cells)) == pytest.approx(np.log(64), rel=1e-5)
    assert float(attention_loss(torch.ones_like(spread), cells)) == 0


def test_the_twin_answers_the_same_whatever_it_is_shown(trained: Path) -> None:
    images = [np.full((50, 60, 3), value, np.uint8) for value in (0, 255)]
    for name, same in (("answerer-blind", True), ("answerer", False)):
        model = PointAnswerer.from_pretrained(trained / name)
        tokens = [model.image_tokens(torch.full((1, 3, 96, 96), value)) for value in (0.0, 1.0)]
        assert torch.equal(*tokens) is same
        assert np.isfinite(model.answer(images, ["nose", "nose"])).all()


def test_the_card_says_what_it_has_learnt_and_its_code_runs(
    root: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (trained / "answerer" / "README.md").read_text()
    assert card_problems(text) == []
    assert "Trained on drawn stand-ins for MP-100, partition 1 at revision `" in text
    assert "with the descriptions of the author rules, about crops of 1.25 times" in text
    assert "blind twin: a control" in (trained / "answerer-blind" / "README.md").read_text()
    assert "license: apache-2.0" in text, "drawn images and random weights"
    assert str(root.parent) not in text + (trained / "answerer" / "card.json").read_text()
    shutil.copytree(trained / "answerer", tmp_path, dirs_exist_ok=True)
    Image.new("RGB", (320, 240), (90, 120, 60)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)), {})

    config = settings(root, trained)
    real = config.model_copy(update={"poses": KeypointFiles(root=tmp_path), "preset": "small"})
    shutil.copytree(root / "annotations", tmp_path / "annotations")
    card = describe_answerer(real, {"path": str(trained / "answerer"), "fingerprint": "0123456789ab"})
    assert card["name"].startswith("Llama-")
    assert not card["free"]
    assert {item["name"] for item in card["terms"]} == {"MP-100", "meta-llama/Llama-3.2-1B", "facebook/dinov2-large"}
    own = config.model_copy(update={"poses": KeypointFiles(own=own_files(tmp_path / "own"))})
    card = describe_answerer(own, {"path": str(trained / "answerer"), "fingerprint": "0123456789ab"})
    assert "by names alone, without descriptions, about crops" in card["note"], "the rules know nothing of kites"


def test_the_report_has_every_control_and_tells_groups_apart(root: Path, trained: Path, tmp_path: Path) -> None:
    small(PointLocalizer).save_pretrained(tmp_path / "localizer")
    small(PointDescriptor).save_pretrained(tmp_path / "descriptor")
    config = EvaluatePosesConfig(
        others={"localizer": str(tmp_path / "localizer"), "same": str(trained / "answerer")},
        output=tmp_path, model=str(trained / "answerer"), blind=str(trained / "answerer-blind"),
        keypoints=KeypointFiles(root=root), modes=["greedy", "mean"], protocol="pairs",
    )  # fmt: skip
    report = evaluate_poses(config)
    assert report == json.loads((tmp_path / "report.json").read_text())
    (one,) = report["partitions"]
    assert one["answers"]["same"] == one["answers"]["greedy"]
    wrong = config.model_copy(update={"others": {"d": str(tmp_path / "descriptor")}})
    with pytest.raises(ConfigError, match="PointDescriptor"):
        check_poses(wrong)
    check_poses(config)
    ways = {
        "localizer",
        "same",
        "greedy",
        "mean",
        "shuffled descriptions",
        "name only",
        "blind twin",
        "mean pose",
        "box centre",
    }
    assert set(one["answers"]) == ways == set(one["pairs"])
    assert set(one["differences"]) == {f"greedy - {way}" for way in ways - {"greedy"}}
    assert {"known sets"} <= set(one["groups"]) <= {"known sets", "new sets", "unseen names"}
    assert all(found["unparsed"] == 0 for found in one["answers"].values())
    asked = ways - {"mean pose", "box centre"}
    assert set(one["keypoints_per_second"]) == asked
    assert all(speed > 0 for speed in one["keypoints_per_second"].values())
    table = (tmp_path / "report.md").read_text()
    assert "92.60" in table
    assert "| keypoints/s |" in table
    assert "blind twin" in table

    # The card for the Hub has these figures; another kind of report is refused.
    card = prepare_model(trained / "answerer", "org/answerer", [tmp_path / "report.json"]).card
    assert card_problems(card) == []
    assert re.search(r"\n\| 1 \| blind twin \|( [\d.]+ \|){7}\n", card)
    assert "known sets" in card
    for content in ("[]", '{"partitions": [{}], "split": "test"}', "{", "\xff"):
        (tmp_path / "other.json").write_text(content, encoding="latin-1")
        with pytest.raises(ReleaseError, match="evaluate-poses"):
            prepare_model(trained / "answerer", "org/answerer", [tmp_path / "other.json"])

    seen = config.model_copy(update={"split": "train"})
    with pytest.raises(ConfigError, match="allow_seen"):
        evaluate_poses(seen)


def test_descriptions_are_exchanged_but_not_for_those_of_the_other_side(root: Path) -> None:
    poses = open_poses(KeypointFiles(root=root), "train")
    texts = texts_for(poses, "rules")
    exchanged = exchanged_texts(texts, poses, 0)
    assert exchanged.keys() == texts.keys()
    for one in {example.keypoints.key: example.keypoints for example in poses.examples}.values():
        for name, partner in zip(one.names, one.mirror(), strict=True):
            assert exchanged[one.key, name] not in (texts[one.key, name], texts[one.key, one.names[partner]])


def test_wrong_input_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither"):
        check_keypoints(KeypointFiles())
    with pytest.raises(ConfigError, match="expected some of"):
        open_poses(KeypointFiles(root=root, categories=["unicorn"]), "train")
    leaky = tmp_path / "mp100"
    shutil.copytree(root, leaky)
    annotations = leaky / "annotations"
    shutil.copy(annotations / "mp100_split1_train.json", annotations / "mp100_split1_test.json")
    with pytest.raises(ConfigError, match="disjoint"):
        open_poses(KeypointFiles(root=leaky), "test")


def test_the_plan_of_the_papers_training_fits_80_gb_and_with_checkpointing_24(root: Path, tmp_path: Path) -> None:
    paper = load_config(AnswererConfig, "configs/train/answerer_paper.yaml", ["poses.root=null"])
    text = plan_training(paper)
    assert "language_adapters: 3.41 million" in text
    assert "61,600 conversations" in text
    assert text.count("(fits)") == 3
    assert "5,775 steps" in text
    drawn = paper.model_copy(update={"poses": KeypointFiles(root=root)})
    assert 40 < count_examples(drawn) < 400
    own = paper.model_copy(update={"poses": KeypointFiles(own=own_files(tmp_path))})
    assert count_examples(own) == 2, "five labelled keypoints, four in a conversation"


def own_files(root: Path) -> Path:
    """A COCO file of one object with six keypoints, five of them labelled."""
    category = {"id": 5, "name": "kite", "keypoints": ["tip", "tail", "bow", "knot", "loop", "end"]}
    one = animal(1, 1, 5, keypoints=[3, 4, 2, 5, 5, 2, 6, 7, 1, 8, 8, 1, 9, 2, 2, 0, 0, 0], num_keypoints=5)
    write_json(root / "kites.json", coco([image_entry(1, "1.jpg")], [one], [category]))
    write_image(root / "1.jpg")
    return root


def tiny_parts(folder: Path) -> None:
    """A language and a vision model as they are published, ``llama`` and ``dino``, with random weights."""
    tokenizer = train_tokenizer(["left front paw"], 400)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    LlamaForCausalLM(LlamaConfig(**sizes, **ids, vocab_size=len(tokenizer))).save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    vision = Dinov2Config(**sizes, mlp_ratio=2, image_size=28, patch_size=14)
    Dinov2Model(vision).save_pretrained(folder / "dino")


def test_pretrained_parts_train_adapters_and_the_projector_alone(root: Path, tmp_path: Path) -> None:
    tiny_parts(tmp_path)
    config = load_config(
        AnswererConfig, "configs/train/answerer_small.yaml",
        [f"output={tmp_path / 'out'}", f"poses.root={root}", "allow_drawn=true", "answerer.max_steps=2",
         f"answerer.language_model={tmp_path / 'llama'}", f"answerer.vision_model={tmp_path / 'dino'}",
         "answerer.accumulation=1", "answerer.batch_size=2", "answerer.warmup=0", "answerer.bf16=false"],
    )  # fmt: skip
    before = {name: value.clone() for name, value in start_answerer(config, []).state_dict().items()}
    run_stage("answerer", config)
    after = PointAnswerer.from_pretrained(config.output / "answerer").state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value.float(), before[name].float())}
    adapters = {name for name in after if ".lora_" in name or name.startswith("projector.")}
    assert {name for name in moved if name not in adapters} == set()
    assert {"projector.weight"} < moved
    with pytest.raises(ConfigError, match="drawn"):
        run_stage("answerer", config.model_copy(update={"allow_drawn": False, "preset": "paper"}))
