from __future__ import annotations

import sys

import pytest

from talking_points.build_config import StepConfig
from talking_points.descriptions import backends
from talking_points.descriptions.backends import BACKENDS, BackendEntry, check_capabilities, open_backend
from talking_points.descriptions.backends.protocol import STEPS, Backend, BackendUnavailable, Capabilities


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
