"""The official OMG-LLaVA release, several .pth and .bin files, to one Hugging Face folder.

Shapes are read first and every key accounted for; then one tensor at a time is converted and written, so that a
7B model needs no more memory than one shard. What was written is read again and compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from talking_points.locks import refuse_links
from talking_points.models.omg_llava.checkpoint_keys import PROTOTYPES, Heads, canonical_key
from talking_points.models.omg_llava.configuration import OmgLlavaConfig
from talking_points.models.omg_llava.image_processing import OmgLlavaImageProcessor
from talking_points.models.omg_llava.memory import on_meta
from talking_points.models.omg_llava.modeling import OmgLlavaModel
from talking_points.models.omg_llava.release import Catalogue, ConversionError, Plan, plan_conversion, read_catalogue
from talking_points.models.omg_llava.tokenization import tokenizer_from_release
from talking_points.regular_files import read_text
from talking_points.tensor_files import open_tensors, save_tensors

REPORT = "conversion.json"


@dataclass(frozen=True)
class ConversionReport:
    """What was written: files, parameters, bytes, merged adapters, and whether a tokenizer was among the sources."""

    output: str
    files: tuple[str, ...]
    tensors: int
    parameters: int
    bytes: int
    merged_adapters: int
    kept_adapters: int
    tokenizer: bool
    verified: bool


Lora = Literal["merge", "continue"]


@dataclass(frozen=True)
class ReleasePlan:
    """A release that was read and accounted for, but not converted."""

    config: OmgLlavaConfig
    tokenizer: PreTrainedTokenizerFast | None
    expected: dict[str, tuple[int, ...]]
    plan: Plan


def plan_release(
    sources: Sequence[str | Path], *, base: OmgLlavaConfig | None = None, lora: Lora = "merge"
) -> ReleasePlan:
    """Read the shapes of a release and find a place for every tensor; see ``convert_release`` for the arguments."""
    catalogue = read_catalogue(sources)
    folders = [Path(source) if Path(source).is_dir() else Path(source).parent for source in sources]
    config = infer_config(catalogue, base or _base_config(folders))
    tokenizer = _tokenizer(folders)
    if tokenizer is not None:
        _name_tokens(config, tokenizer)
    if lora == "continue":
        config.lora_active = any(".lora_A." in key for key in catalogue)
    expected = {name: tuple(tensor.shape) for name, tensor in on_meta(OmgLlavaModel, config).state_dict().items()}
    text = config.text_config
    heads = Heads(text.num_attention_heads, text.num_key_value_heads)
    plan = plan_conversion(catalogue, expected, heads, config.lora_alpha / config.lora_rank)
    return ReleasePlan(config, tokenizer, expected, plan)


def convert_release(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    base: OmgLlavaConfig | None = None,
    lora: Lora = "merge",
    dtype: torch.dtype = torch.bfloat16,
    max_shard_bytes: int = 2 * 1024**3,
) -> ConversionReport:
    """Convert an official release.

    Args:
        sources: files and folders of the release, the language model's folder first, later files winning: its
            shards, the OpenCLIP backbone, the OMG-Seg head, the class prototypes, the OMG-LLaVA checkpoint.
        output: a folder that does not hold a model yet.
        base: what shapes cannot tell (head counts, rope, temperature, alpha / rank of the adapters). Default: the
            paper's 7B, with the values of a ``config.json`` beside the language model. Sizes are read from weights.
        lora: "merge" adds the release's adapters to the weights; "continue" keeps them as adapters, each of the
            fused projections with its own copy. An adapter of the head is merged in both.
        dtype: of the language model and the projectors; the vision path stays in float32.

    Raises:
        ConversionError: listing unknown, missing and mis-shaped keys; nothing is written then.
    """
    output = Path(output)
    if (output / "config.json").exists():
        raise ConversionError(f"{output} holds a model already: choose another folder or remove it first")
    refuse_links(output.resolve())
    planned = plan_release(sources, base=base, lora=lora)
    config, tokenizer, expected = planned.config, planned.tokenizer, planned.expected

    output.mkdir(parents=True, exist_ok=True)
    config.architectures = [OmgLlavaModel.__name__]
    config.dtype = dtype
    checksums = _write_shards(planned.plan, expected, output, dtype, max_shard_bytes)
    verify(output, expected, checksums)
    OmgLlavaImageProcessor(config.image_size).save_pretrained(output)
    if tokenizer is not None:
        tokenizer.save_pretrained(output)
    files = sorted(output.glob("*.safetensors"))
    report = ConversionReport(
        output=str(output),
        files=tuple(path.name for path in files),
        tensors=len(expected),
        parameters=sum(torch.Size(shape).numel() for shape in expected.values()),
        bytes=sum(path.stat().st_size for path in files),
        merged_adapters=len(planned.plan.low_rank),
        kept_adapters=sum(".lora_A." in name for name in expected),
        tokenizer=tokenizer is not None,
        verified=True,
    )
    (output / REPORT).write_text(json.dumps({**asdict(report), "sha256": checksums}, indent=1), encoding="utf-8")
    config.save_pretrained(output)  # last: a folder without it was interrupted and may be written again
    return report


def infer_config(catalogue: Catalogue, base: OmgLlavaConfig) -> OmgLlavaConfig:
    """The configuration whose sizes are those of the weights; head counts and constants are taken from ``base``."""
    shapes = {canonical_key(key): entry.shape for key, entry in catalogue.items()}

    def shape(key: str) -> tuple[int, ...]:
        if key not in shapes:
            raise ConversionError(f"expected {key} in the release, found no file that has it: give every file of it")
        return shapes[key]

    def count(prefix: str) -> int:
        indices = [int(key[len(prefix) :].split(".")[0]) for key in shapes if key.startswith(prefix)]
        return max(indices, default=-1) + 1

    head = "panoptic_head."
    pixel, query = f"{head}pixel_decoder.encoder.layers.", f"{head}transformer_decoder.layers."
    size, levels = shape(f"{head}query_feat.weight")[1], shape(f"{head}level_embed.weight")[0]
    stages = count("backbone.stages.")
    widths = [shape(f"backbone.stages.{stage}.blocks.0.gamma")[0] for stage in range(stages)]
    points = shape(f"{pixel}0.self_attn.attention_weights.weight")[0] // (base.decoder_heads * levels)
    classes, prototypes, prototype_size = shape(PROTOTYPES)
    hidden = shape("llm.model.norm.weight")[0]
    fused = next((key for key in shapes if "wqkv" in key and key.endswith("wqkv.weight")), "llm...wqkv.weight")
    head_size = hidden // base.text_config.num_attention_heads
    vision = base.vision_config.to_dict() | {
        "hidden_sizes": widths,
        "depths": [count(f"backbone.stages.{stage}.blocks.") for stage in range(stages)],
        "patch_size": shape("backbone.stem.0.weight")[2],
    }
    # stage_names and the like follow from the depths and would contradict them.
    vision = {key: value for key, value in vision.items() if "stage" not in key and "out_" not in key}
    text = base.text_config.to_dict() | {
        "vocab_size": shape("llm.model.tok_embeddings.weight")[0],
        "hidden_size": hidden,
        "intermediate_size": shape("llm.model.layers.0.feed_forward.w1.weight")[0],
        "num_hidden_layers": count("llm.model.layers."),
        "num_key_value_heads": (shape(fused)[0] - hidden) // (2 * head_size),
        "head_dim": head_size,
    }
    adapters = [entry.shape[0] for key, entry in catalogue.items() if ".lora_A." in key]
    rank = adapters[0] if adapters else base.lora_rank
    return OmgLlavaConfig(
        **base.to_dict()
        | {
            "vision_config": vision,
            "text_config": text,
            "decoder_size": size,
            "pixel_decoder_layers": count(pixel),
            "pixel_decoder_ffn_size": shape(f"{pixel}0.ffn.layers.0.0.weight")[0],
            "deformable_levels": levels,
            "deformable_points": points,
            "query_decoder_layers": count(query),
            "query_decoder_ffn_size": shape(f"{query}0.ffn.layers.0.0.weight")[0],
            "num_queries": shape(f"{head}query_feat.weight")[0],
            "num_classes": classes,
            "num_prototypes": prototypes,
            "prototype_size": prototype_size,
            "space_to_depth": round((shape("projector.model.query_proj.weight")[0] / widths[-1]) ** 0.5),
            "task_decoder": any(key.startswith(f"{head}transformer_decoder_llm.") for key in shapes),
            "lora_rank": rank,
            "lora_alpha": rank * base.lora_alpha / base.lora_rank,
        }
    )


def _base_config(folders: Iterable[Path]) -> OmgLlavaConfig:
    """The paper's configuration with what an InternLM2 ``config.json`` says about its language model."""
    config = OmgLlavaConfig()
    for folder in folders:
        file = folder / "config.json"
        values = json.loads(read_text(file)) if file.exists() else {}
        if values.get("model_type") != "internlm2":
            continue
        text = config.text_config
        for name in ("num_attention_heads", "rms_norm_eps", "max_position_embeddings"):
            setattr(text, name, values.get(name, getattr(text, name)))
        text.rope_parameters = {"rope_type": "default", "rope_theta": float(values.get("rope_theta", 1e6))}
    return config


