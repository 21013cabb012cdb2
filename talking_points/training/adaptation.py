"""Adapting a descriptor by the reward of a frozen localizer (paper, section 3.4), without any described point.

One step: sample G descriptions of each of P points (one reading of an image for its whole group, all sequences
generated in one batch), let the localizer find them, reward, update. The policy before adaptation is the policy
without its adapters: earlier adapters are merged into the weights at the start and new ones begin at zero, so both are
scored over the same hidden states of the blocks that no adapter in training changes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask

from talking_points.config import ConfigError
from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import PointFeatures
from talking_points.examples.inference import describe_points, localize_points
from talking_points.examples.points import LengthBuckets, PointExample, PointSet
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.omg_llava.chat import Turn
from talking_points.models.omg_llava.lora import lora_disabled
from talking_points.models.omg_llava.modeling import LanguageInputs
from talking_points.models.omg_llava.splicing import SplicedBatch
from talking_points.processes import process_state
from talking_points.training.config import AdaptConfig
from talking_points.training.curves import draw_group
from talking_points.training.grpo import ADVANTAGES, EQUAL_REWARDS, grpo_loss, token_log_probs
from talking_points.training.precision import autocast, prepare_to_train
from talking_points.training.rewards import REWARDS, Rewarded, mean_pck
from talking_points.training.sampled import SampledTrainer
from talking_points.training.shares import drawing, gather_all, no_loss, own_shares
from talking_points.training.trainer import PointTrainer


@dataclass(frozen=True)
class Samples:
    """S = P * G sampled descriptions. tokens, mask: (S, T), the end of the turn included; texts: (S,)."""

    inputs: LanguageInputs
    tokens: Tensor
    mask: Tensor
    texts: list[str]
    unfinished: int


@dataclass(frozen=True)
class Told:
    """What is told of a share: texts (S,), rewards (S,), advantages (S,), predicted points (S, 2), and means of all."""

    texts: list[str]
    rewards: NDArray[np.float64]
    advantages: Tensor
    predicted: NDArray[np.float64]
    means: dict[str, float]


MEASURED = ("reward", "reward_std", "zero_variance", "kl", "entropy", "length", "empty", "unfinished")


class AdaptationTrainer(SampledTrainer, PointTrainer):
    """GRPO: the loss of a batch of points is that of descriptions sampled from the model itself."""

    def __init__(
        self,
        model: PointDescriptor,
        localizer: PointLocalizer,
        features: PointFeatures,
        localizer_features: PointFeatures,
        config: AdaptConfig,
        output: Path,
        seed: int,
        metric: Any = None,
    ) -> None:
        super().__init__(model, features, config, output, seed, metric)
        self.adapt = config
        self.localizer = localizer
        self.localizer_features = localizer_features

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        # Dropout in the adapters would make a policy differ from itself.
        model.eval()
        self.batch = inputs["points"]
        policy = self.accelerator.unwrap_model(model)
        losses: list[Tensor] = []
        told: list[Told] = []
        for number, share in own_shares(len(self.batch), self.shares):
            if points := self.batch[share]:
                loss, samples = self._learn(policy, points, number)
                losses.append(loss * (len(points) / len(self.batch)))
                told.append(samples)
        total = torch.stack(losses).sum() if losses else no_loss(policy.parameters())
        parts = [{name: value * len(one.texts) for name, value in one.means.items()} for one in told]
        sums = {name: sum(part[name] for part in parts) for name in MEASURED}
        self.measure(**self.mean_of_shares(1 / (len(self.batch) * self.adapt.group), **sums))
        self.shown["reward"] = self._measured["reward"][-1]
        if self.state.global_step % self.adapt.sample_steps == 0:
            everything = gather_all(told)
            if self.state.is_world_process_zero:
                with self._writing(f"samples to {self.args.output_dir}"):
                    self._write_samples(everything)
        return (total, None) if return_outputs else total

    def _learn(self, policy: PointDescriptor, points: list[PointExample], number: int) -> tuple[Tensor, Told]:
        """The loss of a share of the batch, with what was sampled."""
        alone = self.shares == 1
        seeded = drawing(self.args.device, self.args.seed, self.state.global_step, number)
        with nullcontext() if alone else seeded, autocast(policy, self.adapt):
            samples = sample(policy, points, self.features, self.adapt)
        rewards, predicted = self.rewards(points, samples.texts)
        groups = torch.from_numpy(rewards).view(len(points), self.adapt.group)
        advantages = ADVANTAGES[self.adapt.advantage](groups, 5.0, self.adapt.advantage_std)
        with autocast(policy, self.adapt):
            log_probs, reference = score(policy, samples, self.adapt.last_blocks, self.adapt.temperature)
        on_device = advantages.flatten().to(log_probs)
        loss = grpo_loss(log_probs, reference, on_device, samples.mask.to(log_probs.device), self.adapt.beta)
        lengths = samples.mask.sum(1)
        spread = groups.std(1, correction=0)
        means = {
            "reward": rewards.mean(),
            "reward_std": float(spread.mean()),
            "zero_variance": float((spread <= EQUAL_REWARDS).float().mean()),
            "kl": float(loss.kl),
            "entropy": float(loss.entropy),
            "length": float(lengths.float().mean()),
            "empty": float((lengths <= 1).float().mean()),
            "unfinished": samples.unfinished / len(lengths),
        }
        return loss.total, Told(samples.texts, rewards, advantages.flatten().cpu(), predicted, means)

    def rewards(
        self, points: Sequence[PointExample], texts: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rewards (S,) and predicted points (S, 2) in pixels of texts about points, G in a row each."""
        examples = [
            replace(example, text=text)
            for example, text in zip(np.repeat(np.array(points, dtype=object), self.adapt.group), texts, strict=True)
        ]
        features, index, _ = self.localizer_features.batch(examples)
        predicted = self.localizer.localize(None, texts, features=features, image_index=index, batch_size=len(texts))
        return REWARDS[self.adapt.reward](Rewarded.of(examples, predicted)), predicted

    def batches(self) -> LengthBuckets:
        # Processes share every batch.
        return LengthBuckets(
            [len(example.text) for example in self.points.examples],
            self.stage.batch_size,
            self.args.seed,
            images=[example.image for example in self.points.examples],
            per_image=self.stage.points_per_image,
        )

    def _write_samples(self, told: Sequence[Told]) -> None:
        """Append the step's samples, those of all shares, to a table and draw its first group."""
        texts = [text for share in told for text in share.texts]
        rewards, predicted = (
            np.concatenate([getattr(share, name) for share in told]) for name in ("rewards", "predicted")
        )
        advantages = torch.cat([share.advantages for share in told])
        with self.table.open("a", encoding="utf-8") as file:
            for place, text in enumerate(texts):
                example = self.batch[place // self.adapt.group]
                row = {
                    "step": self.state.global_step, "id": example.id, "text": text, "reward": float(rewards[place]),
                    "advantage": float(advantages[place]), "predicted": predicted[place].tolist(),
                    "keypoint": list(example.keypoint),
                }  # fmt: skip
                file.write(json.dumps(row) + "\n")
        first = self.batch[0]
        _, image = next(self.points.images([first.image]))
        path = Path(self.args.output_dir) / "groups" / f"step-{self.state.global_step:06d}.png"
        draw_group(image, first, texts[: self.adapt.group], predicted, path)


def sample(
    model: PointDescriptor, examples: Sequence[PointExample], known: PointFeatures, config: AdaptConfig
) -> Samples:
    """Sample ``config.group`` descriptions of each point from the whole distribution, in eval mode."""
    features, index, point_features = known.batch(examples)
    assert point_features is not None
    index = index.repeat_interleave(config.group)
    point_features = point_features.repeat_interleave(config.group, dim=0)
    inputs = model.language_inputs(features, index, point_features, model.turns(len(index)))
    prompts = torch.arange(len(examples)).repeat_interleave(config.group)
    inputs = replace(inputs, prompt_index=prompts)
    tokens = model.generate(
        inputs,
        do_sample=True,
        temperature=config.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=config.max_new_tokens,
    )
    ends = torch.isin(tokens, torch.tensor(model.config.text_config.eos_token_id, device=tokens.device))
    mask = (ends.cumsum(1) - ends.long()) == 0
    return Samples(inputs, tokens, mask, model.decode(tokens), int((~ends.any(1)).sum()))


def score(
    model: PointDescriptor, samples: Samples, last_blocks: int, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (S, T) of sampled tokens under the policy, with gradients, and under the reference, without.

    Both share one pass through all blocks but the last ones, the only ones whose adapters are trained, and all
    samples of a group share what stands before them: image, point and question.
    """
    turns = []
    for turn, tokens, valid in zip(samples.inputs.turns, samples.tokens.cpu(), samples.mask.cpu(), strict=True):
        answer = tokens[valid]
        turns.append(Turn(torch.cat((turn.ids, answer)), torch.cat((torch.full_like(turn.ids, -100), answer))))
    language = model.language_model.model
    split = len(language.layers) - last_blocks
    lower, upper = language.layers[:split], language.layers[split:]
    with torch.no_grad():
        shared = model.share_prefix(replace(samples.inputs, turns=turns))

    def through(blocks: Sequence[nn.Module], hidden: Tensor, batch: SplicedBatch, mask: Any, cache: Cache) -> Tensor:
        angles = language.rotary_emb(hidden, position_ids=batch.position_ids)
        for block in blocks:
            hidden = block(
                hidden,
                attention_mask=mask,
                position_ids=batch.position_ids,
                position_embeddings=angles,
                past_key_values=cache,
            )
        return hidden

    def causal(batch: SplicedBatch, mask: Tensor, cache: Cache) -> Any:
        return create_causal_mask(
            config=language.config,
            inputs_embeds=batch.inputs_embeds,
            attention_mask=mask.long(),
            past_key_values=cache,
            position_ids=batch.position_ids,
        )

    before = causal(shared.prefix, shared.prefix.attention_mask, DynamicCache(config=language.config))

    def read_prefix(blocks: Sequence[nn.Module], hidden: Tensor) -> tuple[Tensor, Cache]:
        cache = DynamicCache(config=language.config)
        hidden = through(blocks, hidden, shared.prefix, before, cache)
        cache.batch_select_indices(shared.entry)
        return hidden, cache

    def answered(hidden: Tensor) -> Tensor:
        logits, tokens, _ = model.answer_logits(language.norm(hidden), shared.rest.labels)
        # What `generate` gives no probability gets none here either.
        logits = logits.index_fill(1, torch.tensor(model.never_written, device=logits.device), -torch.inf)
        found = logits.new_zeros(samples.mask.shape, dtype=torch.float32)
        return found.masked_scatter(samples.mask, token_log_probs(logits, tokens, temperature))

    def scored(prefix: Tensor, rest: Tensor) -> Tensor:
        _, cache = read_prefix(upper, prefix)
        return answered(through(upper, rest, shared.rest, after, cache))

    with torch.no_grad():
        prefix, cache = read_prefix(lower, shared.prefix.inputs_embeds)
        # The mask is the same for all blocks; it has to know how much the cache of one of them holds.
        known = cache if split else read_prefix(upper, prefix)[1]
        after = causal(shared.rest, shared.mask, known)
        rest = through(lower, shared.rest.inputs_embeds, shared.rest, after, cache)
        with lora_disabled(model.language_model):
            reference = scored(prefix, rest)
    return scored(prefix, rest), reference


def prepare_adaptation(model: PointDescriptor, config: AdaptConfig, seed: int = 0) -> list[str]:
    """Merge earlier adapters, add new ones, and leave only those of the last blocks trainable; returns their names."""
    model.merge_lora()
    settings = model.config
    settings.train_lora, settings.lora_last_blocks = True, config.last_blocks
    settings.train_projector = settings.train_language_model = False
    settings.train_vocabulary = settings.train_vision = False
    if config.lora_rank is not None:
        # The scale alpha / rank stays what it was.
        settings.lora_alpha *= config.lora_rank / settings.lora_rank
        settings.lora_rank = config.lora_rank
    names = prepare_to_train(model, config, seed)
    if not names:
        raise ConfigError("nothing of the descriptor would be trained: last_blocks must name blocks with adapters")
    return names


def adapt_descriptor(
    model: PointDescriptor,
    localizer: PointLocalizer,
    train: PointSet,
    held_out: PointSet | None,
    config: AdaptConfig,
    features: FeatureConfig,
    output: Path,
    seed: int = 0,
) -> dict[str, float]:
    """Adapt a descriptor to bare points and save it into ``output``; returns the last logged values.

    ``localizer`` is frozen and rewards. The running metric is mPCK of greedy descriptions of ``held_out`` points by the
    same localizer, none without such points; judge the result by one that it never saw.
    """
    prepare_adaptation(model, config, seed)
    localizer.to(process_state().device).eval().requires_grad_(False)
    own, judged = PointFeatures(model, train, features), PointFeatures(localizer, train, features)
    own.prepare()
    judged.prepare()
    output.mkdir(parents=True, exist_ok=True)
    metric = None
    if held_out is not None:
        evaluated = held_out.sample(config.eval_points, seed)

        def metric() -> float:
            written = describe_points(model, evaluated, features, max_new_tokens=config.max_new_tokens)
            texts = dict(zip((example.id for example in evaluated.examples), written, strict=True))
            described = evaluated.with_texts(texts)
            found = localize_points(localizer, described, features)
            return 100 * float(mean_pck(Rewarded.of(described.examples, found)).mean())

    return AdaptationTrainer(model, localizer, own, judged, config, output, seed, metric).run()
