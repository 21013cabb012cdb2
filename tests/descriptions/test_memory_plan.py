"""Sizes of models that are not here, against the sizes of their published files, and of a tiny one that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from talking_points.build_config import StepConfig
from talking_points.descriptions.memory_plan import GIB, GPUS, WORKSPACE, model_size, plan_memory

AWQ = {"model": "casperhansen/llama-3.3-70b-instruct-awq", "options": {"quantization": "awq_marlin"}}


def step(**values: Any) -> StepConfig:
    return StepConfig(**({"backend": "vllm"} | values))


@pytest.mark.parametrize(
    ("values", "gigabytes", "cache"),
    [
        ({"model": "llava-hf/llava-1.5-7b-hf"}, 14.13, 524_288),
        (AWQ, 39.77, 327_680),
        ({"model": "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic"}, 72.66, 327_680),
        ({"model": "models/Llama-3.3-70B-Instruct-Q4_K_M.gguf", "backend": "llama_cpp"}, 42.51, 327_680),
        ({"model": "meta-llama/Llama-3.3-70B-Instruct"}, 141.11, 327_680),
    ],
)
def test_weights_are_those_of_the_published_files(values: dict[str, Any], gigabytes: float, cache: int) -> None:
    size = model_size(step(**values))
    assert size is not None
    assert size.weights / 1e9 == pytest.approx(gigabytes, abs=0.01)
    assert size.cache_bytes_per_token == cache


def test_steps_without_a_model_here_have_no_plan() -> None:
    assert plan_memory(StepConfig(), 100, 0, 1) is None
    assert (
        plan_memory(step(backend="openai", model="llama-3.3-70b", endpoint="http://127.0.0.1:1/v1"), 100, 0, 1) is None
    )
    assert plan_memory(step(model="somebody/unheard-of"), 100, 0, 1) is None


def test_a_quantized_70b_fits_80_gb_and_not_24() -> None:
    plan = plan_memory(step(max_tokens=320, **AWQ), 1000, 800, 128)
    assert plan is not None
    assert (plan.length, plan.shared) == (1320, 800)
    assert plan.cache == (800 + 128 * 520) * 327_680
    assert plan.total == plan.size.weights + WORKSPACE + plan.cache
    assert plan.at_once(GPUS["80 GB"]) == 128
    assert plan.at_once(GPUS["24 GB"]) == 0


@pytest.mark.parametrize("shared", [0, 800])
def test_what_is_held_at_once_fits_and_one_more_does_not(shared: int) -> None:
    plan = plan_memory(step(max_tokens=320, **AWQ), 1000, shared, 10_000)
    assert plan is not None
    held = plan.at_once(GPUS["80 GB"])
    assert 0 < held < 10_000

    def needed(requests: int) -> float:
        cache = (shared + requests * (1320 - shared)) * 327_680
        return plan.size.weights + WORKSPACE + cache

    assert needed(held) <= GPUS["80 GB"] * 0.92 < needed(held + 1)


def test_prompts_are_shared_only_where_the_engine_does_so() -> None:
    for values in ({"backend": "transformers"}, {"options": {"enable_prefix_caching": False}}):
        plan = plan_memory(step(model="llava-hf/llava-1.5-7b-hf", **values), 300, 200, 8)
        assert plan is not None
        assert plan.shared == 0
        assert plan.length == 300 + 576 + 256


def test_a_folder_is_measured_by_its_files(tmp_path: Path) -> None:
    text = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "max_position_embeddings": 1024,
    }
    vision = {"image_size": 56, "patch_size": 14}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": text, "vision_config": vision}))
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    size = model_size(step(model=str(tmp_path), options={"max_model_len": 512}))
    assert size is not None
    assert (size.weights, size.image_tokens, size.context) == (1000, 16, 512)
    assert size.cache_bytes_per_token == 2 * 2 * 2 * 16 * 2
    assert size.parameters == 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128) + 2 * 512 * 64

    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 5000}}))
    announced = model_size(step(model=str(tmp_path)))
    assert announced is not None
    assert announced.weights == 5000
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert model_size(step(model=str(tmp_path))) is None


@pytest.mark.slow
def test_omg_llava_is_counted_and_the_table_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    omg_llava = step(backend="omg_llava", model="build/omg-llava")
    counted = model_size(omg_llava)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    listed = model_size(omg_llava)
    assert counted is not None
    assert listed is not None
    assert counted == listed
    assert listed.weights / GIB == pytest.approx(15.39, abs=0.01)
