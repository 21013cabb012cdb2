"""A small stand-in of the OMG-LLaVA release, random weights under the official key names, for rehearsals and tests.

Written from the official modules' structure, without the conversion tables that the tests check.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class ReleaseSizes:
    """Sizes of the fake release; none equals another where a mix-up could hide."""

    widths: tuple[int, ...] = (8, 12, 20, 24)
    depths: tuple[int, ...] = (1, 2, 1, 1)
    size: int = 32
    heads: int = 4
    pixel_layers: int = 2
    pixel_ffn: int = 40
    layers: int = 9
    ffn: int = 56
    queries: int = 7
    classes: int = 5
    prototypes: int = 3
    prototype_size: int = 10
    space_to_depth: int = 2
    hidden: int = 48
    attention_heads: int = 4
    key_value_heads: int = 2
    intermediate: int = 72
    blocks: int = 2
    base_vocabulary: int = 300
    rank: int = 6

    @property
    def vocabulary(self) -> int:
        """Rows after [SEG], <p>, </p> and <region>; <mark> has none."""
        return self.base_vocabulary + 4


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape) * 0.1


def _affine(weights: Weights, name: str, outputs: int, *inputs: int, bias: bool = True) -> None:
    weights[f"{name}.weight"] = _random(outputs, *inputs)
    if bias:
        weights[f"{name}.bias"] = _random(outputs)


def backbone(sizes: ReleaseSizes) -> Weights:
    """OpenCLIP's file: trunk keys, with parts of CLIP that OMG-LLaVA has no use for."""
    weights: Weights = {"text.token_embedding.weight": _random(3, 4), "logit_scale": _random(1)[0]}
    trunk = "visual.trunk."
    _affine(weights, f"{trunk}stem.0", sizes.widths[0], 3, 4, 4)
    _affine(weights, f"{trunk}stem.1", sizes.widths[0])
    for stage, (width, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True)):
        if stage:
            _affine(weights, f"{trunk}stages.{stage}.downsample.0", sizes.widths[stage - 1])
            _affine(weights, f"{trunk}stages.{stage}.downsample.1", width, sizes.widths[stage - 1], 2, 2)
        for block in range(depth):
            name = f"{trunk}stages.{stage}.blocks.{block}"
            weights[f"{name}.gamma"] = _random(width)
            _affine(weights, f"{name}.conv_dw", width, 1, 7, 7)
            _affine(weights, f"{name}.norm", width)
            _affine(weights, f"{name}.mlp.fc1", 4 * width, width)
            _affine(weights, f"{name}.mlp.fc2", width, 4 * width)
    _affine(weights, "visual.head.mlp.fc1", 9, sizes.widths[-1])
    return weights


def decoder(sizes: ReleaseSizes, suffix: str = "") -> Weights:
    """The query decoder and its mask head; ``_llm`` is the copy of task-specific checkpoints."""
    weights: Weights = {}
    size, head = sizes.size, "panoptic_head."
    for layer in range(sizes.layers):
        name = f"{head}transformer_decoder{suffix}.layers.{layer}"
        for attention in ("cross_attn", "self_attn"):
            weights[f"{name}.{attention}.attn.in_proj_weight"] = _random(3 * size, size)
            weights[f"{name}.{attention}.attn.in_proj_bias"] = _random(3 * size)
            _affine(weights, f"{name}.{attention}.attn.out_proj", size, size)
        for norm in range(3):
            _affine(weights, f"{name}.norms.{norm}", size)
        _affine(weights, f"{name}.ffn.layers.0.0", sizes.ffn, size)
        _affine(weights, f"{name}.ffn.layers.1", size, sizes.ffn)
    _affine(weights, f"{head}transformer_decoder{suffix}.post_norm", size)
    for linear in (0, 2, 4):
        _affine(weights, f"{head}mask_embed{suffix}.{linear}", size, size)
    return weights


