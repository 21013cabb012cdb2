"""How fast named keypoints are answered: all of an object against one, and constrained against free decoding.

    python benchmarks/answering.py
    python benchmarks/answering.py --preset small --device cuda       # random weights of the true sizes

Weights are random: time does not depend on them. The texts are the 17 keypoints of a body. The ways take turns, so
that a busy machine slows all alike. The figures are the last line, as JSON, for names alone and, with "described_",
for names with descriptions, whose reading outweighs all else where arithmetic is scarce:

- all_to_one: time for all 17 keypoints of an object over that for one (at most 2.5 is wanted);
- free_to_constrained: time of free generation as in the official code, 13 tokens for every keypoint behind its own
  reading of the image, over the constrained two-step path (at least 4 is wanted);
- plain_to_packed_step: time of a training step, forward and backward, on --objects whose conversations of k rounds
  each read their own crop, over the same conversations behind one reading (at least 2 is wanted), for k of 1 and 4;
- free_steps_to_constrained_steps: the same with the reading of image and questions left out of both (at least 4);
- tokens_...: the same ratios in tokens that the language model reads. Where arithmetic is scarce, as on a CPU, a way
  gains little more than that: descriptions of 35 words outweigh the image that is read once.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# Of a script only its own folder is on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talking_points.descriptions.keypoint_texts import rule_texts
from talking_points.examples.conversations import batch
from talking_points.models.answerer import FREE_TOKENS, AnswerMode, PointAnswerer
from talking_points.models.capellm.configuration import AnswererConfig
from talking_points.models.capellm.conversation import Query, Round, encode
from talking_points.models.capellm.presets import small_config, tiny_config
from talking_points.models.capellm.reading import PackedReader, count_shared
from talking_points.sources.keypoint_sets import keypoint_sets


def clock() -> float:
    """Seconds: of this process where it has one thread on a CPU, so that what else runs there counts less."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time() if alone else time.perf_counter()


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("tiny", "small"), default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--objects", type=int, default=4, help="of a training step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    tokenizer = three_digit_tokenizer()
    model = PointAnswerer(configuration(arguments.preset, tokenizer)).eval().to(arguments.device)
    if arguments.device != "cpu":
        model.language_model.to(torch.bfloat16)
    model.tokenizer = tokenizer
    assert model.grammar.fast is not None
    body = keypoint_sets()["quadruped_body"]
    named = [Query(name) for name in body.names]
    described = [Query(name, text) for name, text in rule_texts(body).items()]
    figures = {"preset": arguments.preset, "device": arguments.device, "keypoints": len(named)}
    figures |= measure(model, named, arguments.rounds)
    figures |= {f"described_{name}": value for name, value in measure(model, described, arguments.rounds).items()}
    for k in (1, 4):
        for name, queries in (("", named), ("described_", described)):
            measured, tokens = measure_steps(model, queries, k, arguments.rounds, arguments.objects)
            figures[f"{name}plain_to_packed_step_k{k}"] = measured
            figures[f"{name}tokens_plain_to_packed_step_k{k}"] = tokens
    print(json.dumps(figures))


def measure_steps(model: PointAnswerer, queries: list[Query], k: int, rounds: int, objects: int) -> tuple[float, float]:
    """How many times as long a plain training step takes as a packed one, by medians taken in turns, and in tokens."""
    device, config = model.device, model.config
    talks = [
        [Round(query, "[0.123,0.456]") for query in queries[start : start + k]] for start in range(0, len(queries), k)
    ]
    rows = [encode(model.text_tokenizer, *model.template.render(talk)) for talk in talks] * objects
    head = [config.text_config.bos_token_id, *[config.image_token_id] * config.image_tokens]
    plain = batch(rows, head, config.text_config.pad_token_id)
    branches = batch(rows, [], config.text_config.pad_token_id)
    index = torch.arange(objects, device=device).repeat_interleave(len(talks))
    pixels = torch.randn(objects, 3, config.image_size, config.image_size, device=device)

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.copy()).to(device)

    ways: dict[str, dict[str, torch.Tensor]] = {
        "plain": {
            "pixel_values": pixels[index],
            "input_ids": tensor(plain.ids),
            "labels": tensor(plain.labels),
            "attention_mask": tensor(plain.visible.astype(np.int64)),
        },
        "packed": {
            "pixel_values": pixels,
            "head": tensor(branches.ids[0, :1]),
            "input_ids": tensor(branches.ids[:, 1:]),
            "labels": tensor(branches.labels[:, 1:]),
            "image_index": index,
        },
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, inputs in ways.items():
            started = clock()
            loss = model(**inputs).loss
            assert loss is not None
            loss.backward()
            model.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                seconds[name].append(clock() - started)
    packed = objects * (1 + config.image_tokens) + branches.ids.size
    measured = statistics.median(seconds["plain"]) / statistics.median(seconds["packed"])
    return round(measured, 2), round(plain.ids.size / packed, 2)


def configuration(preset: str, tokenizer: PreTrainedTokenizerFast) -> AnswererConfig:
    """Sizes of a preset with the vocabulary of the benchmark's own tokenizer."""
    if preset == "tiny":
        tiny = tiny_config(tokenizer)
        tiny.decimals = 3
        return tiny
    config = small_config()
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(tokenizer, name))
    return config


