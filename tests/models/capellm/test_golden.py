"""Parity with recorded outputs of the official code, and that differences would show."""

from __future__ import annotations

import functools
import json
import operator
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from talking_points.models.capellm.golden import Results, check, official_answer
from talking_points.models.capellm.golden_pck import check_pck
from talking_points.models.capellm.vision import bake_positions
from tests.shared_data import shared_path

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden() -> Path:
    return shared_path("golden", "capellm")


def wrong(folder: Path) -> set[str]:
    return {name for name, error in check(folder) if error > TOLERANCE}


def test_every_recorded_output_agrees(golden: Path) -> None:
    results = check(golden, shared_path("samples", "mp100", "mp100", "images"))
    names = [name for name, _ in results]
    assert [pair for pair in results if pair[1] > TOLERANCE] == []
    assert len(names) == len(set(names))
    assert set(load_file(golden / "capellm_io.safetensors")) - set(names) == {"batch.images", "generate.images"}


def changed(golden: Path, folder: Path, weights: str = "", **sizes: object) -> Path:
    shutil.copytree(golden, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    if weights:
        file, _, key = weights.partition(":")
        tensors = load_file(folder / f"capellm_{file}.safetensors")
        tensors[key] = tensors[key] * 1.01
        save_file(tensors, folder / f"capellm_{file}.safetensors")
    spec = json.loads((folder / "golden.json").read_text())
    for path, value in sizes.items():
        part, key = path.split("__")
        spec["sizes"][part][key] = value
    (folder / "golden.json").write_text(json.dumps(spec))
    return folder


@pytest.mark.parametrize(
    ("change", "shows"),
    [
        ({"weights": "weights:vision_model.blocks.1.attn.lora_B_q"}, "vision.block1"),
        ({"weights": "weights:mm_projector.weight"}, "projected"),
        (
            {"weights": "llm_adapter:base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"},
            "forward.hidden_last",
        ),
        ({"vision__interpolate_offset": 0.0}, "vision.positions"),
        ({"vision__lora_alpha": 15}, "vision.block0"),
        ({"llm__lora_alpha": 15}, "forward.loss"),
        ({"vision__layer_norm_eps": 1e-3}, "vision.patch_tokens"),
    ],
    ids=str,
)
def test_a_change_of_a_weight_a_scale_or_the_positions_shows(
    golden: Path, tmp_path: Path, change: dict[str, object], shows: str
) -> None:
    found = wrong(changed(golden, tmp_path / "changed", **change))  # type: ignore[arg-type]
    assert shows in found
    assert not {name for name in found if name.startswith(("crop", "pck", "grouping", "coordinates"))}


@pytest.mark.parametrize(
    ("place", "value", "shows"),
    [
        ("sizes patches", 17, "sizes.patches"),
        ("separators 1", "; ", "separators"),
        ("tokens end_marker_text", "<end>", "separators"),
        ("training_conversations 0 category_id", 999, "conversation0.names"),
        ("training_conversations 0 rounds 0 keypoint_id", 99, "conversation0.names"),
        ("training_conversations 0 rounds 0 visible", False, "conversation0.asked"),
        ("training_conversations 0 rounds 0 x", -0.5, "conversation0.asked"),
        ("inference 0 category_id", 999, "inference0.keypoint"),
        ("groups_of_dataset 0 keypoint_ids 0", 99, "dataset_groups0"),
        ("groups_of_dataset 0 num_joints", 99, "dataset_groups0"),
    ],
)
def test_a_damaged_decision_shows(golden: Path, tmp_path: Path, place: str, value: object, shows: str) -> None:
    folder = changed(golden, tmp_path / "damaged")
    spec = json.loads((folder / "golden.json").read_text())
    *way, last = (int(step) if step.isdigit() else step for step in place.split())
    functools.reduce(operator.getitem, way, spec)[last] = value
    (folder / "golden.json").write_text(json.dumps(spec))
    assert shows in wrong(folder)


def test_a_recorded_tensor_that_nothing_is_compared_with_is_wrong(golden: Path, tmp_path: Path) -> None:
    folder = changed(golden, tmp_path / "more")
    tensors = load_file(folder / "capellm_io.safetensors")
    save_file(tensors | {"vision.block9": torch.zeros(2)}, folder / "capellm_io.safetensors")
    assert wrong(folder) == {"vision.block9"}


@pytest.mark.parametrize(("ours", "theirs"), [([float("nan")], [1.0]), ([1.0], [float("nan")])])
def test_what_is_no_number_never_agrees(ours: list[float], theirs: list[float]) -> None:
    results = Results({})
    results.values("x", ours, theirs)
    assert results.found == [("x", float("inf"))]


def test_a_forbidden_token_hides_no_other_score() -> None:
    results = Results({})
    results.values("x", [2.0, -torch.inf], [1.0, -torch.inf])
    assert results.found == [("x", 1.0)]


def test_another_order_of_conversations_and_another_placeholder_agree_too(golden: Path, tmp_path: Path) -> None:
    folder, order = changed(golden, tmp_path / "other"), [1, 0, 2]
    spec = json.loads((folder / "golden.json").read_text())
    io, head = load_file(folder / "capellm_io.safetensors"), load_file(golden / "capellm_weights.safetensors")
    counts = [len(one["learnt_tokens"]) for one in spec["training_conversations"]]
    for name in ("forward.answer_logits", "forward.answer_targets"):
        parts = io[name].split(counts)
        io[name] = torch.cat([parts[row] for row in order])
    for name, tensor in io.items():
        if len(tensor) == len(order) and not name.endswith("positions"):
            io[name] = tensor[order].contiguous()
    spec["training_conversations"] = [spec["training_conversations"][row] for row in order]
    length, last = spec["training_conversations"][0]["num_tokens"], len(io["forward.logits_first"])
    assert length < io["batch.input_ids"].shape[1], "the first conversation must not be the longest"
    io["forward.logits_first"] = io["forward.hidden_last"][0, length - last : length] @ head["lm_head.weight"].T
    placeholder = spec["tokens"]["im_patch"]
    spec["tokens"]["im_patch"] = placeholder + 55
    io["batch.input_ids"] = io["batch.input_ids"].where(io["batch.input_ids"] != placeholder, placeholder + 55)
    save_file(io, folder / "capellm_io.safetensors")
    (folder / "golden.json").write_text(json.dumps(spec))
    assert wrong(folder) == set()


def test_positions_of_the_same_grid_are_left_alone() -> None:
    positions = torch.randn(1, 17, 8)
    assert bake_positions(positions, 4) is positions
    baked = bake_positions(positions, 8)
    assert baked.shape == (1, 65, 8)
    torch.testing.assert_close(baked[:, 0], positions[:, 0])
    assert (baked - bake_positions(positions, 8, offset=0.0)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="square grid"):
        bake_positions(torch.zeros(1, 12, 4), 2)


def test_the_official_reading_gives_corners_where_ours_gives_none() -> None:
    assert official_answer("[]", 56) == ([], [0.0, 0.0])
    assert official_answer("[10.5,20.5]", 56)[1] == [28.0, 28.0]


@pytest.mark.parametrize(("recorded", "worst"), [(None, 0.0), (float("nan"), 0.0), (0.5, float("inf"))])
def test_a_mean_over_nothing_is_no_number(recorded: float | None, worst: float) -> None:
    """NaN is smaller than no tolerance: it must not pass for agreement."""
    zero = {"0.1": 0.0}
    image = {"visible": [0], "predicted": [[1, 1]], "truth": [[1, 1]], "longer_side": 10.0, "pck": zero}
    means = {"official_mean_of_images": zero, "mean_of_images_with_visible": {"0.1": recorded}, "pooled_points": zero}
    case = {"images": [image], **means, "official_mpck": 0.0, "pooled_mpck": 0.0, "pooled_auc_20": 0.0}
    assert max(error for _, error in check_pck([case])) == worst
