"""The card of an instruction dataset, rendered from its manifest and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import yaml

from talking_points.dataset_schema import list_card_features
from talking_points.instructions.elements import KINDS
from talking_points.instructions.schema import COLUMNS
from talking_points.publishing.card import describe_sizes, describe_source, image_modes, shareable, size_category
from talking_points.publishing.markdown import Markdown, render_markdown
from talking_points.publishing.terms import citations, source_terms

_TYPES = {"image": "Image", "mask": "struct"}


def render_instruction_card(manifest: Mapping[str, Any], *, repo: str | None = None) -> str:
    """The text of ``README.md`` for a dataset folder, or for the Hub when ``repo`` ("org/name") is given."""
    rows: Mapping[str, int] = manifest["rows"]
    splits = [split for split in ("train", "test") if rows.get(split)]
    modes = image_modes(manifest)
    sources = manifest["sources"]
    kinds = manifest.get("kinds", {})
    return render_markdown(
        "instruction_card.md.jinja",
        metadata=Markdown(_metadata(manifest, splits)),
        name=manifest["name"],
        repo=repo,
        partial=manifest.get("partial", False),
        splits=splits,
        rows=rows,
        total=sum(rows.values()),
        modes=sorted(set(modes.values())),
        columns=[
            {"name": name, "type": Markdown(_type_name(name, kind)), "meaning": Markdown(text)}
            for name, (kind, text) in COLUMNS.items()
        ],
        counts=[
            {
                **describe_source(name, found, modes[name]),
                "by_split": found.get("splits", {}),
                "left_out": found.get("skipped", {}).get("evaluation_image", 0),
            }
            for name, found in sources.items()
        ],
        kinds={
            kind: {split: kinds.get(split, {}).get(kind, 0) for split in splits}
            for kind in KINDS
            if any(kinds.get(split, {}).get(kind) for split in splits)
        },
        regions=manifest.get("regions"),
        excludes=manifest.get("excludes_evaluation_images", True),
        unseen=[source_terms(name).title for name in manifest.get("unseen_evaluation_sets", [])],
        phrasings=manifest.get("phrasings") or {"name": "", "sha256": ""},
        stages=manifest.get("stages", {}),
        seed=manifest["seed"],
        fingerprint=manifest["fingerprint"],
        created_with=manifest.get("created_with", {}),
        config=yaml.safe_dump(shareable(manifest.get("config", {})), sort_keys=False, allow_unicode=True).strip(),
        citations=Markdown(citations((name for name, found in sources.items() if not found.get("drawn")), "simpleseg")),
    )


def _metadata(manifest: Mapping[str, Any], splits: list[str]) -> str:
    """The YAML block that the Hub reads."""
    from huggingface_hub import DatasetCardData

    configs = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    data = DatasetCardData(
        language=["en"],
        license="other",
        license_name="terms-of-the-sources",
        license_details="Research use; see the section Terms for each source.",
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated", "found"],
        multilinguality=["monolingual"],
        source_datasets=["extended"],
        size_categories=[size_category(sum(manifest["rows"].values()))],
        task_categories=["image-segmentation", "image-text-to-text"],
        pretty_name=manifest["name"],
        tags=["referring-expression-segmentation", "visual-grounding", "part-segmentation", "polygons"],
        configs=[{"config_name": "default", "data_files": configs}],
        dataset_info={"features": list_card_features(COLUMNS), **describe_sizes(manifest, splits)},
    )
    return data.to_yaml()


def _type_name(name: str, kind: pa.DataType) -> str:
    if name in _TYPES:
        return _TYPES[name]
    if pa.types.is_fixed_size_list(kind):
        return f"list<float32>[{kind.list_size}]"
    return "list<string>" if pa.types.is_list(kind) else str(kind).replace("float", "float32")
