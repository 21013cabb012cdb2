"""Masked attention: who sees what, and equality with Mask2Former's layer."""

from __future__ import annotations

import pytest
import torch
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerMaskedAttentionDecoderLayer

from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.query_decoder import (
    ClassHead,
    DecoderTrace,
    QueryDecoder,
    QueryDecoderLayer,
    QueryMasks,
    decoder_context,
)

SIZE, HEADS = 32, 4
GRIDS = [(2, 3), (4, 6), (8, 12)]


@pytest.fixture
def config():
    return OmgLlavaConfig(
        vision_config={"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
        decoder_size=SIZE,
        decoder_heads=HEADS,
        query_decoder_layers=6,
        query_decoder_ffn_size=40,
        num_classes=3,
        num_prototypes=2,
        prototype_size=5,
    )


@pytest.fixture
def context():
    torch.manual_seed(3)
    memories = [torch.randn(2, SIZE, *grid) for grid in GRIDS]
    return decoder_context(memories, torch.randn(2, SIZE, 16, 24), torch.randn(3, SIZE))


def test_a_layer_equals_mask2formers(config):
    torch.manual_seed(0)
    layer = QueryDecoderLayer(config)
    reference = Mask2FormerMaskedAttentionDecoderLayer(
        Mask2FormerConfig(hidden_dim=SIZE, num_attention_heads=HEADS, dim_feedforward=40, dropout=0.0, pre_norm=False)
    )
    state = {}
    for name, tensor in layer.state_dict().items():
        if name.startswith("cross_attn.") and "out_proj" not in name:
            continue
        state[name.replace("attn_norm", "attn_layer_norm").replace("ffn_norm", "final_layer_norm")] = tensor
    for kind in ("weight", "bias"):
        parts = [getattr(getattr(layer.cross_attn, f"{part}_proj"), kind) for part in "qkv"]
        state[f"cross_attn.in_proj_{kind}"] = torch.cat(parts)
    reference.load_state_dict(state)

    queries, positions, values, keys = (torch.randn(2, count, SIZE) for count in (5, 5, 12, 12))
    allowed = torch.rand(2, 5, 12) > 0.5
    allowed[..., 0] = True
    with torch.no_grad():
        ours = layer(queries, positions, keys + values, values, allowed, isolated=False)
        theirs = reference(
            queries.transpose(0, 1), 0, None, [keys.transpose(0, 1)], positions.transpose(0, 1),
            [values.transpose(0, 1)], ~allowed.repeat_interleave(HEADS, dim=0),
        )[0]  # fmt: skip
    torch.testing.assert_close(ours, theirs.transpose(0, 1), rtol=1e-5, atol=1e-5)


def test_isolated_queries_never_see_one_another(config, context):
    torch.manual_seed(0)
    decoder = QueryDecoder(config)
    queries, positions = torch.randn(2, 4, SIZE), torch.randn(2, 4, SIZE)
    changed = queries.clone()
    changed[:, 1:] = torch.randn(2, 3, SIZE)
    with torch.no_grad():
        alone = decoder(queries[:, :1], positions[:, :1], context, isolated=True)
        together, other = (decoder(q, positions, context, isolated=True) for q in (queries, changed))
        mixed = decoder(changed, positions, context)
    torch.testing.assert_close(together[:, :1], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together[:, 0], other[:, 0], rtol=1e-5, atol=1e-5)
    assert (mixed[:, 0] - other[:, 0]).abs().max() > 1e-3


def test_an_isolated_query_equals_full_attention_over_itself(config, context):
    torch.manual_seed(0)
    decoder = QueryDecoder(config)
    queries, positions = torch.randn(2, 1, SIZE), torch.randn(2, 1, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(
            decoder(queries, positions, context, isolated=True),
            decoder(queries, positions, context),
            rtol=1e-5,
            atol=1e-5,
        )


def test_fixed_masks_are_used_in_every_layer_and_only_allowed_cells_matter(config, context):
    torch.manual_seed(0)
    decoder = QueryDecoder(config)
    queries, positions = torch.randn(2, 1, SIZE), torch.randn(2, 1, SIZE)
    masks = [torch.zeros(2, 1, h * w, dtype=torch.bool) for h, w in GRIDS]
    for mask in masks:
        mask[..., 1] = True
    trace = DecoderTrace()
    with torch.no_grad():
        before = decoder(queries, positions, context, QueryMasks(fixed=masks), trace=trace)
        for level in range(3):
            context.values[level][:, 2:] += 5
            context.keys[level][:, 0] -= 5
        after = decoder(queries, positions, context, QueryMasks(fixed=masks))
    assert [torch.equal(given, masks[layer % 3]) for layer, given in enumerate(trace.allowed)] == [True] * 6
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("fixed_layers", [0, 2, 6])
def test_only_the_first_layers_may_be_fixed(config, context, fixed_layers):
    decoder = QueryDecoder(config)
    masks = [torch.zeros(2, 1, h * w, dtype=torch.bool) for h, w in GRIDS]
    for mask in masks:
        mask[..., 0] = True
    trace = DecoderTrace()
    queries = torch.randn(2, 1, SIZE)
    decoder(queries, queries, context, QueryMasks(fixed=masks, fixed_layers=fixed_layers), trace=trace)
    used = [torch.equal(given, masks[layer % 3]) for layer, given in enumerate(trace.allowed)]
    assert used == [layer < fixed_layers for layer in range(6)]


def test_an_empty_mask_opens_the_whole_level(config, context):
    decoder = QueryDecoder(config)
    masks = [torch.zeros(2, 1, h * w, dtype=torch.bool) for h, w in GRIDS]
    trace = DecoderTrace()
    decoder(torch.randn(2, 1, SIZE), torch.randn(2, 1, SIZE), context, QueryMasks(fixed=masks), trace=trace)
    assert all(bool(given.all()) for given in trace.allowed)


def test_predicted_masks_equal_those_of_resized_full_logits(config, context):
    """The decoder resizes features, the definition resizes logits: the same, since both steps are linear."""
    torch.manual_seed(0)
    decoder = QueryDecoder(config)
    queries, positions = torch.randn(2, 4, SIZE), torch.randn(2, 4, SIZE)
    trace = DecoderTrace()
    with torch.no_grad():
        decoder(queries, positions, context, trace=trace)
        for layer, allowed in enumerate(trace.allowed):
            logits = decoder.mask_logits(trace.states[layer], context.mask_features)
            resized = torch.nn.functional.interpolate(logits, GRIDS[layer % 3], mode="bilinear").flatten(2)
            expected = (resized.sigmoid() >= 0.5) | (resized.sigmoid() < 0.5).all(-1, keepdim=True)
            clear = resized.abs() > 1e-4
            assert torch.equal(allowed[clear], expected[clear])


def test_class_logits_take_the_best_prototype_and_leave_void_at_zero(config):
    torch.manual_seed(0)
    head = ClassHead(config)
    head.prototypes.copy_(torch.nn.functional.normalize(torch.randn(3, 2, 5), dim=-1))
    queries, masks, features = torch.randn(1, 2, SIZE), torch.randn(1, 2, 4, 4), torch.randn(1, SIZE, 4, 4)
    with torch.no_grad():
        logits = head(queries, masks, features)
    assert logits.shape == (1, 2, 4)
    assert torch.equal(logits[..., 3], torch.zeros(1, 2))
    assert logits.abs().max() <= 100.1
    # An empty mask pools to zero instead of dividing by it.
    assert torch.isfinite(head(queries, -masks.abs(), features)).all()
