"""Compare this implementation with recorded outputs of the official code, tensor by tensor and text by text.

A golden folder holds ``golden.json`` (sizes, texts, matrices), safetensors files with random weights under the
official names, inputs and intermediate outputs, and a tokenizer. Nothing here depends on its sizes or wording.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from talking_points.image_files import read_pixels
from talking_points.models.answerer import PointAnswerer
from talking_points.models.base import chunks
from talking_points.models.capellm.configuration import AnswererConfig
from talking_points.models.capellm.conversation import Query, Round, Template, encode, group
from talking_points.models.capellm.conversion import convert_weights
from talking_points.models.capellm.coordinates import format_point, parse_point
from talking_points.models.capellm.crops import Crop, normalise
from talking_points.models.capellm.golden_pck import check_pck
from talking_points.regular_files import read_text
from talking_points.tensor_files import load_tensors


class Results:
    """Collects (name, error) pairs and knows which recorded tensors were never compared."""

    def __init__(self, recorded: Mapping[str, Tensor]) -> None:
        self.recorded = dict(recorded)
        self.compared: set[str] = set()
        self.found: list[tuple[str, float]] = []

    def tensor(self, name: str, actual: Tensor) -> None:
        """Largest absolute error relative to the largest recorded value; ids and masks count as 0 or 1."""
        self.compared.add(name)
        self.values(name, actual, self.recorded[name])

    def values(self, name: str, actual: Any, expected: Any) -> None:
        """The same for values of ``golden.json``."""
        one, other = (torch.as_tensor(np.asarray(value)) for value in (actual, expected))
        if one.shape != other.shape:
            self.found.append((name, float("inf")))
        elif other.is_floating_point() or one.is_floating_point():
            one, other = one.double(), other.double()
            finite = other.isfinite()
            if not torch.equal(one[~finite], other[~finite]):
                self.found.append((name, float("inf")))
                return
            one, other = one[finite], other[finite]
            scale = other.abs().max().clamp(min=1e-12) if other.numel() else torch.ones(())
            error = float((one - other).abs().max() / scale) if other.numel() else 0.0
            self.found.append((name, float("inf") if math.isnan(error) else error))  # NaN is larger than no tolerance
        else:
            self.same(name, bool((one == other).all()))

    def same(self, name: str, equal: bool) -> None:
        """A text, id, mask or decision: 0 or 1."""
        self.found.append((name, 0.0 if equal else 1.0))

    def finish(self) -> list[tuple[str, float]]:
        """All results; a recorded tensor that nothing was compared with counts as infinitely wrong."""
        return self.found + [(name, float("inf")) for name in self.recorded if name not in self.compared]


@torch.no_grad()
def check(folder: str | Path, images: str | Path | None = None) -> list[tuple[str, float]]:
    """Run the whole comparison on a golden folder, in float32 on the CPU.

    Returns (name, error): relative errors for tensors, 0 or 1 for ids, labels, masks and texts. ``images`` is the
    folder that the recorded file names lie in; with it the crops' pixels are compared too, with one level allowed.
    """
    folder = Path(folder)
    spec = json.loads(read_text(folder / "golden.json"))
    model = model_from_golden(folder, spec)
    results = Results(_recorded(folder, spec, model.config))
    batch = _check_conversations(model, spec, results)
    _check_vision(model, batch, results)
    _check_language(model, batch, results)
    _check_generation(model, spec, results)
    _check_crops(model, spec, results, None if images is None else Path(images))
    _check_texts(spec, results)
    _check_decisions(spec, results)
    for name, error in check_pck(spec["pck"]):
        results.found.append((name, error))
    return results.finish()


def _recorded(folder: Path, spec: Mapping[str, Any], config: AnswererConfig) -> dict[str, Tensor]:
    """The recorded tensors, in float32, with our id for the image's placeholder, which is read by neither code."""
    found = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in load_tensors(folder / "capellm_io.safetensors").items()
    }
    for name in ("batch.input_ids", "generate.input_ids"):
        found[name] = found[name].where(found[name] != spec["tokens"]["im_patch"], config.image_token_id)
    return found


