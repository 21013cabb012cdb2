"""The official implementation's recorded outputs are reproduced, and a deviation would be noticed."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from talking_points.models.omg_llava.golden import Comparison, check
from talking_points.models.omg_llava.release import ConversionError
from tests.shared_data import shared_path

RELATIVE_TOLERANCE = 1e-5
ABSOLUTE_LOGIT_TOLERANCE = 1e-5


def test_every_recorded_output_is_reproduced():
    errors = dict(check(shared_path("golden", "omg_llava")))
    assert len(errors) == 174
    assert {name: error for name, error in errors.items() if not error <= RELATIVE_TOLERANCE} == {}


def test_masks_choices_splicing_and_preprocessing_are_exact():
    exact = ("attn_mask", "splice.", "preproc.", "prior.blocked")
    errors = {name: error for name, error in check(shared_path("golden", "omg_llava")) if any(e in name for e in exact)}
    assert len(errors) == 9 * 6 + 4 + 6 + 1
    assert set(errors.values()) == {0.0}


def test_language_model_logits_are_within_the_absolute_tolerance():
    folder = shared_path("golden", "omg_llava")
    recorded = load_file(folder / "internlm2_io.safetensors")
    errors = dict(check(folder))
    for name in ("logits", "logits_with_lora", "logits_from_embeds"):
        assert errors[name] * recorded[name].abs().max() <= ABSOLUTE_LOGIT_TOLERANCE


@pytest.fixture
def damaged(tmp_path):
    """A copy of the golden folder to change something in."""
    folder = tmp_path / "golden"
    shutil.copytree(shared_path("golden", "omg_llava"), folder, copy_function=shutil.copyfile)
    return folder


def test_a_changed_weight_shows(damaged):
    weights = load_file(damaged / "vision_weights.safetensors")
    weights["visual_encoder.panoptic_head.pos_linear.bias"] += 0.01
    save_file(weights, damaged / "vision_weights.safetensors")
    errors = dict(check(damaged))
    assert errors["point.query_pos"] > RELATIVE_TOLERANCE
    assert errors["main.x9"] <= RELATIVE_TOLERANCE


def test_an_output_that_nothing_is_compared_with_counts_as_wrong(damaged):
    outputs = load_file(damaged / "vision_outputs.safetensors")
    save_file({**outputs, "new.tensor": torch.zeros(2)}, damaged / "vision_outputs.safetensors")
    assert dict(check(damaged))["new.tensor"] == float("inf")


def test_sizes_that_do_not_fit_the_weights_are_refused(damaged):
    spec = json.loads((damaged / "golden.json").read_text())
    spec["vision_config"]["decoder_ffn"] += 1
    (damaged / "golden.json").write_text(json.dumps(spec))
    with pytest.raises(ConversionError, match="of another shape"):
        check(damaged)


def test_comparison_of_shapes_floats_and_masks():
    comparison = Comparison({"float": torch.tensor([1.0, -4.0]), "mask": torch.tensor([1, 0]), "shape": torch.zeros(2)})
    comparison.add("float", torch.tensor([1.0, -4.4]))
    comparison.add("mask", torch.tensor([True, True]))
    comparison.add("shape", torch.zeros(3))
    errors = dict(comparison.finish())
    assert errors["float"] == pytest.approx(0.1)
    assert errors["mask"] == 0.5
    assert errors["shape"] == float("inf")
