"""From the official files to one folder: every key accounted for, every value in its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.conversion import convert_release, plan_release, verify
from talking_points.models.omg_llava.golden import config_from_golden
from talking_points.models.omg_llava.modeling import OmgLlavaModel
from talking_points.models.omg_llava.release import ConversionError
from tests.models.official_release import ReleaseSizes, sentencepiece_model, write_release
from tests.shared_data import shared_path

SIZES = ReleaseSizes()
OTHER_SIZES = ReleaseSizes(
    widths=(4, 8, 12, 16), depths=(2, 1, 3, 1), size=64, layers=6, pixel_layers=1, queries=5, hidden=40,
    attention_heads=4, key_value_heads=4, blocks=3, rank=2, prototypes=1, space_to_depth=1,
)  # fmt: skip


def _base(sizes: ReleaseSizes) -> OmgLlavaConfig:
    return OmgLlavaConfig(
        image_size=64,
        decoder_size=sizes.size,
        decoder_heads=sizes.heads,
        text_config={"hidden_size": sizes.hidden, "num_attention_heads": sizes.attention_heads},
    )


@pytest.fixture
def release(tmp_path):
    return write_release(tmp_path / "release", SIZES)


def _official(files) -> dict[str, torch.Tensor]:
    merged: dict[str, torch.Tensor] = {}
    for path in [*sorted(files[0].glob("*.bin")), *files[1:]]:
        content = torch.load(path, weights_only=True)
        merged.update(
            {"prototypes": content} if isinstance(content, torch.Tensor) else content.get("state_dict", content)
        )
    return merged


@pytest.mark.parametrize("sizes", [SIZES, OTHER_SIZES], ids=["sizes", "other_sizes"])
def test_a_release_of_any_size_loads_and_describes(tmp_path, sizes, images):
    files = write_release(tmp_path / "release", sizes)
    report = convert_release(files, tmp_path / "model", base=_base(sizes), dtype=torch.float32, max_shard_bytes=100_000)
    assert len(report.files) > 3
    assert report.verified
    assert report.tokenizer
    assert report.merged_adapters == 7 * sizes.blocks + 1
    model = PointDescriptor.from_pretrained(tmp_path / "model")
    assert model.config.vision_config.depths == list(sizes.depths)
    assert model.config.text_config.num_key_value_heads == sizes.key_value_heads
    assert (model.config.seg_token_id, model.config.mark_token_id) == (sizes.base_vocabulary, sizes.base_vocabulary + 4)
    assert len(model.describe(images[:2], [[3, 4], [5, 6]], max_new_tokens=3)) == 2


def test_values_arrive_where_they_belong(release, tmp_path):
    convert_release(release, tmp_path / "model", base=_base(SIZES), dtype=torch.float32)
    model: Any = OmgLlavaModel.from_pretrained(tmp_path / "model")
    official = _official(release)
    vision, llama = model.vision, model.language_model
    llm, head = "llm.base_model.model.", "panoptic_head."

    stage = vision.backbone.encoder.stages[1]
    trunk = "visual.trunk.stages.1."
    assert torch.equal(stage.downsampling_layer[1].weight, official[f"{trunk}downsample.1.weight"])
    assert torch.equal(stage.layers[1].layer_scale_parameter, official[f"{trunk}blocks.1.gamma"])
    assert torch.equal(vision.class_head.prototypes, official["prototypes"])
    attention = vision.query_decoder.layers[3].cross_attn
    joint = official[f"{head}transformer_decoder.layers.3.cross_attn.attn.in_proj_weight"]
    assert torch.equal(torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]), joint)
    assert torch.equal(model.projector.separator.weight, official["projector.model.seperate_embed.weight"])
    assert torch.equal(llama.model.embed_tokens.weight, official[f"{llm}model.tok_embeddings.weight"])

    def merged(base: str, adapter: str) -> torch.Tensor:
        low, high = (official[f"{llm}{adapter}.lora_{part}.default.weight"] for part in "AB")
        return official[base] + 0.5 * high @ low

    torch.testing.assert_close(llama.lm_head.weight, merged(f"{llm}output.base_layer.weight", "output"))
    w2 = "model.layers.1.feed_forward.w2"
    torch.testing.assert_close(llama.model.layers[1].mlp.down_proj.weight, merged(f"{w2}.weight", w2))
    # Rows of the fused projection: per key-value head two query heads of 12 rows, one key, one value.
    wqkv = merged("model.layers.0.attention.wqkv.weight", "model.layers.0.attention.wqkv")
    attention = llama.model.layers[0].self_attn
    first, second = wqkv[:48], wqkv[48:]
    torch.testing.assert_close(attention.q_proj.weight, torch.cat((first[:24], second[:24])))
    torch.testing.assert_close(attention.k_proj.weight, torch.cat((first[24:36], second[24:36])))
    torch.testing.assert_close(attention.v_proj.weight, torch.cat((first[36:], second[36:])))


def test_adapters_can_be_kept(release, tmp_path):
    convert_release(release, tmp_path / "merged", base=_base(SIZES), dtype=torch.float32)
    report = convert_release(release, tmp_path / "kept", base=_base(SIZES), dtype=torch.float32, lora="continue")
    assert (report.merged_adapters, report.kept_adapters) == (1, 7 * SIZES.blocks)  # the head's is merged
    merged, kept = (OmgLlavaModel.from_pretrained(tmp_path / name).eval() for name in ("merged", "kept"))
    ids = torch.arange(20)[None]
    with torch.no_grad():
        expected = merged.language_model(ids).logits
        torch.testing.assert_close(kept.language_model(ids).logits, expected, rtol=1e-4, atol=1e-4)
        kept.merge_lora()
        torch.testing.assert_close(kept.language_model(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_the_vision_path_stays_in_float32(release, tmp_path):
    convert_release(release, tmp_path / "model", base=_base(SIZES))
    stored = load_file(tmp_path / "model" / "model.safetensors")
    dtypes: dict[str, set[torch.dtype]] = {name.split(".")[0]: set() for name in stored}
    for name, tensor in stored.items():
        dtypes[name.split(".")[0]].add(tensor.dtype)
    assert dtypes.pop("vision") == {torch.float32}
    assert set.union(*dtypes.values()) == {torch.bfloat16}
    model = OmgLlavaModel.from_pretrained(tmp_path / "model")
    assert model.vision.level_embed.weight.dtype == torch.float32
    assert model.language_model.lm_head.weight.dtype == torch.bfloat16


def test_a_task_checkpoint_brings_its_own_decoder(tmp_path):
    files = write_release(tmp_path / "release", SIZES, task_decoder=True)
    convert_release(files, tmp_path / "model", base=_base(SIZES), dtype=torch.float32)
    model: Any = OmgLlavaModel.from_pretrained(tmp_path / "model")
    official = _official(files)
    key = "visual_encoder.panoptic_head.mask_embed_llm.2.weight"
    assert torch.equal(model.vision.task_decoder.mask_embed[2].weight, official[key])
    assert not torch.equal(model.vision.query_decoder.mask_embed[2].weight, official[key])


def _edit(path, change) -> None:
    content = torch.load(path, weights_only=True)
    change(content["state_dict"])
    torch.save(content, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.update({"panoptic_head.novel.weight": torch.zeros(2)}),
            r"1 unknown:\n  panoptic_head.novel.weight",
        ),
        (lambda w: w.pop("panoptic_head.pos_linear.bias"), r"1 missing:\n  vision.pos_linear.bias"),
        (
            lambda w: w.update({"panoptic_head.pos_linear.bias": torch.zeros(9)}),
            r"of another shape:\n  panoptic_head.pos_linear.bias gives \(9,\), expected \(32,\)",
        ),
        (
            lambda w: w.update({"panoptic_head.mask_embed_llm.0.weight": torch.zeros(32, 32)}),
            "which the configuration lacks",
        ),
    ],
    ids=["unknown", "missing", "mis-shaped", "belongs-elsewhere"],
)
def test_keys_that_do_not_fit_are_listed_and_nothing_is_written(release, tmp_path, change, message):
    _edit(release[2], change)
    with pytest.raises(ConversionError, match=message):
        convert_release(release, tmp_path / "model", base=_base(SIZES))
    assert not (tmp_path / "model").exists()


def test_all_problems_are_reported_at_once(release, tmp_path):
    def change(weights):
        weights["panoptic_head.novel.weight"] = torch.zeros(2)
        del weights["panoptic_head.pos_linear.bias"]

    _edit(release[2], change)
    with pytest.raises(ConversionError, match=r"(?s)1 unknown.*1 missing"):
        convert_release(release, tmp_path / "model", base=_base(SIZES))


def test_a_forgotten_file_is_named_by_its_keys(release, tmp_path):
    with pytest.raises(ConversionError, match=r"backbone\.stem"):
        convert_release([release[0], *release[2:]], tmp_path / "model", base=_base(SIZES))


def test_files_with_code_in_them_are_not_run(release, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"state_dict": {}, "meta": Payload()}, release[2])
    with pytest.raises(ConversionError, match="holds more than tensors"):
        convert_release(release, tmp_path / "model", base=_base(SIZES))
    assert not (tmp_path / "owned").exists()


def test_a_tokenizer_of_another_vocabulary_is_refused(release, tmp_path):
    (release[0] / "tokenizer.model").write_bytes(sentencepiece_model(310))
    with pytest.raises(ConversionError, match="tokenizer has 315 tokens, the embedding 304 rows"):
        convert_release(release, tmp_path / "model", base=_base(SIZES))


def test_an_occupied_folder_is_left_alone(release, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ConversionError, match="holds a model already"):
        convert_release(release, tmp_path / "model", base=_base(SIZES))


def test_damage_after_writing_is_found(release, tmp_path):
    convert_release(release, tmp_path / "model", base=_base(SIZES))
    path = tmp_path / "model" / "model.safetensors"
    checksums = json.loads((tmp_path / "model" / "conversion.json").read_text())["sha256"]
    tensors = load_file(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    verify(tmp_path / "model", shapes, checksums)
    tensors["vision.pos_linear.bias"][0] += 1e-6
    save_file(tensors, path)
    with pytest.raises(ConversionError, match=r"vision\.pos_linear\.bias .* is not what was written"):
        verify(tmp_path / "model", shapes, checksums)
    del tensors["vision.pos_linear.bias"]
    save_file(tensors, path)
    with pytest.raises(ConversionError, match=r"lacks \['vision\.pos_linear\.bias'\]"):
        verify(tmp_path / "model", shapes, checksums)


def test_a_folder_with_missing_weights_does_not_load(release, tmp_path):
    convert_release(release, tmp_path / "model", base=_base(SIZES))
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["vision.pos_linear.bias"]
    tensors["vision.level_embed.weight"] = torch.zeros(2, 2)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing: \['vision\.pos_linear\.bias'\].*of another shape"):
        OmgLlavaModel.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("lora", ["merge", "continue"])
def test_recorded_outputs_come_through_the_conversion_and_the_public_classes(tmp_path, lora):
    """The golden weights as a release: its two halves differ in width, so projectors are made to fit."""
    folder = shared_path("golden", "omg_llava")
    spec = json.loads((folder / "golden.json").read_text())
    weights = load_file(folder / "vision_weights.safetensors")
    hidden = spec["internlm2_config"]["hidden_size"]
    for name in list(weights):
        if name.startswith("projector"):
            shape = [hidden if side == spec["vision_config"]["llm_hidden"] else side for side in weights[name].shape]
            weights[name] = torch.randn(shape) * 0.02
    save_file(weights, tmp_path / "vision.safetensors")
    sources = [folder / "internlm2_weights.safetensors", tmp_path / "vision.safetensors"]
    sources.append(folder / "internlm2_lora_weights.safetensors")
    convert_release(sources, tmp_path / "model", base=config_from_golden(spec), dtype=torch.float32, lora=lora)
    model = OmgLlavaModel.from_pretrained(tmp_path / "model").eval()
    vision = load_file(folder / "vision_outputs.safetensors")
    images = load_file(folder / "vision_inputs.safetensors")["images"]
    language = load_file(folder / "internlm2_io.safetensors")
    with torch.no_grad():
        features = model.encode_pixels(images)
        logits = model.language_model(language["input_ids"], language["attention_mask"]).logits
    for actual, name in ((features.visual_tokens, "visual_tokens"), (features.object_queries, "query_feat_pos")):
        expected = vision[f"encoder.{name}"]
        assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()
    kept = language["attention_mask"].bool()
    torch.testing.assert_close(logits[kept], language["logits_with_lora"][kept], rtol=0, atol=1e-5)


def test_a_plan_writes_nothing_and_knows_the_model(release):
    planned = plan_release(release, base=_base(SIZES))
    assert planned.config.num_queries == SIZES.queries
    assert planned.expected.keys() == planned.plan.sources.keys()