def segmentation_head(sizes: ReleaseSizes) -> Weights:
    """OMG-Seg's head."""
    weights = decoder(sizes)
    size, head = sizes.size, "panoptic_head."
    pixel = f"{head}pixel_decoder."
    for level, width in enumerate(reversed(sizes.widths[1:])):
        _affine(weights, f"{pixel}input_convs.{level}.conv", size, width, 1, 1)
        _affine(weights, f"{pixel}input_convs.{level}.gn", size)
    for layer in range(sizes.pixel_layers):
        name = f"{pixel}encoder.layers.{layer}"
        samples = sizes.heads * 3 * 4
        _affine(weights, f"{name}.self_attn.sampling_offsets", samples * 2, size)
        _affine(weights, f"{name}.self_attn.attention_weights", samples, size)
        _affine(weights, f"{name}.self_attn.value_proj", size, size)
        _affine(weights, f"{name}.self_attn.output_proj", size, size)
        _affine(weights, f"{name}.norms.0", size)
        _affine(weights, f"{name}.norms.1", size)
        _affine(weights, f"{name}.ffn.layers.0.0", sizes.pixel_ffn, size)
        _affine(weights, f"{name}.ffn.layers.1", size, sizes.pixel_ffn)
    weights[f"{pixel}level_encoding.weight"] = _random(3, size)
    _affine(weights, f"{pixel}lateral_convs.0.conv", size, sizes.widths[0], 1, 1, bias=False)
    _affine(weights, f"{pixel}lateral_convs.0.gn", size)
    _affine(weights, f"{pixel}output_convs.0.conv", size, size, 3, 3, bias=False)
    _affine(weights, f"{pixel}output_convs.0.gn", size)
    _affine(weights, f"{pixel}mask_feature", size, size, 1, 1)
    rows = {"query_feat": sizes.queries, "query_embed": sizes.queries, "level_embed": 3, "mask_tokens": 1}
    for name, count in {**rows, "pb_embedding": 2}.items():
        weights[f"{head}{name}.weight"] = _random(count, size)
    _affine(weights, f"{head}pos_linear", size, 2 * size)
    for mlp, outputs in (("cls_proj", sizes.prototype_size), ("iou_embed", 1)):
        _affine(weights, f"{head}{mlp}.0", size, size)
        _affine(weights, f"{head}{mlp}.2", size, size)
        _affine(weights, f"{head}{mlp}.4", outputs, size)
    _affine(weights, f"{head}mask_pooling_proj.0", size)
    _affine(weights, f"{head}mask_pooling_proj.1", size, size)
    return weights


def language_model(sizes: ReleaseSizes) -> Weights:
    """The InternLM2 base, before OMG-LLaVA added tokens."""
    hidden, head_size = sizes.hidden, sizes.hidden // sizes.attention_heads
    fused = (sizes.attention_heads + 2 * sizes.key_value_heads) * head_size
    weights: Weights = {
        "model.tok_embeddings.weight": _random(sizes.base_vocabulary, hidden),
        "output.weight": _random(sizes.base_vocabulary, hidden),
        "model.norm.weight": 1 + _random(hidden),
    }
    for block in range(sizes.blocks):
        name = f"model.layers.{block}"
        weights[f"{name}.attention_norm.weight"] = 1 + _random(hidden)
        weights[f"{name}.ffn_norm.weight"] = 1 + _random(hidden)
        weights[f"{name}.attention.wqkv.weight"] = _random(fused, hidden)
        weights[f"{name}.attention.wo.weight"] = _random(hidden, hidden)
        weights[f"{name}.feed_forward.w1.weight"] = _random(sizes.intermediate, hidden)
        weights[f"{name}.feed_forward.w3.weight"] = _random(sizes.intermediate, hidden)
        weights[f"{name}.feed_forward.w2.weight"] = _random(hidden, sizes.intermediate)
    return weights