def config_from_golden(spec: Mapping[str, Any]) -> AnswererConfig:
    """The configuration that a ``golden.json`` describes."""
    sizes, tokens = spec["sizes"], spec["tokens"]
    vision, text = sizes["vision"], sizes["llm"]
    if vision.get("registers"):
        raise ValueError(f"expected a DINOv2 without registers, found {vision['registers']}: they are not supported")
    rope = text.get("rope_scaling") or {"rope_type": "default"}
    return AnswererConfig(
        vision_config={
            "hidden_size": vision["hidden_size"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["heads"],
            "mlp_ratio": vision["mlp_ratio"],
            "layer_norm_eps": vision["layer_norm_eps"],
            "image_size": sizes["image"],
            "patch_size": sizes["patch"],
        },
        text_config={
            **{name: value for name, value in text.items() if not name.startswith(("lora_", "rope_"))},
            "rope_parameters": {**rope, "rope_theta": text["rope_theta"]},
            "bos_token_id": tokens["bos"],
            "eos_token_id": tokens["eos"],
            "pad_token_id": tokens["pad"],
        },
        lora_rank=text["lora_r"],
        lora_alpha=text["lora_alpha"],
        vision_lora_rank=vision["lora_r"],
        vision_lora_alpha=vision["lora_alpha"],
        lora_active=True,
        crop_padding=1.0,
        image_mean=spec["normalization"]["mean"],
        image_std=spec["normalization"]["std"],
        question=spec["question_template"],
        answer_end="text",
        end_text=tokens["end_marker_text"],
    )


def model_from_golden(folder: Path, spec: Mapping[str, Any]) -> PointAnswerer:
    """The recorded model, loaded through the conversion of official checkpoints."""
    config = config_from_golden(spec)
    official = load_tensors(folder / "capellm_weights.safetensors")
    official |= load_tensors(folder / "capellm_llm_adapter.safetensors")
    model = PointAnswerer(config)
    weights = convert_weights(official, config, spec["sizes"]["vision"]["interpolate_offset"])
    if config.text_config.tie_word_embeddings:
        weights.setdefault("language_model.lm_head.weight", weights["language_model.model.embed_tokens.weight"])
    model.load_state_dict(weights)
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **_special(spec, folder))
    return model.eval()


def _special(spec: Mapping[str, Any], folder: Path) -> dict[str, str]:
    added = json.loads(read_text(folder / "tokenizer.json"))["added_tokens"]
    names = {token["id"]: token["content"] for token in added}
    tokens = spec["tokens"]
    return {f"{kind}_token": names[tokens[kind]] for kind in ("bos", "eos", "pad") if tokens[kind] in names}


Batch = dict[str, Tensor]


def _check_conversations(model: PointAnswerer, spec: Mapping[str, Any], results: Results) -> Batch:
    """Training conversations to texts, ids, mask, labels and learnt tokens; returns the padded batch."""
    config, template, encoded = model.config, _template(spec), []
    for number, one in enumerate(spec["training_conversations"]):
        rounds = [
            Round(Query(item["name"], item["description"]), _official_text(item["x"], item["y"], config.image_size))
            for item in one["rounds"]
            if item["asked"]
        ]
        text, spans = template.render(rounds)
        results.same(f"conversation{number}.text", text == one["text_after_patches"])
        tokens = encode(model.text_tokenizer, text, spans)
        learnt = [label for label in tokens.labels if label >= 0]
        words = [model.text_tokenizer.decode([token]) for token in learnt]
        results.same(f"conversation{number}.learnt_tokens", words == one["learnt_tokens"])
        whole = tokens.behind_image(config.text_config.bos_token_id, config.image_token_id, config.image_tokens)
        results.same(f"conversation{number}.num_tokens", len(whole.ids) == one["num_tokens"])
        encoded.append(whole)
    longest = max(len(one.ids) for one in encoded)
    shape = (len(encoded), longest)
    ids = torch.full(shape, config.text_config.pad_token_id)
    labels, mask = torch.full(shape, -100), torch.zeros(shape, dtype=torch.bool)
    for row, one in enumerate(encoded):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        labels[row, : len(one.ids)] = torch.tensor(one.labels)
        mask[row, : len(one.ids)] = True
    results.tensor("batch.input_ids", ids)
    results.tensor("batch.labels", labels)
    results.tensor("batch.attention_mask", mask)
    return {"input_ids": ids, "labels": labels, "attention_mask": mask, "images": results.recorded["batch.images"]}


