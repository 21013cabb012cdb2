"""Compare this implementation with recorded outputs of the official one, tensor by tensor.

A golden folder holds ``golden.json`` (sizes) and safetensors files with random weights under the official key
names, inputs, and every intermediate output. Nothing here depends on its sizes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from talking_points.models.omg_llava.checkpoint_keys import Heads
from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.features import VisionFeatures
from talking_points.models.omg_llava.image_processing import OmgLlavaImageProcessor
from talking_points.models.omg_llava.perception_prior import (
    perception_prior,
    query_scores,
    valid_queries,
    weigh_masks,
)
from talking_points.models.omg_llava.positions import key_positions
from talking_points.models.omg_llava.projector import TextToVision, VisionToText
from talking_points.models.omg_llava.prompt_masks import box_cells, region_cells
from talking_points.models.omg_llava.query_decoder import DecoderTrace, QueryMasks, decoder_context
from talking_points.models.omg_llava.release import Catalogue, plan_conversion, read_catalogue
from talking_points.models.omg_llava.splicing import splice_inputs
from talking_points.models.omg_llava.vision import OmgVision
from talking_points.regular_files import read_text
from talking_points.tensor_files import load_tensors


class Comparison:
    """Collects (name, error) pairs and knows which recorded outputs were never compared."""

    def __init__(self, expected: Mapping[str, Tensor]) -> None:
        self.expected = dict(expected)
        self.results: list[tuple[str, float]] = []
        self.compared: set[str] = set()

    def add(self, name: str, actual: Tensor, where: Tensor | None = None) -> None:
        """Largest absolute error relative to the largest absolute expected value; 0 for equal, inf for other shapes.

        Integers, booleans and masks must be equal: any difference counts as the share of differing values.
        """
        expected = self.expected[name]
        self.compared.add(name)
        if actual.shape != expected.shape:
            self.results.append((name, float("inf")))
            return
        if where is not None:
            actual, expected = actual[where], expected[where]
        actual, expected = actual.cpu(), expected.cpu()
        if expected.is_floating_point():
            error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-12)
        else:
            error = (actual.long() != expected.long()).double().mean()
        self.results.append((name, float(error)))

    def finish(self) -> list[tuple[str, float]]:
        """All results; a recorded output that nothing was compared with counts as infinitely wrong."""
        return self.results + [(name, float("inf")) for name in self.expected if name not in self.compared]


@dataclass(frozen=True)
class Recorded:
    """A golden folder, and the device that its tensors are read to."""

    folder: Path
    device: str = "cpu"

    @property
    def spec(self) -> Mapping[str, Any]:
        """The sizes."""
        found: Mapping[str, Any] = json.loads(read_text(self.folder / "golden.json"))
        return found

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What ``name.safetensors`` holds."""
        return load_tensors(self.folder / f"{name}.safetensors", device=self.device)


@torch.no_grad()
def check(folder: str | Path, device: str = "cpu", bfloat16: bool = False) -> list[tuple[str, float]]:
    """Run the whole comparison on a golden folder, on a device, with ``bfloat16`` under autocast.

    Returns (name of the recorded output, maximum relative error) for every recorded output: errors of floats are
    relative to the largest absolute value of the tensor, errors of masks, labels and choices are the share that
    differs. The weights go through the same key conversion and accounting as the official release.
    """
    recorded = Recorded(Path(folder), device)
    vision = Comparison(recorded.tensors("vision_outputs"))
    language = Comparison(_language_outputs(recorded))
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
        _check_vision(recorded, vision)
        _check_language(recorded, language)
    return vision.finish() + language.finish()


def config_from_golden(spec: Mapping[str, Any]) -> OmgLlavaConfig:
    """The configuration that a ``golden.json`` describes: the base for converting its weights."""
    sizes = spec["vision_config"]
    return OmgLlavaConfig(
        vision_config={"hidden_sizes": sizes["backbone_dims"], "depths": sizes["backbone_depths"]},
        text_config=_text_config(spec),
        decoder_size=sizes["hidden"],
        decoder_heads=sizes["num_heads"],
        pixel_decoder_layers=sizes["pixel_decoder_layers"],
        pixel_decoder_ffn_size=sizes["pixel_decoder_ffn"],
        deformable_levels=sizes["deform_levels"],
        deformable_points=sizes["deform_points"],
        group_norm_groups=sizes["groupnorm_groups"],
        query_decoder_layers=sizes["decoder_layers"],
        query_decoder_ffn_size=sizes["decoder_ffn"],
        num_queries=sizes["num_queries"],
        num_classes=sizes["num_classes"],
        num_prototypes=sizes["num_prototypes"],
        prototype_size=sizes["prototype_dim"],
        logit_scale=sizes["logit_scale"],
        space_to_depth=sizes["space_to_depth"],
    )


def _text_config(spec: Mapping[str, Any]) -> dict[str, Any]:
    sizes = spec["internlm2_config"]
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = {name: sizes[name] for name in (*names, "num_key_value_heads", "rms_norm_eps", "max_position_embeddings")}
    config |= {"head_dim": sizes["head_dim"], "tie_word_embeddings": sizes["tie_word_embeddings"]}
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": sizes["rope_theta"]}
    return config