def finetuned(sizes: ReleaseSizes) -> Weights:
    """The OMG-LLaVA checkpoint: resized embeddings, adapters on every linear layer and the head, projectors."""
    hidden, llm = sizes.hidden, "llm.base_model.model."
    visual, query = sizes.widths[-1] * sizes.space_to_depth**2, 2 * sizes.size
    weights: Weights = {
        f"{llm}model.tok_embeddings.weight": _random(sizes.vocabulary, hidden),
        f"{llm}output.base_layer.weight": _random(sizes.vocabulary, hidden),
    }
    bases = {f"{llm}{name}": w.shape for name, w in language_model(sizes).items() if "layers" in name and w.dim() == 2}
    bases[f"{llm}output.weight"] = torch.Size((sizes.vocabulary, hidden))
    for name, (outputs, inputs) in bases.items():
        module = name.removesuffix(".weight")
        weights[f"{module}.lora_A.default.weight"] = _random(sizes.rank, inputs)
        weights[f"{module}.lora_B.default.weight"] = _random(outputs, sizes.rank)
    _affine(weights, "projector.model.query_proj", visual, query)
    _affine(weights, "projector.model.model.0", hidden, visual)
    _affine(weights, "projector.model.model.2", hidden, hidden)
    _affine(weights, "projector.model.model_feat.0", hidden, visual + query)
    _affine(weights, "projector.model.model_feat.2", hidden, hidden)
    weights["projector.model.seperate_embed.weight"] = _random(1, hidden)
    _affine(weights, "projector_text2vision.model.0", query, hidden)
    _affine(weights, "projector_text2vision.model.2", query, query)
    return weights


def sentencepiece_model(vocabulary: int, dummy_prefix: bool = False) -> bytes:
    """A BPE model: control pieces, all bytes, a few letters and merges, and reserved pieces up to ``vocabulary``."""
    model = sentencepiece.ModelProto()
    piece_type = sentencepiece.ModelProto.SentencePiece
    model.trainer_spec.model_type = sentencepiece.TrainerSpec.BPE
    model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id = 0, 1, 2
    model.normalizer_spec.add_dummy_prefix = dummy_prefix
    for content, kind in (("<unk>", piece_type.UNKNOWN), ("<s>", piece_type.CONTROL), ("</s>", piece_type.CONTROL)):
        model.pieces.add(piece=content, score=0.0, type=kind)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=piece_type.BYTE)
    for rank, content in enumerate(("▁t", "▁th", "▁the", "▁d", "og", "▁dog")):
        model.pieces.add(piece=content, score=-float(rank), type=piece_type.NORMAL)
    for rank, letter in enumerate("▁athedog:"):
        model.pieces.add(piece=letter, score=-float(100 + rank), type=piece_type.NORMAL)
    for index in range(len(model.pieces), vocabulary):
        model.pieces.add(piece=f"[UNUSED_TOKEN_{index}]", score=0.0, type=piece_type.NORMAL)
    return model.SerializeToString()


def write_release(folder: Path, sizes: ReleaseSizes, *, seed: int = 0, task_decoder: bool = False) -> list[Path]:
    """Write all files and return them in the order in which they are given to the converter."""
    torch.manual_seed(seed)
    llm = folder / "internlm2-chat"
    llm.mkdir(parents=True)
    settings = {
        "model_type": "internlm2",
        "num_attention_heads": sizes.attention_heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000,
    }
    (llm / "config.json").write_text(json.dumps(settings))
    (llm / "tokenizer.model").write_bytes(sentencepiece_model(sizes.base_vocabulary))
    last = sizes.base_vocabulary - 1
    names = {str(last - 1): {"content": "<|im_end|>"}, str(last): {"content": "<|im_start|>"}}
    (llm / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": names}))
    base = language_model(sizes)
    half = len(base) // 2
    for number, keys in enumerate((list(base)[:half], list(base)[half:]), start=1):
        torch.save({key: base[key] for key in keys}, llm / f"pytorch_model-{number:05d}-of-00002.bin")
    files = {
        "open_clip_pytorch_model.bin": backbone(sizes),
        "omg_seg_convl.pth": {"state_dict": segmentation_head(sizes), "meta": {}},
        "CocoPanopticOVDataset.pth": _random(sizes.classes, sizes.prototypes, sizes.prototype_size),
        "omg_llava_finetune.pth": {
            "state_dict": finetuned(sizes)
            | (
                {f"visual_encoder.{key}": value for key, value in decoder(sizes, "_llm").items()}
                if task_decoder
                else {}
            )
        },
    }
    for name, content in files.items():
        torch.save(content, folder / name)
    return [llm, *(folder / name for name in files)]
