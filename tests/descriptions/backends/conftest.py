"""Tiny models, built once per test session."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a text-only Llama with random weights."""
    models = pytest.importorskip("tests.tiny_models", reason="needs torch and transformers (extra 'train')")
    folder: Path = models.build_tiny_llama(tmp_path_factory.mktemp("tiny_llama"))
    return folder


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a LLaVA with random weights."""
    models = pytest.importorskip("tests.tiny_models", reason="needs torch and transformers (extra 'train')")
    folder: Path = models.build_tiny_llava(tmp_path_factory.mktemp("tiny_llava"))
    return folder


@pytest.fixture(scope="session")
def tiny_omg_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an OMG-LLaVA with random weights."""
    models = pytest.importorskip("tests.tiny_models", reason="needs torch and transformers (extra 'train')")
    folder: Path = models.build_tiny_omg_llava(tmp_path_factory.mktemp("tiny_omg_llava"))
    return folder