def _load(module: nn.Module, catalogue: Catalogue, heads: Heads, device: str, lora_scale: float = 1.0) -> nn.Module:
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    plan = plan_conversion(catalogue, expected, heads, lora_scale)
    module.load_state_dict({name: plan.tensor(name) for name in expected})
    return module.to(device).eval()


def _check_vision(recorded: Recorded, result: Comparison) -> None:
    spec = recorded.spec
    config = config_from_golden(spec)
    # The recorded projectors need not have the width of the recorded language model.
    config.text_config.hidden_size = spec["vision_config"]["llm_hidden"]
    inputs = recorded.tensors("vision_inputs")
    modules = nn.ModuleDict(
        {"vision": OmgVision(config), "projector": VisionToText(config), "text_projector": TextToVision(config)}
    )
    _load(modules, read_catalogue([recorded.folder / "vision_weights.safetensors"]), Heads(1, 1), recorded.device)
    vision, projector, text_projector = modules["vision"], modules["projector"], modules["text_projector"]
    assert isinstance(vision, OmgVision)
    assert isinstance(projector, VisionToText)

    features = _check_images(vision, inputs["images"], result)
    for index, tokens in enumerate(projector(features)):
        result.add(f"projector.tokens{index}", tokens)
    _check_prompts(vision, projector, features, inputs, result)

    query = text_projector(inputs["seg_hidden"])
    result.add("seg.text2vision", query)
    trace = DecoderTrace()
    result.add("seg.mask_logits_last", vision.decode_masks(features, query, inputs["seg_batch_idx"], trace)[:, None])
    feature, position = query.chunk(2, dim=-1)
    assert features.mask_features is not None
    first = vision.query_decoder.mask_logits(feature[:, None], features.mask_features[inputs["seg_batch_idx"]])
    result.add("seg.mask_logits_first", first)
    _add_trace("seg", trace, position, result)

    _check_splicing(config, inputs, result)
    _check_preprocessing(inputs, result)


