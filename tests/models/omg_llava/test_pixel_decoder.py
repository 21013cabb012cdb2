"""The pixel decoder against transformers' Mask2Former, whose structure it shares."""

from __future__ import annotations

import torch
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder

from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.pixel_decoder import PixelDecoder, SamplingOffsets, cell_centres

CHANNELS = [8, 12, 20, 24]


def _config() -> OmgLlavaConfig:
    return OmgLlavaConfig(
        vision_config={"hidden_sizes": CHANNELS, "depths": [1, 1, 1, 1]},
        decoder_size=64,
        decoder_heads=4,
        pixel_decoder_layers=2,
        pixel_decoder_ffn_size=48,
    )


def _reference(decoder: PixelDecoder) -> Mask2FormerPixelDecoder:
    """transformers' module with the same weights."""
    config = Mask2FormerConfig(
        feature_size=64, mask_feature_size=64, hidden_dim=64, encoder_layers=2, encoder_feedforward_dim=48,
        num_attention_heads=4, dropout=0.0, feature_strides=[4, 8, 16, 32], common_stride=4,
    )  # fmt: skip
    reference = Mask2FormerPixelDecoder(config, CHANNELS)
    names = {
        "layers.": "encoder.layers.",
        "self_attn_norm": "self_attn_layer_norm",
        "ffn_norm": "final_layer_norm",
        "lateral_projections.0": "adapter_1",
        "output_projections.0": "layer_1",
    }
    state = {}
    for name, tensor in decoder.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    reference.load_state_dict(state)
    return reference


def test_equals_the_mask2former_pixel_decoder_on_an_oblong_image():
    torch.manual_seed(0)
    decoder = PixelDecoder(_config())
    torch.nn.init.normal_(decoder.level_embed)
    features = [torch.randn(2, width, 32 >> level, 48 >> level) for level, width in enumerate(CHANNELS)]
    with torch.no_grad():
        memories, mask_features = decoder(features)
        expected = _reference(decoder)(features)
    torch.testing.assert_close(mask_features, expected.mask_features, rtol=1e-5, atol=1e-5)
    for memory, other in zip(memories, expected.multi_scale_features, strict=True):
        torch.testing.assert_close(memory, other, rtol=1e-5, atol=1e-5)


def test_fresh_sampling_offsets_look_in_every_direction():
    bias = SamplingOffsets(8, heads=4, levels=3, points=2).initial_bias().view(4, 3, 2, 2)
    assert bias[:, 0, 0].round().tolist() == [[1, 0], [0, 1], [-1, 0], [0, -1]]
    assert torch.equal(bias[:, :, 1], 2 * bias[:, :, 0])


def test_cell_centres_run_row_by_row():
    assert cell_centres(2, 4, torch.device("cpu"))[:5].tolist() == [
        [0.125, 0.25], [0.375, 0.25], [0.625, 0.25], [0.875, 0.25], [0.125, 0.75],
    ]  # fmt: skip