def three_digit_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and every number of three digits as one token: what makes the fast path, without a download."""
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    numbers = [f"{number:0{digits}d}" for digits in (2, 3) for number in range(10**digits)]
    texts = " ".join(text for one in keypoint_sets().values() for text in rule_texts(one).values())
    words = sorted({f"Ġ{word}" for word in re.findall(r"[a-z]+", f"{texts} {AnswererConfig().question}")})
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Whichever pair of digits merges first, the third joins it.
    merges = [(text[:cut], text[cut:]) for cut in (1, 2) for text in numbers if cut < len(text)]
    merges.sort(key=lambda pair: len("".join(pair)))
    pieces, known = list(numbers), set(merges)
    for word in words:  # a chain of merges from the left, shared between words
        for place in range(2, len(word) + 1):
            merge = (word[: place - 1], word[place - 1])
            if merge not in known:
                known.add(merge)
                merges.append(merge)
                pieces.append(word[:place])
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([begin, end, *letters, *pieces]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=end)


def measure(model: PointAnswerer, queries: list[Query], rounds: int) -> dict[str, float]:
    """Median seconds of every way, taken in turns, and their ratios."""
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    box = (40.0, 30.0, 220.0, 180.0)

    def ask(some: list[Query], mode: AnswerMode) -> Callable[[], object]:
        return lambda: model.answer_all(pixels, box, some, mode=mode)

    ways = {
        "one": ask(queries[:1], "greedy"),
        "all": ask(queries, "greedy"),
        "beam": ask(queries, "beam"),
        "free": ask(queries, "free"),
        "steps_constrained": steps(model, queries, constrained=True),
        "steps_free": steps(model, queries, constrained=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = clock()
            own = way()
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round warms up
                seconds[name].append(own if isinstance(own, float) else clock() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    texts = [encode(model.text_tokenizer, model.template.prompt(query)).ids for query in queries]
    prompts, shared = list(map(len, texts)), count_shared(texts)
    image, grammar = 1 + model.config.image_tokens, model.grammar
    steps_of = len(grammar.head) + 1 + len(grammar.between)
    everything = image + sum(prompts) + steps_of * len(prompts) - shared * (len(prompts) - 1)  # read once for all
    return {f"seconds_{name}": round(value, 4) for name, value in median.items()} | {
        "all_to_one": round(median["all"] / median["one"], 2),
        "free_to_constrained": round(median["free"] / median["all"], 2),
        "free_steps_to_constrained_steps": round(median["steps_free"] / median["steps_constrained"], 2),
        "tokens_all_to_one": round(everything / (image + prompts[0] + steps_of), 2),
        "tokens_free_to_constrained": round(sum(image + one + FREE_TOKENS for one in prompts) / everything, 2),
        "keypoints_per_second": round(len(queries) / median["all"], 1),
    }


def steps(model: PointAnswerer, queries: list[Query], constrained: bool) -> Callable[[], object]:
    """What follows the reading of image and questions: two steps of number tokens, or thirteen of any."""
    prompts = [
        model.text_tokenizer(model.template.prompt(query), add_special_tokens=False).input_ids for query in queries
    ]
    shared, grammar = count_shared(prompts), model.grammar
    pieces = [grammar.head, (*grammar.numbers[0][123], *grammar.between)] if constrained else [(5,)] * FREE_TOKENS
    everyone = range(len(prompts))

    @torch.no_grad()
    def run() -> float:
        images = model.image_tokens(torch.zeros(1, 3, *[model.config.image_size] * 2, device=model.device))
        beginning = model.beginning(images, torch.tensor(prompts[0][:shared], device=model.device))
        reader = PackedReader(model.language_model, beginning, [0] * len(prompts))
        reader.step(everyone, [prompt[shared:] for prompt in prompts])
        started = clock()
        for piece in pieces:
            reader.step(everyone, [piece] * len(prompts))
        return clock() - started

    return run


if __name__ == "__main__":
    main()