def _template(spec: Mapping[str, Any]) -> Template:
    user, reference, assistant = spec["roles"]
    return Template(spec["question_template"], spec["separators"][-1], True, (user, reference, assistant))


def _official_text(x: float, y: float, size: int) -> str:
    """As the official code writes a point of the crop: 1.000 where it rounds to that; nothing for one outside."""
    if not (0 <= x < size and 0 <= y < size):
        return ""
    return format_point(x / size, y / size, clip=False)


def _check_vision(model: PointAnswerer, batch: Batch, results: Results) -> None:
    vision, images = model.vision, batch["images"]
    results.tensor("vision.positions", vision.embeddings.position_embeddings)
    hidden = vision.embeddings(images)
    results.tensor("vision.tokens_in", hidden)
    for number, layer in enumerate(vision.encoder.layer):
        hidden = layer(hidden)
        results.tensor(f"vision.block{number}", hidden)
    results.tensor("vision.patch_tokens", vision(images).last_hidden_state[:, 1:])
    results.tensor("projected", model.image_tokens(images))


def _check_language(model: PointAnswerer, batch: Batch, results: Results) -> None:
    embeddings = model.splice(batch["input_ids"], model.image_tokens(batch["images"]))
    read = batch["attention_mask"]
    results.tensor("forward.inputs_embeds", embeddings)
    hidden = model.read(embeddings, read.long())
    results.tensor("forward.hidden_last", hidden)
    logits, targets = model.answer_logits(hidden, batch["labels"])
    results.tensor("forward.answer_logits", logits)
    results.tensor("forward.answer_targets", targets)
    first = hidden[0, read[0].bool()][-len(results.recorded["forward.logits_first"]) :]  # its end, not the padding
    results.tensor("forward.logits_first", model.language_model.lm_head(first))
    inputs = (batch["images"], batch["input_ids"], read.long(), batch["labels"])
    results.tensor("forward.loss", model(*inputs).loss[None])
    with model.without_adapters(vision=False):
        results.tensor("forward.loss_without_llm_lora", model(*inputs).loss[None])


def _check_generation(model: PointAnswerer, spec: Mapping[str, Any], results: Results) -> None:
    prompts = []
    for number, one in enumerate(spec["inference"]):
        text = _template(spec).prompt(Query(one["keypoint"], one["description"]))
        results.same(f"inference{number}.prompt", text == one["prompt_after_patches"])
        prompts.append(encode(model.text_tokenizer, text).ids)
    ids, mask = model.pad_left(prompts)
    results.tensor("generate.input_ids", ids)
    results.tensor("generate.attention_mask", mask)
    recorded = results.recorded["generate.images"]
    results.compared.add("generate.images")  # an input: crops that are compared where they were made
    wanted = results.recorded["generate.new_ids"]
    images = model.image_tokens(recorded)
    new = model.generate_free(images, ids, mask, tokens=wanted.shape[1])
    results.tensor("generate.new_ids", new)
    for number, (one, row) in enumerate(zip(spec["inference"], new, strict=True)):
        text = model.text_tokenizer.decode(row, skip_special_tokens=True)
        results.same(f"inference{number}.generated", text == one["generated"])
    # Scores of the first and of the last step, read in one go behind the recorded ids.
    embeddings = torch.cat((model.splice(ids, images), model.get_input_embeddings()(wanted[:, :-1])), dim=1)
    seen = torch.cat((mask, torch.ones_like(wanted[:, :-1])), dim=1)
    hidden = model.read(embeddings, seen, (seen.cumsum(1) - 1).clamp(min=0))
    for name, column in (("first_scores", ids.shape[1] - 1), ("last_scores", -1)):
        scores, allowed = (
            model.language_model.lm_head(hidden[:, column]),
            results.recorded[f"generate.{name}"].isfinite(),
        )
        results.tensor(
            f"generate.{name}", scores.where(allowed, -torch.inf)
        )  # the end is forbidden before the last step