def _check_images(vision: OmgVision, images: Tensor, result: Comparison) -> VisionFeatures:
    frame = (images.shape[2], images.shape[3])
    stages = vision.backbone(images)
    for index, stage in enumerate(stages):
        if f"backbone.c{index + 2}" in result.expected:
            result.add(f"backbone.c{index + 2}", stage)
    memories, mask_features = vision.pixel_decoder(stages)
    for index, memory in enumerate(memories):
        result.add(f"pixel_decoder.memory{index}", memory)
    result.add("pixel_decoder.mask_features", mask_features)

    context = decoder_context(memories, mask_features, vision.level_embed.weight)
    for index, grid in enumerate(context.grids):
        result.add(f"main.pos_l{index}", key_positions(*grid, vision.config.decoder_size, images.device))
    trace = DecoderTrace()
    queries, positions = vision.object_queries(context, trace)
    result.add("main.query_pos", positions)
    _add_trace("main", trace, None, result)

    decoder = vision.query_decoder
    for name, state in (("first", trace.states[0]), ("last", queries)):
        mask_logits = decoder.mask_logits(state, mask_features)
        class_logits = vision.class_head(decoder.post_norm(state), mask_logits, mask_features)
        result.add(f"main.cls_logits_{name}", class_logits)
    result.add("main.mask_logits_last", mask_logits)
    result.add("main.iou_last", vision.iou_embed(decoder.post_norm(queries)))

    scores = query_scores(class_logits)
    stride = vision.config.visual_token_stride
    tokens = (frame[0] // stride, frame[1] // stride)
    weighted = weigh_masks(mask_logits, scores, frame, tokens)
    winners = nn.functional.one_hot(weighted.flatten(2).argmax(1), weighted.shape[1]).transpose(1, 2)
    result.add("prior.score", scores)
    result.add("prior.weighted_mask", weighted)
    result.add("prior.blocked", 1 - winners)
    object_queries = torch.cat((queries, positions), dim=-1)
    prior = perception_prior(weighted, object_queries)
    result.add("prior.pixel_query", prior.unflatten(1, tokens))

    features = vision(images)
    result.add("encoder.visual_tokens", features.visual_tokens)
    result.add("encoder.query_feat_pos", features.object_queries)
    if not torch.equal(features.object_valid, valid_queries(weighted)):
        result.results.append(("encoder.object_valid", float("inf")))
    return features


def _check_prompts(
    vision: OmgVision,
    projector: VisionToText,
    features: VisionFeatures,
    inputs: Mapping[str, Tensor],
    result: Comparison,
) -> None:
    points, boxes, frame = inputs["points"], inputs["boxes"], features.frame
    grids = features.grids
    box_centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    prompts = {
        "point": (points, QueryMasks()),
        "box": (box_centres, QueryMasks(within=[box_cells(boxes, frame, grid) for grid in grids])),
        "region": (
            result.expected["region.center_xy"],
            QueryMasks(fixed=[region_cells(inputs["regions"], grid) for grid in grids]),
        ),
        "disc": (points, QueryMasks(fixed=[region_cells(inputs["disc_masks"], grid) for grid in grids])),
    }
    result.compared.add("region.center_xy")  # an input of the recorded run, not one of its outputs
    for name, (centres, masks) in prompts.items():
        trace = DecoderTrace()
        encoded = vision.encode_prompts(features, centres, inputs["prompt_batch_idx"], masks, trace)
        feature, position = encoded.chunk(2, dim=-1)
        _add_trace(name, trace, position, result)
        result.add(f"{name}.out", encoded[:, None])
        result.add(f"{name}.llm_token", projector.queries(encoded))
        if name == "point" and features.mask_features is not None:
            mask_features = features.mask_features[inputs["prompt_batch_idx"]]
            result.add("point.mask_logits_last", vision.query_decoder.mask_logits(feature[:, None], mask_features))


def _add_trace(name: str, trace: DecoderTrace, positions: Tensor | None, result: Comparison) -> None:
    single = positions is not None
    for index, state in enumerate(trace.states):
        result.add(f"{name}.x{index}", state[:, None] if single else state)
    for index, allowed in enumerate(trace.allowed):
        result.add(f"{name}.attn_mask{index}", ~allowed[:, None] if single else ~allowed)
    if positions is not None:
        result.add(f"{name}.query_pos", positions[:, None])


def _check_splicing(config: OmgLlavaConfig, inputs: Mapping[str, Tensor], result: Comparison) -> None:
    """The example names its prompt ids by place only: <mark> is the highest id, <region> the highest in the table
    that occurs as often as there are region features."""
    table = inputs["splice.embedding"]
    embedding = nn.Embedding.from_pretrained(table)
    mask = inputs["splice.attention_mask"].bool()
    ids = [row[keep] for row, keep in zip(inputs["splice.input_ids"], mask, strict=True)]
    labels = [row[keep] for row, keep in zip(inputs["splice.labels"], mask, strict=True)]
    values, counts = torch.cat(ids).unique(return_counts=True)
    mark = int(values.max())
    region = int(values[(values < len(table)) & (counts == len(inputs["splice.region_feats"]))].max())
    images = [result.expected[f"projector.tokens{index}"] for index in range(len(ids))]
    replacements = {
        config.image_token_index: images,
        mark: list(inputs["splice.mark_feats"][:, None]),
        region: list(inputs["splice.region_feats"][:, None]),
    }
    spliced = splice_inputs(embedding, ids, replacements, labels)
    result.add("splice.inputs_embeds", spliced.inputs_embeds)
    result.add("splice.labels", spliced.labels)
    result.add("splice.attention_mask", spliced.attention_mask)
    result.add("splice.position_ids", spliced.position_ids)


def _check_preprocessing(inputs: Mapping[str, Tensor], result: Comparison) -> None:
    for name in [name for name in inputs if name.startswith("preproc.image")]:
        index = name.removeprefix("preproc.image")
        image = inputs[name].cpu().numpy()
        processor = OmgLlavaImageProcessor(result.expected[f"preproc.pixel_values{index}"].shape[-1])
        result.add(f"preproc.square{index}", torch.from_numpy(np.array(processor.pad(image))))
        result.add(f"preproc.pixel_values{index}", torch.from_numpy(processor.pixel_values(image)))
        size = (image.shape[1], image.shape[0])
        points = processor.points_to_frame(inputs[f"preproc.points{index}"].cpu().numpy(), size)
        result.add(f"preproc.points_out{index}", torch.from_numpy(points).float())


def _language_outputs(recorded: Recorded) -> dict[str, Tensor]:
    given = ("attention_mask", "input_ids", "inputs_embeds", "labels")
    return {name: tensor for name, tensor in recorded.tensors("internlm2_io").items() if name not in given}


def _check_language(recorded: Recorded, result: Comparison) -> None:
    spec, folder = recorded.spec, recorded.folder
    config = LlamaConfig(**_text_config(spec))
    heads = Heads(config.num_attention_heads, config.num_key_value_heads)
    given = recorded.tensors("internlm2_io")
    mask = given["attention_mask"].bool()
    base, adapters = (folder / f"internlm2_{name}.safetensors" for name in ("weights", "lora_weights"))
    files = {"": [base], "_with_lora": [base, adapters]}
    for suffix, paths in files.items():
        model = nn.ModuleDict({"language_model": LlamaForCausalLM(config)})
        _load(model, read_catalogue(paths), heads, recorded.device, spec["internlm2_config"]["lora_scale"])
        llama = model["language_model"]
        output = llama(given["input_ids"], given["attention_mask"], labels=given["labels"], output_hidden_states=True)
        result.add(f"logits{suffix}", output.logits, mask)
        if suffix:
            result.add("last_hidden_with_lora", output.hidden_states[-1], mask)
            result.add("loss_with_lora", output.loss[None])
            continue
        for index, hidden in enumerate(output.hidden_states):
            result.add(f"hidden{index}", hidden, mask)
        result.add("last_hidden", output.hidden_states[-1], mask)
        embeds = llama(inputs_embeds=given["inputs_embeds"], attention_mask=given["attention_mask"])
        result.add("logits_from_embeds", embeds.logits, mask)
