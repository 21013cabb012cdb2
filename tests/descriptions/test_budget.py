"""The budget of the shipped configuration, by its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from talking_points.build_config import BuildConfig, StepConfig
from talking_points.config import load_config
from talking_points.descriptions.budget import plan_budget, plan_seconds, prompt_tokens, requests_in_flight
from talking_points.descriptions.memory_plan import GPUS

PAPER = Path(__file__).resolve().parents[2] / "configs" / "build" / "paper.yaml"
LLAVA = "llava-hf/llava-1.5-7b-hf"


def config(**steps: Any) -> BuildConfig:
    return BuildConfig.model_validate({"output": "out"} | steps)


def test_the_papers_build_fits_one_80_gb_gpu_and_a_day() -> None:
    # The object captioner's size is another test's matter: counting it takes seconds.
    settings = load_config(BuildConfig, PAPER, ["object_caption.backend=transformers", f"object_caption.model={LLAVA}"])
    budget = plan_budget(settings, 21_000)
    assert [step.requests for step in budget] == [21_000, 21_000, 21_000, 26_250]
    assert [step.most_requests for step in budget] == [21_000, 21_000, 21_000, 63_000]
    for step in budget:
        assert step.memory is not None
        assert step.memory.at_once(GPUS["80 GB"]) == step.memory.in_flight
        assert step.memory.length <= step.memory.size.context
        assert step.seconds is not None
    assert 0.5 < sum(step.seconds or 0 for step in budget) / 3600 < 24


def test_the_rules_need_no_model() -> None:
    for step in plan_budget(config(), 90):
        assert step.memory is None
        assert step.seconds is None
        assert step.requests >= 90


def test_prompts_share_their_examples() -> None:
    settings = config()
    for step in ("generate", "refine"):
        prompt, shared = prompt_tokens(step, settings)
        assert 600 < shared < prompt < 1500
    prompt, shared = prompt_tokens("local_caption", settings)
    assert shared < prompt < 500


@pytest.mark.parametrize(
    ("values", "workers", "expected"),
    [
        ({"backend": "transformers", "batch_size": 32}, 2, 32),
        ({"backend": "transformers", "batch_size": 2000}, 2, 1000),
        ({"backend": "vllm", "concurrency": 16}, 2, 128),
        ({"backend": "vllm", "concurrency": 64}, 2, 256),
        ({"backend": "vllm", "concurrency": 64, "options": {"max_num_seqs": 64}}, 2, 64),
        ({"backend": "llama_cpp"}, 4, 1),
    ],
)
def test_requests_in_flight(values: dict[str, Any], workers: int, expected: int) -> None:
    assert requests_in_flight(StepConfig(model=LLAVA, **values), workers, 1000) == expected


def test_batching_and_shared_prompts_save_time() -> None:
    def seconds(**values: Any) -> float:
        section = {"backend": "vllm", "model": "casperhansen/llama-3.3-70b-instruct-awq", **values}
        budget = plan_budget(config(generate=section, workers=1), 1000)[2]
        assert budget.seconds is not None
        return budget.seconds

    batched, alone = seconds(), seconds(concurrency=1, options={"max_num_seqs": 1})
    assert batched * 4 < alone
    assert batched < seconds(options={"enable_prefix_caching": False})


def test_workers_share_the_engine() -> None:
    """However many there are, the plan for the whole build is the time of the one engine."""
    section = {"backend": "vllm", "model": LLAVA, "options": {"max_num_seqs": 16}}
    for workers in (1, 4):
        settings = config(generate=section, workers=workers)
        planned, engine = plan_seconds(settings)["generate"], plan_budget(settings, 10_000)[2].seconds
        assert planned is not None
        assert planned * 10_000 / workers == pytest.approx(engine)
    assert plan_seconds(config())["generate"] is None


def test_a_model_that_does_not_fit_has_no_time() -> None:
    section = {"backend": "vllm", "model": "meta-llama/Llama-3.3-70B-Instruct"}
    budget = plan_budget(config(refine=section), 100)[3]
    assert budget.memory is not None
    assert budget.seconds is None


@pytest.mark.parametrize(
    ("judge", "steps"),
    [
        ({"by": "localizer", "model": "localizer"}, 4),
        ({"backend": "openai", "model": "m", "endpoint": "http://127.0.0.1:1/v1"}, 5),
        ({"backend": "openai", "model": "m", "endpoint": "http://127.0.0.1:1/v1", "shows": "crop"}, 5),
    ],
)
def test_a_judge_that_is_asked_is_planned_as_a_step(judge: dict[str, Any], steps: int) -> None:
    budget = plan_budget(config(judge=judge), 100)
    assert len(budget) == steps
    if steps == 5:
        assert (budget[-1].step, budget[-1].requests) == ("judge", 100)
        assert budget[-1].tokens_out < 10 * 100 < budget[-1].tokens_in
    assert plan_seconds(config(judge=judge)).get("judge") is None


def test_the_image_tokens_of_a_judge_are_counted_where_it_sees_an_image() -> None:
    judge = {"backend": "transformers", "model": LLAVA}
    blind, seeing = (plan_budget(config(judge=judge | {"shows": shows}), 100)[-1] for shows in ("text", "image"))
    assert seeing.tokens_in - blind.tokens_in > 500 * 100
