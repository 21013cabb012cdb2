"""Training: what changes, what is learnt, what survives an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from talking_points.config import ConfigError, load_config
from talking_points.errors import InputError, TrainingStoppedError
from talking_points.evaluation.statistics import compare_pairs
from talking_points.examples.features import PointFeatures
from talking_points.examples.inference import describe_points, localize_points
from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.presets import paper_config
from talking_points.training.adaptation import AdaptationTrainer, adapt_descriptor, prepare_adaptation
from talking_points.training.checkpoints import last_checkpoint
from talking_points.training.config import AdaptConfig, LocalizerConfig, StageConfig, TrainConfig
from talking_points.training.descriptor import DescriptorTrainer, train_descriptor
from talking_points.training.descriptor_policy import DescriptorPolicy
from talking_points.training.localizer import LocalizerTrainer, train_localizer
from talking_points.training.rewards import REWARDS, Rewarded, mean_pck
from talking_points.training.sample_tables import rewind
from talking_points.training.start import check_tokenizer, start_model
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
def test_steps_change_all_that_the_configuration_names_and_nothing_else(
    kind, trainer, optimizer, features, tmp_path
) -> None:
    lora = {"train_lora": True, "train_language_model": False, "train_vocabulary": False, "lora_last_blocks": 2}
    model = small(kind, blocks=3, **lora)
    running = trainer_of(trainer, model, points(), features, tmp_path / "run", max_steps=2, optimizer=optimizer)
    before = copied(model)
    running.run()
    assert changed(model, before) == {name for name in before if name.startswith(SMALL_LAYERS[kind]) or adapter(name)}


SMALL_LAYERS = {
    PointDescriptor: ("projector.",),
    PointLocalizer: ("projector.", "text_projector.", "coordinate_head."),
}


def adapter(name: str) -> bool:
    """Whether a weight is an adapter of the last two of three blocks."""
    return ".lora_" in name and name.startswith(("language_model.model.layers.1.", "language_model.model.layers.2."))


@pytest.mark.parametrize(
    ("kind", "trainer"), [(PointDescriptor, DescriptorTrainer), (PointLocalizer, LocalizerTrainer)]
)
def test_accumulated_gradients_are_those_of_the_larger_batch(kind, trainer, features, tmp_path) -> None:
    """For texts of one length, whose batches weigh the same."""
    data = points(2, 2)
    data = data.with_texts({example.id: data.examples[0].text for example in data.examples})

    def gradients(name: str, **fields) -> dict[str, torch.Tensor]:
        running = trainer_of(
            trainer, small(kind), data, features, tmp_path / name, max_steps=1, max_grad_norm=1e9, **fields
        )
        found: dict[str, torch.Tensor] = {}

        class Look(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, model, **_):
                found.update(
                    (name, value.grad.clone()) for name, value in model.named_parameters() if value.grad is not None
                )

        running.add_callback(Look())
        running.run()
        return found

    large = gradients("large", batch_size=4)
    torch.testing.assert_close(gradients("small", batch_size=2, accumulation=2), large, rtol=1e-3, atol=1e-6)
    assert any(value.abs().max() > 1e-3 for value in large.values())


@pytest.mark.parametrize(
    ("kind", "trainer"), [(PointDescriptor, DescriptorTrainer), (PointLocalizer, LocalizerTrainer)]
)
def test_bfloat16_is_for_the_computation_and_weights_stay_float32(kind, trainer, features, tmp_path) -> None:
    losses, models = {}, {}
    for bf16 in (False, True):
        models[bf16] = small(kind)
        running = trainer_of(trainer, models[bf16], points(), features, tmp_path / str(bf16), max_steps=2, bf16=bf16)
        running.run()
        losses[bf16] = [entry["loss"] for entry in running.state.log_history if "loss" in entry]
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.1)
    assert {value.dtype for value in models[True].state_dict().values()} == {torch.float32}
    assert changed(models[True], small(kind).state_dict()) == changed(models[False], small(kind).state_dict())


def at_step(step: int, act, event: str = "on_step_begin") -> TrainerCallback:
    """Does something when so many steps are done."""

    class Act(TrainerCallback):
        pass

    setattr(Act, event, lambda self, args, state, control, **_: act() if state.global_step == step else None)
    return Act()


def spoil_the_loss(model) -> None:
    model.coordinate_head.output.bias.data.fill_(float("nan"))


def spoil_a_gradient(model) -> None:
    model.coordinate_head.output.bias.register_hook(lambda gradient: gradient * float("inf"))


@pytest.mark.parametrize(
    ("spoil", "event", "done", "expected"),
    [
        (spoil_the_loss, "on_step_begin", 2, r"the loss became nan in step 3, in the batch of points p\d+.*{good}"),
        (spoil_a_gradient, "on_step_begin", 2, r"the gradient became (inf|nan) in step 3, .* points p\d+.*{good}"),
        (
            spoil_the_loss,
            "on_step_end",
            4,
            r"1 weights are no numbers after step 4, coordinate_head.output.bias.*{good}",
        ),
        (spoil_a_gradient, "on_step_begin", 1, r"step 2, .*run again to begin anew, as no checkpoint is complete yet"),
    ],
)
def test_what_is_no_number_stops_and_the_last_checkpoint_is_good(
    spoil, event, done, expected, features, tmp_path
) -> None:
    data = points(2, 2)

    def running(output: str, model) -> LocalizerTrainer:
        return trainer_of(LocalizerTrainer, model, data, features, tmp_path / output, max_steps=4)

    model = small(PointLocalizer)
    broken = running("run", model)
    broken.add_callback(at_step(done, lambda: spoil(model), event))
    good = rf"run again to go on from the last good checkpoint, {tmp_path / 'run' / 'checkpoint-2'}"
    with pytest.raises(TrainingStoppedError, match=expected.replace("{good}", good)):
        broken.run()
    assert last_checkpoint(tmp_path / "run") == (None if done == 1 else tmp_path / "run" / "checkpoint-2")
    if spoil is spoil_the_loss:
        return  # one kind is resumed
    whole, resumed = small(PointLocalizer), small(PointLocalizer)
    running("whole", whole).run()
    running("run", resumed).run()
    assert not changed(resumed, whole.state_dict())


def test_the_newest_checkpoints_are_kept(features, tmp_path) -> None:
    """Each is removed only when a newer one is complete: also where one alone is kept."""
    model = small(PointLocalizer)
    running = trainer_of(LocalizerTrainer, model, points(2, 2), features, tmp_path, max_steps=6, keep=1)
    seen: list[list[str]] = []
    running.add_callback(at_step(4, lambda: seen.append(names(tmp_path)), "on_step_end"))
    running.run()
    assert seen == [["checkpoint-2"]]
    assert names(tmp_path) == ["checkpoint-6"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


@pytest.mark.slow
def test_eight_points_are_learnt_by_heart(features, tmp_path) -> None:
    data = points(4, 2)
    config = {**SHORT, "batch_size": 8, "max_steps": 150, "save_steps": 1000, "log_steps": 10, "warmup": 0.05}
    localizer = small(PointLocalizer)
    logged = train_localizer(localizer, data, data, LocalizerConfig(**config), features, tmp_path / "localizer")
    assert logged["loss"] < 1e-4  # a hundredth of the image's side, squared
    assert mean_pck(Rewarded.of(data.examples, localize_points(localizer, data, features))).mean() == 1.0
    descriptor = small(PointDescriptor)
    logged = train_descriptor(descriptor, data, data, StageConfig(**config), features, tmp_path / "descriptor")
    assert logged["loss"] < 0.05
    assert describe_points(descriptor, data, features, max_new_tokens=40) == [example.text for example in data.examples]
    assert (tmp_path / "descriptor" / "curves.png").stat().st_size > 5000
    assert list((tmp_path / "descriptor").rglob("events.out.tfevents*"))


@pytest.mark.slow
def test_exchanged_descriptions_do_not_beat_the_centre(features, tmp_path) -> None:
    config = LocalizerConfig(**{**SHORT, "batch_size": 16, "max_steps": 60, "save_steps": 1000}, shuffled=True)
    model = small(PointLocalizer)
    held_out = points(60, 4, seed=9)
    train_localizer(model, points(60, 4), held_out, config, features, tmp_path)
    learnt = 100 * mean_pck(Rewarded.of(held_out.examples, localize_points(model, held_out, features)))
    centre = 100 * mean_pck(Rewarded.of(held_out.examples, held_out.sizes / 2))
    # Points lie anywhere, so that no guess beats the centre; 60 images leave a noise of a point and a half.
    difference = compare_pairs(centre, learnt, [example.image for example in held_out.examples])
    assert difference.interval.low <= 0
    assert difference.interval.high < 6


# ---------------------------------------------------------------------- adaptation

GRPO = AdaptConfig(
    **{**SHORT, "batch_size": 2, "learning_rate": 1e-2}, group=3, max_new_tokens=6, last_blocks=1, beta=0.1
)


def test_new_adapters_are_drawn_by_the_seed_alone() -> None:
    def drawn(seed: int) -> torch.Tensor:
        model = small(PointDescriptor)
        torch.seed()  # as in another process, whose generator starts anywhere
        prepare_adaptation(model, GRPO, seed)
        return torch.cat([weight.flatten() for name, weight in model.named_parameters() if "lora_A" in name])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_the_reference_is_the_policy_before_adaptation(descriptor, features) -> None:
    data = points(2, 1)
    before = copied(descriptor)
    names = prepare_adaptation(descriptor, GRPO)
    assert names
    assert all(".layers.1." in name and ".lora_" in name for name in names)
    known = PointFeatures(descriptor, data, features)
    known.prepare()
    torch.manual_seed(0)
    reinforced = DescriptorPolicy(descriptor.eval(), known, 1, max_new_tokens=6)
    samples = reinforced.sample(data.examples, 3)
    reference, policy = reinforced.reference(samples), reinforced.log_probs(samples)
    torch.testing.assert_close(policy, reference)  # a fresh adapter changes nothing
    assert policy.requires_grad
    assert not reference.requires_grad
    with torch.no_grad():
        for name, parameter in descriptor.named_parameters():
            if ".layers.1." in name and "lora_B" in name:
                parameter.add_(0.05)
    still, moved = reinforced.reference(samples), reinforced.log_probs(samples)
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
    reinforced = DescriptorPolicy(descriptor.eval(), known, 1, max_new_tokens=6)
    samples = reinforced.sample(data.examples, GRPO.group)
    policy = reinforced.log_probs(samples)
    reinforced.reference(samples)
    assert torch.equal(reinforced.log_probs(samples), policy)  # over what the reference has read
    weights = [descriptor.get_parameter(name) for name in names]
    gradients = torch.autograd.grad(policy.sum(), weights, retain_graph=True)
    total = torch.zeros(())
    found, index, point_features = known.batch(data.examples)
    assert point_features is not None
    for row in range(len(samples.texts)):
        answer = samples.tokens[row][samples.mask[row]]
        turn = descriptor.turns(1)[0]
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
    samples = DescriptorPolicy(descriptor.eval(), known, 1, max_new_tokens=12).sample(data.examples, 8)
    assert len(set(samples.texts)) > 1
    ends = set(descriptor.config.text_config.eos_token_id)
    for tokens, valid in zip(samples.tokens, samples.mask, strict=True):
        kept = tokens[valid].tolist()
        assert not ends & set(kept[:-1])
        assert valid.sum() == 12 or kept[-1] in ends


def test_steps_of_adaptation_train_the_last_blocks_adapters_only(localizer, features, tmp_path) -> None:
    descriptor = small(PointDescriptor, blocks=3)
    before, frozen = copied(descriptor), copied(localizer)
    config = GRPO.model_copy(update={"max_steps": 2, "sample_steps": 1, "save_steps": 1, "last_blocks": 2})
    logged = adapt_descriptor(descriptor, localizer, points(2, 2), None, config, features, tmp_path)
    after = {name.replace(".base_layer", ""): value for name, value in descriptor.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    # The second step changes all of them: in the first, one half of each adapter is nothing yet.
    adapters = {name for name in after if ".lora_" in name}
    assert changed(descriptor, load_file(tmp_path / "checkpoint-1" / "model.safetensors")) == adapters
    assert {name for name in adapters if adapter(name)} == adapters
    assert {name.split(".layers.")[1][0] for name in adapters} == {"1", "2"}
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
    assert blocks == {"0", "1", "2"}


def test_adaptation_learns_from_held_rollouts_by_another_objective(localizer, features, tmp_path) -> None:
    held = {
        "objective": "gspo",
        "updates": 2,
        "batch_size": 2,
        "max_steps": 4,
        "sample_steps": 2,
        "reward": "by_length",
    }
    config = GRPO.model_copy(update=held)
    REWARDS["by_length"] = lambda batch: np.array([len(text) % 7 / 7 for text in batch.descriptions])
    try:
        adapt_descriptor(small(PointDescriptor), localizer, points(2, 2), None, config, features, tmp_path)
    finally:
        del REWARDS["by_length"]
    log = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    assert [entry["ratio"] for entry in log[::2]] == [1, 1], "the policy has just written the answers"
    assert all(entry["ratio"] != 1 for entry in log[1:4:2])
    assert ["reward" in entry for entry in log] == [True, False] * 2
    steps = [json.loads(line)["step"] for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert steps == [0] * 6 + [2] * 6


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


def test_samples_after_the_checkpoint_are_written_once(tmp_path) -> None:
    table = tmp_path / "samples.jsonl"
    rewind(table, 3)  # nothing was sampled yet
    lines = [json.dumps({"step": step, "text": f"{step}"}) + "\n" for step in (0, 2, 2, 3, 4)]
    torn = lines[0] + lines[1][:9]
    for written, step, kept in (("".join(lines), 3, 3), ("".join(lines), 1, 1), (torn, 3, 1), ("".join(lines), 0, 0)):
        table.write_text(written)
        rewind(table, step)
        assert table.read_text() == "".join(lines[:kept])
    for odd in ('{"step": "2"}\n', "[]\n", "{}\n", "3\n", "\0\n"):
        table.write_text(lines[0] + odd)
        with pytest.raises(InputError, match=r"samples.jsonl, line 2 is damaged"):
            rewind(table, 3)


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
