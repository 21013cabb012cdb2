"""Our adaptation step beside that of TRL's GRPOTrainer, in generated tokens per CPU-second.

    python -m pip install --no-deps --target build/trl trl==1.16.0
    PYTHONPATH=build/trl python benchmarks/grpo_against_trl.py

Both adapt the last two blocks of the tiny preset's language model by LoRA: three samples of each prompt, prompts of the
same number of tokens (ours are an image and a point, TRL's a text), the same limit of new tokens, the number of written
tokens as reward, one thread. The figures are the last line of the output, as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from datasets import Dataset
from peft import LoraConfig
from training import GROUP, models, points
from transformers import LlamaForCausalLM
from trl_side import PLAIN, Meter, prompt_of

from talking_points.examples.config import FeatureConfig
from talking_points.examples.features import PointFeatures
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.lora import LINEAR_LAYERS
from talking_points.training.adaptation import prepare_adaptation
from talking_points.training.config import AdaptConfig
from talking_points.training.descriptor_policy import DescriptorPolicy
from talking_points.training.grpo import group_advantages, grpo_loss

SKIPPED = 1
"""First steps that are not counted."""


def prompt_tokens(descriptor: PointDescriptor) -> int:
    """How many tokens the language model reads before it writes about a point."""
    config = descriptor.config
    image = (config.image_size // config.visual_token_stride) ** 2 + config.num_queries
    return image + len(descriptor.turns(1)[0].ids) - 1


def ours(prompts: int, new_tokens: int, steps: int) -> float:
    """Tokens per CPU-second of our step, on the tiny preset with random weights."""
    descriptor = models("tiny", "cpu")[0]
    data = points(max(1, prompts // 2), 2, 256)
    config = AdaptConfig(group=GROUP, max_new_tokens=new_tokens)
    with TemporaryDirectory() as folder:
        known = PointFeatures(descriptor, data, FeatureConfig(folder=Path(folder)))
        known.prepare()
        prepare_adaptation(descriptor, config)
        policy = DescriptorPolicy(descriptor.eval(), known, config.last_blocks, max_new_tokens=new_tokens)
        optimizer = torch.optim.AdamW([p for p in descriptor.parameters() if p.requires_grad], 1e-6)
        tokens = 0
        for step in range(SKIPPED + steps):
            if step == SKIPPED:
                tokens, start = 0, time.process_time()
            samples = policy.sample(data.examples, GROUP)
            written = samples.mask.sum(1)
            advantages = group_advantages(written.float().view(-1, GROUP)).flatten()
            reference, log_probs = policy.reference(samples), policy.log_probs(samples)
            grpo_loss(log_probs, reference, advantages, samples.mask).total.backward()
            optimizer.step()
            optimizer.zero_grad()
            tokens += int(written.sum())
        return tokens / (time.process_time() - start)


def theirs(prompts: int, new_tokens: int, steps: int) -> float:
    """The same of TRL on the same language model."""
    from trl import GRPOConfig, GRPOTrainer

    descriptor: PointDescriptor = models("tiny", "cpu")[0]
    blocks = descriptor.config.text_config.num_hidden_layers
    tokenizer = descriptor.text_tokenizer
    prompt = prompt_of(tokenizer, prompt_tokens(descriptor))
    torch.manual_seed(0)
    model = LlamaForCausalLM(descriptor.config.text_config)
    meter = Meter()
    with TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=prompts * GROUP,
            num_generations=GROUP,
            max_completion_length=new_tokens,
            max_steps=SKIPPED + steps,
            beta=0.1,
            **PLAIN,
        )
        trainer = GRPOTrainer(
            model,
            reward_funcs=meter.reward,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": prompt}] * prompts * (SKIPPED + steps)),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=descriptor.config.lora_rank,
                lora_alpha=descriptor.config.lora_alpha,
                target_modules=list(LINEAR_LAYERS),
                layers_to_transform=[blocks - 2, blocks - 1],
            ),
            callbacks=[meter],
        )
        trainer.train()
    return meter.rate(SKIPPED)


def main() -> None:
    """Measure both, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=57)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = (options.prompts, options.new_tokens, options.steps)
    figures = {"trl": theirs(*work), "ours": ours(*work)}
    figures["ratio"] = figures["ours"] / figures["trl"]
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
