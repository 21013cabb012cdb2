"""A rollout and its updates by our GSPO beside TRL's GRPOTrainer with ``importance_sampling_level="sequence"``.

    python -m pip install --no-deps --target build/trl trl==1.16.0
    PYTHONPATH=build/trl python benchmarks/gspo_against_trl.py

Both train the language model of the tiny segmenter, from random weights, in float32 and one thread: ``--group`` answers
to each prompt, prompts of the same number of tokens (ours are an image and a question, TRL's a text), two updates from
every rollout with clipped ratios, the number of written tokens as reward. Printed are the losses and gradients of both
objectives on the same numbers, and last tokens per CPU-second and their ratio, as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from datasets import Dataset
from rollouts import tiny  # the benchmark beside this one
from transformers import LlamaForCausalLM
from trl_side import PLAIN, Meter, prompt_of

from talking_points.models.segmenter import Segmenter
from talking_points.training.grpo import group_advantages, gspo_loss
from talking_points.training.policy import Answers
from talking_points.training.shares import divide

SKIPPED, UPDATES = 1, 2
"""First rollouts that are not counted; updates from each."""

LOW, HIGH = 3e-4, 4e-4


def prompt_tokens(model: Segmenter) -> int:
    """How many tokens the language model reads before it writes about an image."""
    config = model.config
    image = (config.image_size // config.visual_token_stride) ** 2 + config.num_queries
    return image + len(model.turns(["the dog"])[0].ids) - 1


def ours(prompts: int, group: int, new_tokens: int, steps: int) -> float:
    """Tokens per CPU-second."""
    model = tiny()
    features = model.encode_pixels(torch.randn(prompts, 3, 96, 96)).compact()
    questions = ["the dog"] * prompts
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-6)

    def scores(answers: Answers) -> torch.Tensor:
        asked: Any = answers.examples
        index = torch.arange(len(asked))
        return model.log_probs(features.select(asked), index, questions[: len(asked)], answers.written, group)

    tokens = 0
    for step in range(SKIPPED + steps):
        if step == SKIPPED:
            tokens, start = 0, time.process_time()
        written = model.write(
            features, torch.arange(prompts), questions, group=group, temperature=1.0, max_new_tokens=new_tokens,
            batch_size=10_000,
        )  # fmt: skip
        lengths = written.mask.sum(1)
        advantages = group_advantages(lengths.double().view(-1, group)).float()
        answers = Answers(list(range(prompts)), group, written)
        shares = divide(prompts, UPDATES)
        parts = [answers.part(share) for share in shares]
        with torch.no_grad():
            old = [None, *(scores(part) for part in parts[1:])]
        for share, part, before in zip(shares, parts, old, strict=True):
            now = scores(part)
            own = now.detach() if before is None else before
            loss = gspo_loss(now, own, advantages[share].flatten(), part.mask, epsilon_low=LOW, epsilon_high=HIGH)
            loss.total.backward()
            optimizer.step()
            optimizer.zero_grad()
        tokens += int(lengths.sum())
    return tokens / (time.process_time() - start)


def their_trainer(
    folder: str, prompts: int, group: int, new_tokens: int, rollouts: int, reward: Callable[..., list[float]]
) -> Any:
    """TRL's trainer with the objective of ours, of the same language model."""
    from trl import GRPOConfig, GRPOTrainer

    segmenter = tiny()
    tokenizer = segmenter.text_tokenizer
    prompt = prompt_of(tokenizer, prompt_tokens(segmenter))
    config = GRPOConfig(
        output_dir=folder,
        importance_sampling_level="sequence",
        loss_type="grpo",
        epsilon=LOW,
        epsilon_high=HIGH,
        beta=0.0,
        per_device_train_batch_size=prompts * group // UPDATES,
        steps_per_generation=UPDATES,
        num_generations=group,
        max_completion_length=new_tokens,
        max_steps=rollouts * UPDATES,
        **PLAIN,
    )
    torch.manual_seed(0)
    return GRPOTrainer(
        LlamaForCausalLM(segmenter.config.text_config),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": prompt}] * prompts * rollouts),
        processing_class=tokenizer,
    )


def theirs(prompts: int, group: int, new_tokens: int, steps: int) -> float:
    """Tokens per CPU-second."""
    meter = Meter()
    with TemporaryDirectory() as folder:
        trainer = their_trainer(folder, prompts, group, new_tokens, SKIPPED + steps, meter.reward)
        trainer.add_callback(meter)
        trainer.train()
    return meter.rate(SKIPPED, UPDATES)


def same_objective() -> tuple[float, float]:
    """How far the losses, and their gradients, of both lie apart on the same log-probabilities."""
    random = torch.Generator().manual_seed(0)
    old = -3 * torch.rand(12, 9, generator=random)
    now = (old + 1e-3 * torch.randn(12, 9, generator=random)).requires_grad_()
    mask = torch.arange(9) < torch.randint(1, 10, (12, 1), generator=random)
    advantages = torch.randn(12, generator=random)
    own = gspo_loss(now, old, advantages, mask, epsilon_low=LOW, epsilon_high=HIGH)
    gradient = torch.autograd.grad(own.total, now)[0]
    assert 0 < own.clipped.float().mean() < 1, "some are clipped, some are not"
    ids = torch.zeros(12, 9, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1] + 1, "completion_ids": ids, "completion_mask": mask.long(),
        "advantages": advantages, "old_per_token_logps": old,
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        trainer = their_trainer(folder, 2, 2, 4, 1, lambda completion_ids, **_: [0.0] * len(completion_ids))
        trainer.model.eval()
        given = now, torch.zeros_like(now).detach(), None
        with patch.object(trainer, "_get_per_token_logps_and_entropies", lambda *_, **__: given):
            loss = trainer._compute_loss(trainer.model, inputs)
    further = torch.autograd.grad(loss, now)[0]
    return float((loss - own.total).abs()), float((further - gradient).abs().max())


def main() -> None:
    """Measure both, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=36, help="an outline of 16 points")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    loss, gradient = same_objective()
    print(f"on the same numbers: losses differ by {loss:.1e}, gradients by at most {gradient:.1e}")
    work = (options.prompts, options.group, options.new_tokens, options.steps)
    figures = {"trl": theirs(*work), "ours": ours(*work)}
    figures["ratio"] = figures["ours"] / figures["trl"]
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
