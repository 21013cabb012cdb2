"""The dataset card: Hub metadata and prose, rendered from a build's manifest and nothing else.

The same manifest gives the same text, byte for byte. Keys of the manifest that a card needs are ``name``, ``seed``,
``fingerprint``, ``rows`` and ``sources``; every other part of the card appears when the manifest has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import yaml

from talking_points.dataset_schema import OPTIONAL_COLUMNS, SCORE, card_features, columns_with, declare_labels
from talking_points.descriptions.backends.protocol import STEPS
from talking_points.publishing.image_cells import ImageMode
from talking_points.publishing.markdown import Markdown, render_markdown
from talking_points.publishing.terms import citations, source_terms

_PUBLISHED: dict[ImageMode, str] = {
    "embed": "text, coordinates and the image files",
    "reference": "text, coordinates, paths and checksums, without pixels",
    "thumbnail": "text, coordinates, paths, checksums and small previews",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_FIGURES = ("composition", "examples", "lengths", "acceptance")
"""File stems of the figures that have a place in the card."""


def render_card(manifest: Mapping[str, Any], *, repo: str | None = None, audit: Mapping[str, Any] | None = None) -> str:
    """The text of ``README.md`` for a dataset folder, or for the Hub when ``repo`` ("org/name") is given.

    ``audit`` is the summary of the human check, where there was one. Raises ``KeyError`` when the manifest lacks one
    of the keys named above.
    """
    rows: Mapping[str, int] = manifest["rows"]
    splits = [split for split in ("train", "test") if rows.get(split)]
    modes = image_modes(manifest)
    figures = {PurePosixPath(path).stem: path for path in card_figures(manifest)}
    config = manifest.get("config", {})
    return render_markdown(
        "dataset_card.md.jinja",
        metadata=Markdown(_metadata(manifest, splits)),
        name=manifest["name"],
        repo=repo,
        partial=manifest.get("partial", False),
        splits=splits,
        rows=rows,
        total=sum(rows.values()),
        modes=sorted(set(modes.values())),
        columns=[
            {"name": name, "type": Markdown(_type_name(name)), "meaning": Markdown(text)}
            for name, (_, text) in columns_with(_further(manifest)).items()
        ],
        counts=[describe_source(name, counts, modes[name]) for name, counts in manifest["sources"].items()],
        availability={
            "objects_available": 0, "objects_sampled": 0, "pairs_available": 0, "pairs_sampled": 0,
            **manifest.get("availability", {}),
        },
        composition=manifest.get("composition", {}),
        lengths=manifest.get("lengths"),
        stages=manifest.get("stages", {}),
        cost=manifest.get("cost"),
        judge=manifest.get("judge"),
        near_duplicates=manifest.get("near_duplicates"),
        audit=audit,
        steps={step: manifest["steps"][step] for step in STEPS if step in manifest.get("steps", {})},
        keypoint_per=config.get("keypoints", {}).get("per", "image"),
        equal_shares=config.get("sampling", {}).get("equal_shares", True),
        seed=manifest["seed"],
        fingerprint=manifest["fingerprint"],
        created_with=manifest.get("created_with", {}),
        config=yaml.safe_dump(shareable(config), sort_keys=False, allow_unicode=True).strip(),
        citations=Markdown(citations(name for name, counts in manifest["sources"].items() if not counts.get("drawn"))),
        **{f"{figure}_figure": figures.get(figure) for figure in _FIGURES},
    )  # fmt: skip


def _further(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The optional columns of a dataset."""
    return (SCORE,) if manifest.get("judge") else ()


def image_modes(manifest: Mapping[str, Any]) -> dict[str, ImageMode]:
    """What the rows of each source carry of their images. ``images`` of a manifest is one mode, or one per source."""
    images: ImageMode | Mapping[str, ImageMode] = manifest.get("images", "embed")
    if isinstance(images, Mapping):
        return {name: images[name] for name in manifest["sources"]}
    return dict.fromkeys(manifest["sources"], images)


