"""What the paper's way needs from elsewhere: datasets and weights, where they come from, under which terms.

Checksums are only those that publishers give. None of the datasets has one that we know of; weights on the Hugging
Face Hub are fixed by their commit, and its client checks the digest of every file that it downloads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from talking_points.build_config import BuildConfig
from talking_points.errors import InputError
from talking_points.evaluation.reproduction import ReproduceConfig
from talking_points.models.weight_files import list_weights
from talking_points.sources import open_source
from talking_points.sources.protocol import SourceError
from talking_points.training.config import TrainConfig

_NO_CHECKSUM = "the publisher gives none"


@dataclass(frozen=True)
class Resource:
    """One dataset or set of weights. ``gigabytes`` are approximate; None where the publisher does not say."""

    name: str
    kind: str
    place: str
    licence: str
    expected: str
    setting: str
    checksum: str = _NO_CHECKSUM
    gigabytes: float | None = None


@dataclass(frozen=True)
class Found:
    """A resource with what of it is here and what is missing, as texts; nothing missing: it is complete."""

    resource: Resource
    found: str
    missing: str


_OV_PARTS = "https://github.com/OpenRobotLab/OV_PARTS (its data section)"
DATASETS = {
    "pascal_part116": Resource(
        "PascalPart116",
        "dataset",
        _OV_PARTS,
        "no licence stated; photographs of PASCAL VOC 2010, research use",
        "images and part masks in the layout of OV-PARTS",
        "sources.pascal_part116.root",
    ),
    "ade20k_part234": Resource(
        "ADE20KPart234",
        "dataset",
        _OV_PARTS,
        "photographs of ADE20K, non-commercial research and education",
        "images and part masks in the layout of OV-PARTS",
        "sources.ade20k_part234.root",
    ),
    "partimagenet": Resource(
        "PartImageNet",
        "dataset",
        "https://github.com/TACJu/PartImageNet",
        "no licence stated; photographs of ImageNet, non-commercial research and education",
        "images and annotations, either release",
        "sources.partimagenet.root",
    ),
    "ap10k": Resource(
        "AP-10K",
        "dataset",
        "https://github.com/AlexTheBad/AP-10K",
        "as its repository states; photographs of several datasets",
        "data/ and annotations/ap10k-{train,val,test}-split1.json",
        "keypoints.root",
    ),
}
RELEASE = Resource(
    "OMG-LLaVA",
    "weights",
    "https://huggingface.co/zhangtao-whu/OMG-LLaVA/tree/main",
    "as its repository states; its language model is InternLM2 (weights free for research, others by application)",
    "internlm2-chat-7b/, omg_seg_convl.pth, convnext_large_d_320_CocoPanopticOVDataset.pth, "
    "omg_llava_7b_finetune_8gpus.pth",
    "release",
    "the digests that the Hub shows beside each file",
    19.0,
)
_WEIGHTS = {
    "llava-hf/llava-1.5-7b-hf": ("Llama 2 Community License", 14.1),
    "casperhansen/llama-3.3-70b-instruct-awq": ("Llama 3.3 Community License", 39.8),
}


def find_resources(
    reproduce: ReproduceConfig,
    build: BuildConfig,
    train: TrainConfig,
    cached: Callable[[str, str | None], bool] | None = None,
) -> list[Found]:
    """All resources of the paper's way and whether they are here; nothing is downloaded and no network is asked.

    ``cached`` tells whether a model of the Hub is on this machine; it is replaced in tests.
    """
    cached = cached or _is_cached
    roots = {name: build.sources[name].root if name in build.sources else None for name in DATASETS if name != "ap10k"}
    found = [_dataset(name, root) for name, root in (roots | {"ap10k": train.keypoints.root}).items()]
    found.append(_release(reproduce))
    for step in ("local_caption", "generate"):
        section = build.step(step)
        model = section.model or ""
        if model not in _WEIGHTS and Path(model).exists():
            continue
        licence, size = _WEIGHTS.get(model, ("as its model card states", None))
        resource = Resource(
            model,
            "weights",
            f"https://huggingface.co/{model}",
            licence,
            "config.json, safetensors, tokenizer",
            f"{step}.model",
            f"commit {section.revision}; the Hub's client checks each file" if section.revision else _NO_CHECKSUM,
            size,
        )
        here = cached(model, section.revision)
        found.append(Found(resource, "in the Hub's cache" if here else "", "" if here else "not in the Hub's cache"))
    return found


def _dataset(name: str, root: Path | None) -> Found:
    resource = DATASETS[name]
    if root is None:
        return Found(resource, "", f"no folder is set: {resource.setting}")
    try:
        return Found(resource, str(open_source(name, root).root), "")
    except SourceError as error:
        return Found(resource, "", str(error))


def _release(config: ReproduceConfig) -> Found:
    if (config.converted / "config.json").is_file():
        return Found(RELEASE, f"converted: {config.converted}", "")
    here, missing = [], []
    for path in config.release:
        try:
            list_weights(path)
            here.append(str(path))
        except (InputError, OSError) as error:
            missing.append(str(error) if path.exists() else str(path))
    return Found(RELEASE, ", ".join(here), ", ".join(missing) or ("" if config.release else "no file is set: release"))


def _is_cached(model: str, revision: str | None) -> bool:
    return isinstance(try_to_load_from_cache(model, "config.json", revision=revision), str)
