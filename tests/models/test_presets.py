"""The shipped sizes and the small tokenizer."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from talking_points.models.configuration import TalkingPointsConfig
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.presets import medium_config, paper_config, special_token_ids, tiny_config, train_tokenizer

RECOMMENDED = {
    "gaussian_sigma": 32.0, "gaussian_threshold": 0.5, "mask_resize": "center", "gaussian_layers": None,
    "gaussian_frame": "padded", "keypoint_mask": "gaussian", "keypoint_tokens": 1, "keypoint_token": "<mark>",
    "coordinate_hidden_size": 128, "coordinate_activation": "relu", "coordinate_output": "sigmoid",
    "coordinate_frame": "image", "coordinate_loss": "mean", "localizer_lm_weight": 0.0, "max_new_tokens": 256,
    "train_vocabulary": False, "lora_on_head": False, "train_projector": True, "train_text_projector": True,
    "lora_rank": 512, "lora_alpha": 256.0, "lora_dropout": 0.05, "query_decoder_layers": 9, "num_queries": 300,
}  # fmt: skip


def test_the_paper_preset_makes_the_recommended_choices():
    config = paper_config()
    assert {name: getattr(config, name) for name in RECOMMENDED} == RECOMMENDED
    assert config.visual_token_size == 6144
    assert config.query_size == 512


def test_a_configuration_survives_a_file(tmp_path, tokenizer):
    for config in (paper_config(), medium_config(tokenizer), tiny_config(tokenizer)):
        config.save_pretrained(tmp_path)
        assert TalkingPointsConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_the_tiny_preset_is_small_and_sees_64_cells(tokenizer):
    config = tiny_config(tokenizer)
    assert (config.image_size // config.visual_token_stride) ** 2 == 64
    assert sum(p.numel() for p in PointDescriptor(config).parameters()) < 5_000_000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decoder_size": 100}, "multiple of group_norm_groups: got 100 and 32"),
        ({"decoder_size": 96, "decoder_heads": 5}, "multiple of decoder_heads"),
        ({"deformable_levels": 4}, "deformable_levels must leave"),
        ({"mask_resize": "bilinear"}, "mask_resize"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields, message):
    kind = TalkingPointsConfig if "mask_resize" in fields else OmgLlavaConfig
    with pytest.raises(Exception, match=message):
        kind(**fields)


@pytest.mark.parametrize("text", ["A dog.", "naïve café, 100 % – 犬", "", "  two  spaces\nline"])
def test_any_text_survives_the_small_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_small_tokenizer_learns_words():
    tokenizer = train_tokenizer(["see the leftmost dog, stand"] * 10, 400)
    assert tokenizer.tokenize("see the leftmost dog, stand") == ["seeĠtheĠleftmostĠdog,", "Ġstand"]


def test_a_tokenizer_without_the_special_tokens_is_refused():
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>")), unk_token="<unk>"
    )
    with pytest.raises(ValueError, match=r"lacks \['\[SEG\]', '<region>', '<mark>'\]"):
        special_token_ids(plain)


def test_the_medium_preset_is_between_and_trains_adapters(tokenizer):
    with torch.device("meta"):
        model = PointDescriptor(medium_config(tokenizer))
    assert 20_000_000 < sum(p.numel() for p in model.parameters()) < 100_000_000
    trained = model.prepare_training()
    assert any("lora" in name for name in trained)
    assert not any("embed_tokens" in name for name in trained)


def test_the_paper_preset_takes_another_tokenizers_ids(tokenizer):
    config = paper_config(tokenizer)
    assert config.mark_token_id == tokenizer.convert_tokens_to_ids("<mark>")
    assert config.text_config.pad_token_id == tokenizer.pad_token_id
    assert config.text_config.hidden_size == paper_config().text_config.hidden_size