def _check_crops(model: PointAnswerer, spec: Mapping[str, Any], results: Results, images: Path | None) -> None:
    for number, one in enumerate(spec["crops"]):
        plain = Crop.of_box(one["bbox"], one["size"], padding=1.0)
        results.values(f"crop{number}.center", plain.centre, one["center"])
        crop = Crop(plain.centre, float(one["side"][0]), one["size"], float(one["rotation"]))
        results.values(f"crop{number}.forward", crop.matrix, one["forward"])
        results.values(f"crop{number}.in_crop", crop.forward(one["points"]), one["in_crop"])
        results.values(f"crop{number}.points", crop.inverse(one["in_crop"]), one["points"])
        corners = np.array([[0.0, 0.0], [one["size"], 0.0], [0.0, one["size"]]])
        back = np.array(one["inverse"])
        results.values(f"crop{number}.inverse", crop.inverse(corners), corners @ back[:, :2].T + back[:, 2])
    back = spec["back_projection"]
    crop = Crop.of_box(back["bbox"], back["size"], padding=1.0)
    results.values("back_projection", crop.inverse(back["crop_points"]), back["image_points"])
    boxes: dict[str, tuple[str, Sequence[float]]] = {}
    for number, one in enumerate(spec["groups_of_dataset"]):
        crop = Crop.of_box(one["bbox"], 1, padding=1.0)
        found = [*crop.centre, *[crop.side / 200] * 2]  # the official code counts sides in units of 200 pixels
        results.values(f"group{number}.crop", found, [*one["center"], *one["scale"]])
        boxes.setdefault(one["file_name"].partition("/")[0], (one["file_name"], one["bbox"]))
    _check_pixels(model, spec, results, boxes, images)


def _check_pixels(
    model: PointAnswerer,
    spec: Mapping[str, Any],
    results: Results,
    boxes: Mapping[str, tuple[str, Sequence[float]]],
    images: Path | None,
) -> None:
    config = model.config
    kinds = [one["file_name"].partition("/")[0] for one in spec["training_conversations"]]
    for name in [name for name in results.recorded if name.startswith("crop.")]:
        results.compared.add(name)
        pixels, kind = results.recorded[name].numpy(), name.removeprefix("crop.")
        if images is not None and kind in boxes:
            file, box = boxes[kind]
            crop = Crop.of_box(box, config.image_size, padding=1.0)
            made = crop.warp(read_pixels(images / file))
            results.same(name, int(np.abs(made.astype(int) - pixels.astype(int)).max()) <= 1)
        given = [results.recorded["batch.images"][row] for row, own in enumerate(kinds) if own == kind]
        if given:  # the crop is that of one of its folder's images
            own = torch.from_numpy(normalise([pixels], config.image_mean, config.image_std)[0])
            closest = min(given, key=lambda image: float((image - own).abs().max()))
            results.values(f"{name}.normalised", own, closest)
    results.compared.add("batch.images")


