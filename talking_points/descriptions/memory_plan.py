"""How much memory the model of a step takes, before anything is downloaded or loaded.

Sizes come from the ``config.json`` and the weight files of a model that is here already, and from the table of
architectures below for the models of the shipped configurations. Everything but the workspace is exact arithmetic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import util
from pathlib import Path
from typing import Any

from talking_points.build_config import StepConfig
from talking_points.models.model_folders import loading
from talking_points.regular_files import read_text

GIB = 1024**3

GPUS: dict[str, float] = {"80 GB": 79.6 * GIB, "24 GB": 24.0 * GIB}
"""Bytes that the drivers of an H100 and of an RTX 4090 report."""

ENGINE_SHARE = 0.92
"""Share of a GPU's memory that an engine may fill; vLLM's ``gpu_memory_utilization`` replaces it."""

WORKSPACE = 2 * GIB
"""Activations of one prefill chunk, CUDA graphs and kernels' buffers: an estimate for 7B to 70B models."""

_CACHE_BYTES = 2
"""Bytes of one number in the key-value cache (bfloat16 or float16)."""


@dataclass(frozen=True)
class Architecture:
    """What the published configuration of a decoder says about its size.

    ``block_parameters`` are those of the linear layers inside the decoder's blocks, which quantization shrinks;
    ``other_parameters`` all others: embeddings, head, norms, and for LLaVA the vision tower and the projector.
    """

    block_parameters: int
    other_parameters: int
    layers: int
    kv_heads: int
    head_size: int
    context: int
    image_tokens: int = 0
    image_seconds: float = 0.0
    """Time of an H100 for the vision path of one image."""

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.layers * self.kv_heads * self.head_size * _CACHE_BYTES


ARCHITECTURES: dict[str, Architecture] = {
    # Vicuna 7B v1.5 (32 blocks of 4096 channels, 11008 inside), CLIP ViT-L/14 at 336 pixels: 24 x 24 tokens.
    "llava-1.5-7b": Architecture(6_476_005_376, 587_421_696, 32, 32, 128, 4096, image_tokens=576, image_seconds=0.002),
    # 80 blocks of 8192 channels, 28672 inside, 8 key-value heads; two matrices of 128,256 x 8192 around them.
    "llama-3.3-70b": Architecture(68_451_041_280, 2_102_665_216, 80, 8, 128, 131_072),
    # InternLM2-chat-7B with ConvNeXt-L and OMG-Seg at 1024 pixels in float32: about 1.8 TFLOP per image.
    "omg-llava": Architecture(6_979_321_856, 1_067_172_993, 32, 8, 128, 32_768, image_tokens=276, image_seconds=0.07),
}
"""The models of the shipped configurations, found by their name in a model's path, in lower case."""

OMG_LLAVA_BYTES = (868_950_532, 15_658_514_432, 5_284_823_040)
"""OMG-LLaVA-7B where no torch is there to count: vision (float32), the rest (bfloat16), activations of 8 images."""

BITS: dict[str, tuple[float, float]] = {
    "awq": (4 + 20 / 128, 16),  # 4 bits, and a 16-bit scale and a 4-bit zero for every group of 128
    "gptq": (4 + 20 / 128, 16),
    "q4_k_m": (4.82, 4.82),  # the mean of the published GGUF files: 42.5 GB for 70.6 billion parameters
    "fp8": (8, 16),
}
"""Bits per parameter (in the blocks, elsewhere) of the quantizations, found by name; 16 without one."""


@dataclass(frozen=True)
class ModelSize:
    """Bytes of the weights, of the cache of one token and of image activations; parameters that a token passes."""

    weights: int
    cache_bytes_per_token: int
    activations: int
    parameters: int
    context: int
    image_tokens: int
    image_seconds: float


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of one step's model for requests of ``length`` tokens, ``shared`` of which are the same in all of them.

    ``in_flight`` is how many requests the step has in the engine at a time.
    """

    size: ModelSize
    length: int
    shared: int
    in_flight: int
    share: float

    @property
    def cache(self) -> int:
        """Bytes of the key-value cache when all requests in flight have their full length."""
        return self._cache(self.in_flight)

    @property
    def total(self) -> int:
        return self.size.weights + self.size.activations + WORKSPACE + self.cache

    def at_once(self, gpu_bytes: float) -> int:
        """How many of the requests in flight a GPU holds at a time; 0: the model does not fit."""
        room = gpu_bytes * self.share - self.size.weights - self.size.activations - WORKSPACE - self._cache(0)
        per_request = (self.length - self.shared) * self.size.cache_bytes_per_token
        return max(0, min(self.in_flight, int(room // per_request)))

    def _cache(self, requests: int) -> int:
        return (self.shared + requests * (self.length - self.shared)) * self.size.cache_bytes_per_token


def plan_memory(step: StepConfig, prompt_tokens: int, shared_tokens: int, in_flight: int) -> MemoryPlan | None:
    """The memory of a step's model; None where no model runs here, or nothing is known about it.

    ``prompt_tokens`` of a request, without its image, of which ``shared_tokens`` are the same in all requests: an
    engine with prefix caching (vLLM) holds them once.
    """
    size = model_size(step)
    if size is None:
        return None
    shared = shared_tokens if caches_prefixes(step) else 0
    length = prompt_tokens + size.image_tokens + step.max_tokens
    return MemoryPlan(size, length, shared, in_flight, float(step.options.get("gpu_memory_utilization", ENGINE_SHARE)))


def caches_prefixes(step: StepConfig) -> bool:
    """Whether the engine computes the common start of prompts once."""
    return step.backend in ("vllm", "vllm_server") and bool(step.options.get("enable_prefix_caching", True))


def model_size(step: StepConfig) -> ModelSize | None:
    """Sizes of a step's model from its folder, its file, or the table; None for none of them, or no model here."""
    if step.model is None or step.backend in {"rules", "openai"}:
        return None
    path = Path(step.model)
    if step.backend == "omg_llava":
        return _omg_llava_size(path, step)
    if (path / "config.json").is_file():
        return _folder_size(path, step)
    name = step.model.lower()
    known = next((architecture for key, architecture in ARCHITECTURES.items() if key in name), None)
    if known is None:
        return None
    quantization = f"{step.options.get('quantization', '')} {name}".lower()
    in_blocks, elsewhere = next((bits for key, bits in BITS.items() if key in quantization), (16, 16))
    weights = round((known.block_parameters * in_blocks + known.other_parameters * elsewhere) / 8)
    if path.is_file():
        weights = path.stat().st_size
    return _size(known, weights, 0, step)


