"""``AutoConfig``, ``AutoModel`` and ``AutoTokenizer`` know our model types, and guess nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, LlamaConfig

from talking_points.config import ConfigError
from talking_points.models.answerer import PointAnswerer
from talking_points.models.auto import CONFIGS
from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.localizer import PointLocalizer
from talking_points.models.omg_llava.modeling import OmgLlavaModel
from talking_points.models.presets import train_tokenizer
from talking_points.models.segmenter import Segmenter
from talking_points.models.segmenter_presets import add_lattice, segmenter_config
from tests.models.capellm.tokenizers import small_model
from tests.training.conftest import small

ROOT = Path(__file__).resolve().parents[2]
KINDS: dict[str, type[Any]] = {
    "descriptor": PointDescriptor,
    "localizer": PointLocalizer,
    "answerer": PointAnswerer,
    "segmenter": Segmenter,
    "omg_llava": OmgLlavaModel,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small model of each kind, as ``save_pretrained`` leaves it."""
    root = tmp_path_factory.mktemp("models")
    small(PointDescriptor).save_pretrained(root / "descriptor")
    small(PointLocalizer).save_pretrained(root / "localizer")
    small_model("digits").save_pretrained(root / "answerer")
    tokenizer = train_tokenizer(["the dog"], 300)
    add_lattice(tokenizer, 8)
    segmenter = Segmenter(segmenter_config(tokenizer, 64, 2, 8))
    segmenter.tokenizer = tokenizer
    segmenter.save_pretrained(root / "segmenter")
    shutil.copytree(root / "descriptor", root / "omg_llava")
    _change(root / "omg_llava", architectures=["OmgLlavaModel"], model_type="omg_llava")
    return root


def _change(folder: Path, **fields: object) -> None:
    values = json.loads((folder / "config.json").read_text()) | fields
    values = {name: value for name, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(values))


def test_every_model_type_has_a_class_here(folders: Path) -> None:
    types = {AutoConfig.from_pretrained(folders / name).model_type for name in KINDS}
    assert types == {config.model_type for config in CONFIGS}


@pytest.mark.parametrize("name", KINDS)
def test_a_folder_gives_the_model_that_was_saved(folders: Path, name: str) -> None:
    loaded = AutoModel.from_pretrained(folders / name)
    expected = KINDS[name].from_pretrained(folders / name)
    assert type(loaded) is KINDS[name]
    assert type(loaded.config) is type(expected.config)
    for (own, values), (_, others) in zip(loaded.named_parameters(), expected.named_parameters(), strict=True):
        assert torch.equal(values, others), own
    assert loaded.tokenizer is not None
    assert AutoTokenizer.from_pretrained(folders / name).get_vocab() == loaded.tokenizer.get_vocab()


def test_options_reach_the_model(folders: Path) -> None:
    loaded = AutoModel.from_pretrained(folders / "descriptor", gaussian_sigma=3.0, dtype=torch.bfloat16)
    assert loaded.config.gaussian_sigma == 3.0
    assert loaded.dtype == torch.bfloat16


def test_a_configuration_alone_gives_a_model_with_random_weights(folders: Path) -> None:
    config = AutoConfig.from_pretrained(folders / "localizer")
    assert isinstance(AutoModel.from_config(config), PointLocalizer)


@pytest.mark.parametrize("architectures", [None, [], ["PointWhisperer"]])
def test_which_model_it_is_is_not_guessed(folders: Path, tmp_path: Path, architectures: list[str] | None) -> None:
    shutil.copytree(folders / "localizer", tmp_path / "model")
    _change(tmp_path / "model", architectures=architectures)
    with pytest.raises(ConfigError, match=r"PointDescriptor, PointLocalizer, found (none|PointWhisperer)"):
        AutoModel.from_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"talking_points\.PointLocalizer"):
        AutoModel.from_config(TalkingPointsConfig())


@pytest.mark.parametrize(
    ("kind", "folder", "found"),
    [
        (PointDescriptor, "localizer", "a Point Localizer"),
        (PointDescriptor, "answerer", "a Point Answerer"),
        (PointLocalizer, "descriptor", "a Point Descriptor"),
        (PointLocalizer, "omg_llava", "without a head for coordinates"),
        (PointAnswerer, "descriptor", "a Point Descriptor"),
        (PointAnswerer, "omg_llava", "of the type 'omg_llava'"),
    ],
)
def test_the_other_kinds_are_refused(folders: Path, kind: Any, folder: str, found: str) -> None:
    with pytest.raises(ConfigError, match=rf"expected the {kind.__name__} at .*found a.* ?{found.removeprefix('a ')}"):
        kind.from_pretrained(folders / folder)


def test_a_model_of_another_type_is_refused(tmp_path: Path) -> None:
    LlamaConfig(architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    for kind in (PointDescriptor, PointLocalizer, PointAnswerer):
        with pytest.raises(ConfigError, match="a model of the type 'llama'"):
            kind.from_pretrained(tmp_path)


FRONT_DOOR = """
from transformers import AutoConfig, AutoModel
try:
    AutoConfig.from_pretrained("descriptor")
except ValueError as error:
    assert "model type `talking_points` but Transformers does not recognize" in str(error), error
from talking_points import PointDescriptor
print(type(AutoModel.from_pretrained("descriptor")) is PointDescriptor)
"""


def test_the_front_door_makes_the_types_known(folders: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FRONT_DOOR], cwd=folders, capture_output=True, text=True, timeout=120, check=False,
        env={"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PATH": os.defpath},
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr
