"""A descriptor in reinforcement: descriptions of points, and how likely they are now and before its adaptation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask

from talking_points.examples.features import PointFeatures
from talking_points.examples.points import PointExample
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.chat import Turn
from talking_points.models.omg_llava.lora import lora_disabled
from talking_points.models.omg_llava.modeling import LanguageInputs
from talking_points.models.omg_llava.splicing import SplicedBatch
from talking_points.models.segmenter import Written
from talking_points.training.grpo import token_log_probs
from talking_points.training.policy import Answers


@dataclass(frozen=True)
class _Read:
    """Answers read by the blocks that do not change; ``score`` gives their log-probabilities by the others."""

    samples: Answers
    score: Callable[[], Tensor]


class DescriptorPolicy:
    """A descriptor over kept image features, of whose blocks only the last ``last_blocks`` have adapters in training.

    The reference is the descriptor without these adapters, so that both are scored over the same hidden states of the
    blocks before. Nothing else of it may change: image tokens and hidden states are kept between the calls of a step.
    """

    def __init__(
        self,
        model: PointDescriptor,
        features: PointFeatures,
        last_blocks: int,
        temperature: float = 1.0,
        max_new_tokens: int = 256,
    ) -> None:
        self.model, self.features = model, features
        self.last_blocks, self.temperature, self.max_new_tokens = last_blocks, temperature, max_new_tokens
        self._asked: tuple[list[str], LanguageInputs] | None = None
        self._read: _Read | None = None

    def sample(self, examples: Sequence[PointExample], group: int) -> Answers:
        """In eval mode, one reading of a point for its whole group."""
        self._read = None
        tokens = self.model.generate(
            self._inputs(examples, group),
            do_sample=True,
            temperature=self.temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=self.max_new_tokens,
        )
        ends = torch.isin(tokens, torch.tensor(self.model.config.text_config.eos_token_id, device=tokens.device))
        mask = (ends.cumsum(1) - ends.long()) == 0
        written = Written(tokens, mask, self.model.decode(tokens), ends.any(1).tolist())
        return Answers(examples, group, written)

    def log_probs(self, samples: Answers) -> Tensor:
        read, self._read = self._read, None  # an update changes nothing below, but holds what it needs itself
        if read is None or read.samples is not samples:
            read = self._read_lower(samples)
        return read.score()

    @torch.no_grad()
    def reference(self, samples: Answers) -> Tensor:
        self._read = self._read_lower(samples)
        with lora_disabled(self.model.language_model):
            return self._read.score()

    def _inputs(self, examples: Sequence[PointExample], group: int) -> LanguageInputs:
        names = [f"{group} {example.id}" for example in examples]
        if self._asked is None or self._asked[0] != names:
            features, index, point_features = self.features.batch(examples)
            assert point_features is not None
            index = index.repeat_interleave(group)
            point_features = point_features.repeat_interleave(group, dim=0)
            inputs = self.model.language_inputs(features, index, point_features, self.model.turns(len(index)))
            prompts = torch.arange(len(examples)).repeat_interleave(group)
            self._asked = names, replace(inputs, prompt_index=prompts)
        return self._asked[1]

    @torch.no_grad()
    def _read_lower(self, samples: Answers) -> _Read:
        """All samples of a group share what stands before them: image, point and question."""
        model = self.model
        inputs = self._inputs(samples.examples, samples.group)
        turns = []
        for turn, tokens, valid in zip(inputs.turns, samples.tokens.cpu(), samples.mask.cpu(), strict=True):
            answer = tokens[valid]
            turns.append(Turn(torch.cat((turn.ids, answer)), torch.cat((torch.full_like(turn.ids, -100), answer))))
        language = model.language_model.model
        split = len(language.layers) - self.last_blocks
        lower, upper = language.layers[:split], language.layers[split:]
        shared = model.share_prefix(replace(inputs, turns=turns))
        before = _causal(language, shared.prefix, shared.prefix.attention_mask, DynamicCache(config=language.config))

        def read_prefix(blocks: Sequence[nn.Module], hidden: Tensor) -> tuple[Tensor, Cache]:
            cache = DynamicCache(config=language.config)
            hidden = _through(language, blocks, hidden, shared.prefix, before, cache)
            cache.batch_select_indices(shared.entry)
            return hidden, cache

        prefix, cache = read_prefix(lower, shared.prefix.inputs_embeds)
        # The mask is the same for all blocks; it has to know how much the cache of one of them holds.
        known = cache if split else read_prefix(upper, prefix)[1]
        after = _causal(language, shared.rest, shared.mask, known)
        rest = _through(language, lower, shared.rest.inputs_embeds, shared.rest, after, cache)

        def score() -> Tensor:
            cache = read_prefix(upper, prefix)[1]
            hidden = _through(language, upper, rest, shared.rest, after, cache)
            logits, tokens, _ = model.answer_logits(language.norm(hidden), shared.rest.labels)
            # What `generate` gives no probability gets none here either.
            logits = logits.index_fill(1, torch.tensor(model.never_written, device=logits.device), -torch.inf)
            found = logits.new_zeros(samples.mask.shape, dtype=torch.float32)
            return found.masked_scatter(
                samples.mask.to(found.device), token_log_probs(logits, tokens, self.temperature)
            )

        return _Read(samples, score)


def _through(
    language: Any, blocks: Sequence[nn.Module], hidden: Tensor, batch: SplicedBatch, mask: Any, cache: Cache
) -> Tensor:
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


def _causal(language: Any, batch: SplicedBatch, mask: Tensor, cache: Cache) -> Any:
    return create_causal_mask(
        config=language.config,
        inputs_embeds=batch.inputs_embeds,
        attention_mask=mask.long(),
        past_key_values=cache,
        position_ids=batch.position_ids,
    )