def card_figures(manifest: Mapping[str, Any]) -> list[str]:
    """Paths of the figures that the card shows. Examples show pixels, so they go where the pixels go."""
    hidden = () if set(image_modes(manifest).values()) == {"embed"} else ("examples",)
    paths = map(PurePosixPath, manifest.get("figures", ()))
    return [str(path) for path in paths if path.suffix == ".png" and path.stem in _FIGURES and path.stem not in hidden]


def _metadata(manifest: Mapping[str, Any], splits: list[str]) -> str:
    """The YAML block that the Hub reads: how to load the files, the types of their columns, what people search by."""
    from huggingface_hub import DatasetCardData

    configs = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    info: dict[str, Any] = {"features": card_features(declare_labels(manifest["sources"]), _further(manifest))}
    info |= describe_sizes(manifest, splits)
    data = DatasetCardData(
        language=["en"],
        license="other",
        license_name="terms-of-the-sources",
        license_details="Research use; see the section Terms for each source.",
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        multilinguality=["monolingual"],
        source_datasets=["extended"],
        size_categories=[size_category(sum(manifest["rows"].values()))],
        task_categories=["image-to-text", "keypoint-detection"],
        pretty_name=manifest["name"],
        tags=["keypoints", "pixel-grounding", "visual-grounding", "part-segmentation", "synthetic-captions"],
        configs=[{"config_name": "default", "data_files": configs}],
        dataset_info=info,
    )
    return data.to_yaml()


def describe_sizes(manifest: Mapping[str, Any], splits: list[str]) -> dict[str, Any]:
    """Rows and bytes of every split as ``dataset_info`` states them; nothing where a size is not known."""
    sizes = {
        split: sum(file["bytes"] for file in manifest.get("files", ()) if file["path"].startswith(f"data/{split}-"))
        for split in splits
    }
    if not all(sizes.values()):
        return {}
    listed = [
        {"name": split, "num_bytes": size, "num_examples": manifest["rows"][split]} for split, size in sizes.items()
    ]
    return {"splits": listed, "download_size": sum(sizes.values()), "dataset_size": sum(sizes.values())}


def size_category(rows: int) -> str:
    """The Hub's name for so many rows."""
    return next((name for limit, name in _SIZES if rows < limit), "1M<n<10M")


def describe_source(name: str, counts: Mapping[str, Any], mode: ImageMode) -> dict[str, Any]:
    """What a card says of one source: its terms and its counts in the manifest."""
    terms = source_terms(name, drawn=counts.get("drawn", False))
    splits = {split: counts.get(split, 0) for split in ("train", "test")}
    return {
        "name": name,
        "title": Markdown(terms.title),
        "homepage": Markdown(terms.homepage or ""),
        "terms": Markdown(terms.terms),
        "published": Markdown(_PUBLISHED[mode]),
        "splits": splits,
        "rows": sum(splits.values()),
        **{key: counts.get(key, 0) for key in ("images", "objects", "pairs")},
        "skipped": counts.get("skipped", {}),
    }


def _type_name(column: str) -> str:
    """The type of a column as a reader of a table wants it, e.g. ``list<float32>[4]``."""
    if column in ("image", "source"):
        return {"image": "Image", "source": "ClassLabel"}[column]
    kind = columns_with(OPTIONAL_COLUMNS)[column][0]
    if pa.types.is_struct(kind):
        return "struct"
    if pa.types.is_fixed_size_list(kind):
        return f"list<float32>[{kind.list_size}]"
    return "list<string>" if pa.types.is_list(kind) else str(kind).replace("float", "float32")


def shareable(value: Any) -> Any:
    """The configuration without folders of the machine that made the dataset, and without settings left unset."""
    if not isinstance(value, Mapping):
        return value
    kept = {key: shareable(item) for key, item in value.items() if key not in {"output", "root", "folder"}}
    return {key: item for key, item in kept.items() if item is not None and item != {}}