def _tokenizer(folders: Iterable[Path]) -> PreTrainedTokenizerFast | None:
    for folder in folders:
        if (folder / "tokenizer.json").exists() or (folder / "tokenizer.model").exists():
            return tokenizer_from_release(folder)
    return None


def _name_tokens(config: OmgLlavaConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Take the ids of the special tokens from the tokenizer, and check that the embedding has their rows."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in ("[SEG]", "<region>", "<mark>", "<|im_end|>")}
    config.seg_token_id, config.region_token_id, config.mark_token_id = ids["[SEG]"], ids["<region>"], ids["<mark>"]
    config.text_config.bos_token_id = tokenizer.bos_token_id
    config.text_config.eos_token_id = [ids["<|im_end|>"], tokenizer.eos_token_id]
    config.text_config.pad_token_id = tokenizer.pad_token_id
    rows = config.text_config.vocab_size
    if not ids["[SEG]"] < rows or len(tokenizer) - rows > 1:
        raise ConversionError(
            f"the tokenizer has {len(tokenizer)} tokens, the embedding {rows} rows: expected as many, or one row less "
            "(<mark> has none). Give the tokenizer and the checkpoint of the same release"
        )


def _target_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if name.startswith("vision.") else dtype


def _shards(expected: dict[str, tuple[int, ...]], dtype: torch.dtype, limit: int) -> Iterator[list[str]]:
    names: list[str] = []
    filled = 0
    for name, shape in expected.items():
        size = torch.Size(shape).numel() * _target_dtype(name, dtype).itemsize
        if names and filled + size > limit:
            yield names
            names, filled = [], 0
        names.append(name)
        filled += size
    yield names


def _write_shards(
    plan: Plan, expected: dict[str, tuple[int, ...]], output: Path, dtype: torch.dtype, limit: int
) -> dict[str, str]:
    """Write all parameters, one shard in memory at a time; returns the sha256 of each."""
    shards = list(_shards(expected, dtype, limit))
    files: dict[str, str] = {}
    checksums: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        # Copies always: parts of one official tensor may share its memory, which safetensors refuses.
        tensors = {
            name: plan.tensor(name).to(_target_dtype(name, dtype), copy=True, memory_format=torch.contiguous_format)
            for name in names
        }
        checksums.update({name: checksum(tensor) for name, tensor in tensors.items()})
        save_tensors(tensors, output / file, {"format": "pt"})
        del tensors  # before the next shard is put together
        files.update(dict.fromkeys(names, file))
    if len(shards) > 1:
        total = sum((output / file).stat().st_size for file in set(files.values()))
        index: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": files}
        (output / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return checksums


def checksum(tensor: Tensor) -> str:
    """sha256 of a tensor's bytes."""
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().data).hexdigest()


def verify(output: str | Path, expected: dict[str, tuple[int, ...]], checksums: dict[str, str]) -> None:
    """Read a converted folder again; raises ConversionError unless every parameter is there, unchanged."""
    found: set[str] = set()
    for path in sorted(Path(output).glob("*.safetensors")):
        with open_tensors(path) as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                tensor = file.get_tensor(name)
                if name not in expected or tuple(tensor.shape) != tuple(expected[name]):
                    raise ConversionError(f"{path} holds {name} {tuple(tensor.shape)}, expected {expected.get(name)}")
                if checksum(tensor) != checksums[name]:
                    raise ConversionError(f"{name} in {path} is not what was written: check the disk, convert again")
                found.add(name)
    if missing := expected.keys() - found:
        raise ConversionError(f"{output} lacks {sorted(missing)}: check the disk, convert again")