def _check_texts(spec: Mapping[str, Any], results: Results) -> None:
    for number, one in enumerate(spec["coordinates"]):
        results.same(f"coordinates{number}", _official_text(one["x"], one["y"], one["size"]) == one["text"])
    for number, one in enumerate(spec["answers"]):
        numbers, point = official_answer(one["answer"], one["size"])
        results.same(f"answer{number}.numbers", numbers == one["numbers"])
        results.values(f"answer{number}.point", point, one["official"])
        ours = parse_point(one["answer"], spec["tokens"]["end_marker_text"])
        if ours is not None and len(numbers) == 2:  # where both read two numbers they must read the same
            results.values(f"answer{number}.parsed", np.array(ours) * one["size"], one["official"])
    for number, one in enumerate(spec["grouping"]):
        groups = group(one["shuffled"], one["k"], random.Random(0))
        full, recorded = len(one["shuffled"]) // one["k"], one["groups"]
        rest = one["shuffled"][full * one["k"] :]
        equal = groups[:full] == recorded[:full] and list(map(len, groups)) == list(map(len, recorded))
        results.same(f"grouping{number}", equal and all(one[-1][: len(rest)] == rest for one in (groups, recorded)))
        results.same(f"grouping{number}.number", len(groups) == one["number"])
    for number, one in enumerate(spec["inference_chunks"]):
        parts = [list(range(part.start, part.stop)) for part in chunks(one["n"], one["limit"])]
        results.same(f"inference_chunks{number}", parts == one["chunks"])


def _check_decisions(spec: Mapping[str, Any], results: Results) -> None:
    """What was asked of an object, under which names and in which groups."""
    size, names = spec["sizes"]["image"], spec["names"]
    results.same("sizes.patches", spec["sizes"]["patches"] == (size // spec["sizes"]["patch"]) ** 2)
    results.same(
        "separators",
        [*spec["separators"][:2], spec["tokens"]["end_marker_text"]] == ["\n", "\n", spec["separators"][-1]],
    )
    for number, one in enumerate(spec["training_conversations"]):
        called = dict(enumerate(names.get(str(one["category_id"]), ())))
        named = [called.get(item["keypoint_id"]) == item["name"] for item in one["rounds"]]
        inside = [min(item["x"], item["y"]) >= 0 and max(item["x"], item["y"]) < size for item in one["rounds"]]
        asked = [
            (item["visible"] and there) == item["asked"] for item, there in zip(one["rounds"], inside, strict=True)
        ]
        results.same(f"conversation{number}.names", all(named))
        results.same(f"conversation{number}.asked", all(asked))
    for number, one in enumerate(spec["inference"]):
        results.same(f"inference{number}.keypoint", one["keypoint"] in names.get(str(one["category_id"]), ()))
    objects: dict[str, list[Mapping[str, Any]]] = {}
    for one in spec["groups_of_dataset"]:
        own = [one[key] for key in ("category_id", "file_name", "bbox", "num_joints")]
        objects.setdefault(json.dumps(own), []).append(one)
    for number, parts in enumerate(objects.values()):
        listed = [one["keypoint_ids"] for one in parts]
        order = [index for ids in listed for index in ids][: parts[0]["num_joints"]]
        sizes = [len(ids) for ids in group(order, len(listed[0]), random.Random(0))]
        fair = all(len(set(ids)) == len(ids) for ids in listed) and sizes == list(map(len, listed))
        every = set(range(len(names.get(str(parts[0]["category_id"]), ()))))
        results.same(f"dataset_groups{number}", fair and set(order) == every and len(order) == len(every))


def official_answer(text: str, size: int) -> tuple[list[str], ArrayLike]:
    """What the official code reads in an answer: numbers, and the point in the crop, with zeros for what is absent."""
    numbers = re.findall(r"0\.\d+", text)
    x, y = (*map(float, numbers[:2]), 0.0, 0.0)[:2]
    return numbers, [x * size, y * size]
