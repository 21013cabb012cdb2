"""Training: what changes, what is learnt, what survives an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from talking_points.config import ConfigError, load_config
from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.presets import paper_config
from talking_points.training.adaptation import (
    AdaptationTrainer,
    adapt_descriptor,
    prepare_adaptation,
    sample,
    score,
)
from talking_points.training.config import AdaptConfig, LocalizerConfig, StageConfig, TrainConfig
from talking_points.training.descriptor import DescriptorTrainer, descriptions, train_descriptor
from talking_points.training.features import PointFeatures
from talking_points.training.localizer import LocalizerTrainer, localized, rewarded, train_localizer
from talking_points.training.rewards import REWARDS, mean_pck
from talking_points.training.start import check_tokenizer, start_model
from talking_points.training.trainer import TrainingStoppedError, last_checkpoint
from tests.training.conftest import points, small

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHORT = {"batch_size": 4, "learning_rate": 3e-3, "save_steps": 2, "eval_steps": 100, "log_steps": 1, "warmup": 0.0}


def trainer_of(kind, model, data, features, output: Path, **fields):
    config = (LocalizerConfig if kind is LocalizerTrainer else StageConfig)(**{**SHORT, **fields})
    model.prepare_training()
    known = PointFeatures(model, data, features)
    known.prepare()
    return kind(model, known, config, output, seed=0)


def changed(model, before) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    ("kind", "trainer"), [(PointDescriptor, DescriptorTrainer), (PointLocalizer, LocalizerTrainer)]
)
def test_a_step_changes_what_the_configuration_names_and_nothing_else(
    kind, trainer, optimizer, features, tmp_path
) -> None:
    model = small(kind, train_lora=True, train_language_model=False, train_vocabulary=False, lora_last_blocks=1)
    running = trainer_of(trainer, model, points(), features, tmp_path / "run", max_steps=2, optimizer=optimizer)
    before = copied(model)
    running.run()
    prefixes = ("language_model.model.layers.1.", "projector.", "text_projector.", "coordinate_head.")
    found = changed(model, before)
    assert found
    assert all(name.startswith(prefixes) for name in found)
    assert all(".lora_" in name for name in found if name.startswith("language_model."))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    ("kind", "trainer"), [(PointDescriptor, DescriptorTrainer), (PointLocalizer, LocalizerTrainer)]
)
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    kind, trainer, optimizer, features, tmp_path
) -> None:
    data = points(4, 3)
    whole = small(kind)
    trainer_of(trainer, whole, data, features, tmp_path / "whole", max_steps=5, optimizer=optimizer).run()
    # The whole run's folder as it was when a run died after step 4 of 5, in the middle of the second epoch, while
    # writing its next checkpoint.
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", tmp_path / "cut" / "checkpoint-4")
    shutil.copytree(tmp_path / "whole" / "checkpoint-5", tmp_path / "cut" / "checkpoint-5")
    (tmp_path / "cut" / "checkpoint-5" / "complete.json").unlink()
    (tmp_path / "cut" / "checkpoint-5" / "model.safetensors").write_bytes(b"half")
    resumed = small(kind)
    with torch.no_grad():  # whatever the resumed model starts with, the checkpoint decides
        resumed.language_model.lm_head.weight.zero_()
        resumed.projector.query_proj.weight.zero_()
    trainer_of(trainer, resumed, data, features, tmp_path / "cut", max_steps=5, optimizer=optimizer).run()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_loss_that_is_no_number_stops_with_the_batch_and_keeps_the_last_checkpoint(features, tmp_path) -> None:
    data = points(2, 2)
    model = small(PointLocalizer)
    trainer_of(LocalizerTrainer, model, data, features, tmp_path, max_steps=2).run()
    model.coordinate_head.output.bias.data.fill_(float("nan"))
    broken = trainer_of(LocalizerTrainer, model, data, features, tmp_path / "other", max_steps=2)
    with pytest.raises(TrainingStoppedError, match=r"nan in step 1.*p0"):
        broken.run()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_a_full_disk_leaves_the_previous_checkpoint(features, tmp_path, monkeypatch) -> None:
    running = trainer_of(DescriptorTrainer, small(PointDescriptor), points(2, 2), features, tmp_path, max_steps=4)
    written = running._save_optimizer_and_scheduler

    def full(folder: str) -> None:
        if folder.endswith("-4"):
            raise OSError(28, "No space left on device")
        written(folder)

    monkeypatch.setattr(running, "_save_optimizer_and_scheduler", full)
    with pytest.raises(TrainingStoppedError, match=r"No space left.*checkpoint-2"):
        running.run()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


@pytest.mark.slow
def test_eight_points_are_learnt_by_heart(features, tmp_path) -> None:
    data = points(4, 2)
    config = {**SHORT, "batch_size": 8, "max_steps": 150, "save_steps": 1000, "log_steps": 10, "warmup": 0.05}
    localizer = small(PointLocalizer)
    train_localizer(localizer, data, data, LocalizerConfig(**config), features, tmp_path / "localizer")
    assert mean_pck(rewarded(data.examples, localized(localizer, data, features))).mean() == 1.0
    descriptor = small(PointDescriptor)
    logged = train_descriptor(descriptor, data, data, StageConfig(**config), features, tmp_path / "descriptor")
    assert logged["loss"] < 0.05
    assert descriptions(descriptor, data, features, max_new_tokens=40) == [example.text for example in data.examples]
    assert (tmp_path / "descriptor" / "curves.png").stat().st_size > 5000
    assert list((tmp_path / "descriptor").rglob("events.out.tfevents*"))


@pytest.mark.slow
def test_exchanged_descriptions_do_not_beat_the_centre(features, tmp_path) -> None:
    config = LocalizerConfig(**{**SHORT, "batch_size": 16, "max_steps": 60, "save_steps": 1000}, shuffled=True)
    model = small(PointLocalizer)
    held_out = points(60, 4, seed=9)
    train_localizer(model, points(60, 4), held_out, config, features, tmp_path)
    learnt = mean_pck(rewarded(held_out.examples, localized(model, held_out, features))).mean()
    centre = mean_pck(rewarded(held_out.examples, held_out.sizes / 2)).mean()
    assert learnt <= centre + 0.06


# ---------------------------------------------------------------------- adaptation

GRPO = AdaptConfig(
    **{**SHORT, "batch_size": 2, "learning_rate": 1e-2}, group=3, max_new_tokens=6, last_blocks=1, beta=0.1
)


def test_the_reference_is_the_policy_before_adaptation(descriptor, features) -> None:
    data = points(2, 1)
    before = copied(descriptor)
    names = prepare_adaptation(descriptor, GRPO)
    assert names
    assert all(".layers.1." in name and ".lora_" in name for name in names)
    known = PointFeatures(descriptor, data, features)
    known.prepare()
    torch.manual_seed(0)
    samples = sample(descriptor.eval(), data.examples, known, GRPO)
    policy, reference = score(descriptor, samples, 1)
    torch.testing.assert_close(policy, reference)  # a fresh adapter changes nothing
    assert policy.requires_grad
    assert not reference.requires_grad
    with torch.no_grad():
        for name, parameter in descriptor.named_parameters():
            if ".layers.1." in name and "lora_B" in name:
                parameter.add_(0.05)
    moved, still = score(descriptor, samples, 1)
    torch.testing.assert_close(still, reference)
    assert not torch.allclose(moved, policy)
    plain = {
        name.replace(".base_layer", ""): value for name, value in descriptor.state_dict().items() if "lora_" not in name
    }
    assert all(torch.equal(plain[name], value) for name, value in before.items())


def test_scores_are_those_of_reading_each_sequence_alone(descriptor, features) -> None:
    names = prepare_adaptation(descriptor, GRPO)
    with torch.no_grad():
        for name in names:
            descriptor.get_parameter(name).add_(0.02)
    data = points(2, 2)
    known = PointFeatures(descriptor, data, features)
    known.prepare()
    samples = sample(descriptor.eval(), data.examples, known, GRPO)
    policy, _ = score(descriptor, samples, 1)
    weights = [descriptor.get_parameter(name) for name in names]
    gradients = torch.autograd.grad(policy.sum(), weights, retain_graph=True)
    total = torch.zeros(())
    found, index, point_features = known.batch(data.examples)
    assert point_features is not None
    for row in range(len(samples.texts)):
        answer = samples.tokens[row][samples.mask[row]]
        turn = samples.inputs.turns[row]
        question = type(turn)(torch.cat((turn.ids, answer)), torch.cat((torch.full_like(turn.ids, -100), answer)))
        owner = row // GRPO.group
        alone = descriptor.language_inputs(
            found, index[owner : owner + 1], point_features[owner : owner + 1], [question]
        )
        hidden, labels, _ = descriptor.read_language(alone)
        logits, tokens, _ = descriptor.answer_logits(hidden, labels)
        logits[:, descriptor.never_written] = -torch.inf
        expected = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        torch.testing.assert_close(policy[row][samples.mask[row]], expected, rtol=1e-4, atol=1e-4)
        total = total + expected.sum()
    for shared, own in zip(gradients, torch.autograd.grad(total, weights), strict=True):
        torch.testing.assert_close(shared, own, rtol=1e-3, atol=1e-3)


def test_samples_of_a_group_differ_and_end_where_the_turn_ends(descriptor, features) -> None:
    prepare_adaptation(descriptor, GRPO)
    data = points(1, 1)
    known = PointFeatures(descriptor, data, features)
    known.prepare()
    samples = sample(
        descriptor.eval(), data.examples, known, GRPO.model_copy(update={"group": 8, "max_new_tokens": 12})
    )
    assert len(set(samples.texts)) > 1
    ends = set(descriptor.config.text_config.eos_token_id)
    for tokens, valid in zip(samples.tokens, samples.mask, strict=True):
        kept = tokens[valid].tolist()
        assert not ends & set(kept[:-1])
        assert valid.sum() == 12 or kept[-1] in ends


def test_steps_of_adaptation_train_the_last_blocks_adapters_only(descriptor, localizer, features, tmp_path) -> None:
    before, frozen = copied(descriptor), copied(localizer)
    config = GRPO.model_copy(update={"max_steps": 2, "sample_steps": 1})
    logged = adapt_descriptor(descriptor, localizer, points(2, 2), None, config, features, tmp_path)
    after = {name.replace(".base_layer", ""): value for name, value in descriptor.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    grown = {name for name, value in after.items() if "lora_B" in name and value.abs().max() > 0}
    assert grown
    assert all(".layers.1." in name for name in after if ".lora_" in name)
    assert not changed(localizer, frozen)
    assert {"reward", "reward_std", "zero_variance", "kl", "entropy", "length", "empty", "unfinished"} <= set(logged)
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 2 * 3
    assert len(list((tmp_path / "groups").glob("*.png"))) == 2
    loaded = PointDescriptor.from_pretrained(tmp_path)
    assert loaded.config.lora_active
    names = loaded.prepare_training()
    assert names
    assert all(torch.equal(loaded.get_parameter(name), descriptor.get_parameter(name)) for name in names)
    loaded.config.lora_last_blocks = None  # the adapters of the last block become part of its weights
    blocks = {name.split(".layers.")[1][0] for name in loaded.prepare_training() if ".lora_" in name}
    assert blocks == {"0", "1"}


COUNTED = [
    # rewards of the groups, and the samples: their ordinary tokens, and whether the turn ended within the limit of 4
    ([[0.1, 0.1, 0.1], [0.0, 1.0, 2.0], [-0.7, -0.7, -0.7], [3.0, 3.0, 0.0]],
     [(0, True), (1, True), (3, True), (4, False), (4, False), (0, True)] * 2),
    ([[1.0, 2.0, 3.0], [4.0, 4.0, 5.0], [0.0, -1.0, 0.5], [2.0, 2.0, 2.0]], [(2, True)] * 11 + [(0, True)]),
]  # fmt: skip


@pytest.mark.parametrize("advantage", ["group", "centred"])
def test_what_is_logged_of_samples_is_counted_of_them(
    descriptor, localizer, features, tmp_path, monkeypatch, advantage
) -> None:
    data = points(2, 2)
    config = GRPO.model_copy(
        update={
            "batch_size": 4, "max_steps": 2, "log_steps": 2, "max_new_tokens": 4, "reward": "constructed",
            "advantage": advantage,
        }
    )  # fmt: skip
    prepare_adaptation(descriptor, config)
    own, judged = PointFeatures(descriptor, data, features), PointFeatures(localizer, data, features)
    own.prepare()
    judged.prepare()
    running = AdaptationTrainer(descriptor, localizer.eval(), own, judged, config, tmp_path, seed=0)
    end, *_, pad = descriptor.config.text_config.eos_token_id
    word = descriptor.text_tokenizer.convert_tokens_to_ids("a")
    written = iter([[([word] * count + [end] * ended + [pad] * 4)[:4] for count, ended in own] for _, own in COUNTED])
    given = iter([np.array(rewards).flatten() for rewards, _ in COUNTED])
    monkeypatch.setattr(descriptor, "generate", lambda *_, **__: torch.tensor(next(written)))
    monkeypatch.setitem(REWARDS, "constructed", lambda _: next(given))
    logged = running.run()
    # By hand: of four groups two and one are equal, of twelve samples four and one are empty, four and none cut off.
    assert logged["zero_variance"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert logged["empty"] == pytest.approx((4 / 12 + 1 / 12) / 2)
    assert logged["unfinished"] == pytest.approx((4 / 12 + 0) / 2)
    # Ordinary tokens and the end: 2 * (1 + 2 + 4 + 4 + 4 + 1) of twelve samples, then 11 * 3 + 1.
    assert logged["length"] == pytest.approx((32 / 12 + 34 / 12) / 2)
    assert logged["reward"] == pytest.approx(np.mean([np.mean(rewards) for rewards, _ in COUNTED]))
    groups = np.concatenate([rewards for rewards, _ in COUNTED])
    spread = np.sqrt(((groups - groups.mean(1, keepdims=True)) ** 2).mean(1))
    assert logged["reward_std"] == pytest.approx(spread.mean())


@pytest.mark.slow
def test_a_resumed_adaptation_ends_with_the_same_weights(descriptor, localizer, features, tmp_path) -> None:
    data, config = points(3, 2), GRPO.model_copy(update={"max_steps": 3})

    def run(model, output: Path) -> PointDescriptor:
        prepare_adaptation(model, config)
        own, judged = PointFeatures(model, data, features), PointFeatures(localizer, data, features)
        own.prepare()
        judged.prepare()
        output.mkdir(exist_ok=True)
        AdaptationTrainer(model, localizer.eval(), own, judged, config, output, seed=0).run()
        return model

    whole = run(descriptor, tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "cut" / "checkpoint-2")
    resumed = run(small(PointDescriptor), tmp_path / "cut")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.slow
def test_adaptation_raises_the_reward(descriptor, localizer, features, tmp_path) -> None:
    data = points(4, 2)
    config = {**SHORT, "batch_size": 8, "max_steps": 60, "save_steps": 1000, "learning_rate": 5e-3}
    train_localizer(localizer, data, data, LocalizerConfig(**config), features, tmp_path / "localizer")
    train_descriptor(
        descriptor, data, data, StageConfig(**{**config, "max_steps": 40}), features, tmp_path / "descriptor"
    )
    adapted = GRPO.model_copy(
        update={"batch_size": 8, "group": 6, "max_steps": 16, "max_new_tokens": 24, "log_steps": 1}
    )
    adapt_descriptor(descriptor, localizer, data, None, adapted, features, tmp_path / "adapted")
    state = json.loads((max((tmp_path / "adapted").glob("checkpoint-*")) / "trainer_state.json").read_text())
    rewards = [entry["reward"] for entry in state["log_history"] if "reward" in entry]
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4])


# ---------------------------------------------------------------------- starting


def test_the_tiny_preset_starts_from_texts_and_takes_choices(tmp_path) -> None:
    config = TrainConfig(output=tmp_path, dataset="unused", image_size=64, vocabulary_size=300)
    stage = StageConfig(model={"keypoint_mask": "predicted"})
    model = start_model(PointDescriptor, config, stage, [example.text for example in points().examples])
    assert model.config.keypoint_mask == "predicted"
    with pytest.raises(ConfigError, match="no_such_field"):
        start_model(PointDescriptor, config, StageConfig(model={"no_such_field": 1}), ["text"])
    with pytest.raises(ConfigError, match="converted release"):
        start_model(PointDescriptor, config.model_copy(update={"preset": "paper"}), stage, ["text"])


def test_a_tokenizer_of_another_model_is_refused(descriptor) -> None:
    descriptor.config.seg_token_id += 1
    with pytest.raises(ConfigError, match="SEG"):
        check_tokenizer(descriptor)
    descriptor.config.seg_token_id -= 1
    descriptor.tokenizer.add_tokens(["one more"])
    with pytest.raises(ConfigError, match="embeddings"):
        check_tokenizer(descriptor)


@pytest.mark.parametrize("preset", ["tiny", "paper"])
def test_the_frozen_language_model_learns_nothing_with_either_preset(preset: str) -> None:
    config = load_config(TrainConfig, CONFIGS / "train" / "frozen_lm.yaml", [f"preset={preset}"])
    sizes = {"tiny": lambda: small(PointLocalizer).config, "paper": paper_config}[config.preset]()
    choices = [name for name in TalkingPointsConfig.__dataclass_fields__ if name.startswith("train_")]
    flags = {name: getattr(sizes, name) for name in choices}
    usual = small(PointLocalizer, **flags).prepare_training()
    assert [name for name in usual if name.startswith("language_model.")]
    frozen = small(PointLocalizer, **(flags | config.localizer.model)).prepare_training()
    assert {name.split(".")[0] for name in frozen} == {"projector", "text_projector", "coordinate_head"}