def _size(known: Architecture, weights: int, activations: int, step: StepConfig) -> ModelSize:
    context = int(step.options.get("max_model_len") or step.options.get("n_ctx") or known.context)
    parameters = known.block_parameters + known.other_parameters
    return ModelSize(
        weights,
        known.cache_bytes_per_token,
        activations,
        parameters,
        context,
        known.image_tokens,
        known.image_seconds,
    )


def _folder_size(folder: Path, step: StepConfig) -> ModelSize | None:
    """Sizes of a model folder in the layout of the Hub; None for an architecture with other fields."""
    try:
        known = _architecture(json.loads(read_text(folder / "config.json")))
        return _size(known, _weight_bytes(folder), 0, step)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None  # the backend that loads it says what is wrong


def _architecture(config: Mapping[str, Any]) -> Architecture:
    text, vision = config.get("text_config", config), config.get("vision_config", {})
    hidden, inner, layers, heads = (
        _count(text[name]) for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    )
    kv_heads = _count(text.get("num_key_value_heads") or heads)
    head_size = _count(text.get("head_dim") or hidden // heads)
    block = 2 * hidden * heads * head_size + 2 * hidden * kv_heads * head_size + 3 * hidden * inner
    tokens = (_count(vision["image_size"]) // _count(vision["patch_size"])) ** 2 if "patch_size" in vision else 0
    return Architecture(
        block_parameters=layers * block,
        other_parameters=2 * _count(text["vocab_size"]) * hidden,
        layers=layers,
        kv_heads=kv_heads,
        head_size=head_size,
        context=_count(text["max_position_embeddings"]),
        image_tokens=tokens,
    )


def _count(value: Any) -> int:
    """A size in a model's configuration. Raises ``TypeError``: a text or list times a number fills the memory."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected a whole number, found {type(value).__name__}")
    return value


def _weight_bytes(folder: Path) -> int:
    """Bytes of the weight files, or those that their index announces before they are all here."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return int(json.loads(read_text(index))["metadata"]["total_size"])
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _omg_llava_size(folder: Path, step: StepConfig) -> ModelSize:
    """Counted on a model without storage where torch is installed; a converted folder has its own configuration."""
    known = ARCHITECTURES["omg-llava"]
    if util.find_spec("torch") is None or util.find_spec("transformers") is None:
        vision, language, activations = OMG_LLAVA_BYTES
        return _size(known, vision + language, activations, step)
    # The one model of our own: it comes later in the library and needs torch.
    from talking_points.models.omg_llava.configuration import OmgLlavaConfig
    from talking_points.models.omg_llava.memory import on_meta, plan_inference
    from talking_points.models.omg_llava.modeling import OmgLlavaModel

    with loading(folder, "OMG-LLaVA model"):
        config = OmgLlavaConfig.from_pretrained(folder) if (folder / "config.json").is_file() else OmgLlavaConfig()
    model, text = on_meta(OmgLlavaModel, config), config.text_config
    known = replace(
        known,
        block_parameters=sum(parameter.numel() for parameter in model.parameters()),
        other_parameters=0,
        layers=text.num_hidden_layers,
        kv_heads=text.num_key_value_heads,
        head_size=text.head_dim,
        context=text.max_position_embeddings,
    )
    rows = plan_inference(model).rows
    weights = sum(size for name, size in rows.items() if "weights" in name or "language model" in name)
    activations = sum(size for name, size in rows.items() if "activations" in name)
    return _size(known, weights, activations, step)
