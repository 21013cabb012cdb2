"""The published dataset: one Arrow schema, declared once, with the feature metadata that ``datasets`` reads.

``load_dataset`` takes the types of the columns from the ``huggingface`` entry of a Parquet file's schema (and from
the card). Both are derived here from the Arrow types, so that they cannot disagree, and without importing
``datasets``: the writer of the files does not need it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from talking_points.records import LABELS, SOURCES, STEPS

if TYPE_CHECKING:
    import datasets

_BOX = pa.list_(pa.float32(), 4)
_POINT = pa.list_(pa.float32(), 2)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_STEP = pa.struct([(name, pa.string()) for name in ("backend", "model", "revision", "prompt_sha256")])
_PROVENANCE = pa.struct([*((step, _STEP) for step in STEPS), ("seed", pa.int64())])

COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "id": (pa.string(), "stable content hash of source, image, instance, part and keypoint"),
    "image": (IMAGE, "the source file's own bytes, EXIF orientation set to 1; null where no pixels are published"),
    "image_id": (pa.string(), "identity of the image in its source dataset"),
    "image_path": (pa.string(), "path of the image relative to the source's root"),
    "image_sha256": (pa.string(), "sha256 of the source file's bytes"),
    "image_width": (pa.int32(), "pixels, of the source image"),
    "image_height": (pa.int32(), "pixels, of the source image"),
    "source": (pa.int64(), "class label: " + ", ".join(SOURCES)),
    "object": (pa.string(), "object category, as the source spells it, cleaned for reading"),
    "part": (pa.string(), "part category, as the source spells it, cleaned for reading"),
    "object_bbox": (_BOX, "[x, y, width, height] of the object, pixels of the source image"),
    "part_bbox": (_BOX, "[x, y, width, height] of the part, pixels of the source image"),
    "instance_index": (pa.int32(), "rank of the object among those of its category, from the left, starting at 0"),
    "instance_count": (pa.int32(), "how many objects of the category the image has"),
    "keypoint": (_POINT, "[x, y], pixels of the source image; integers are pixel centres, y points down"),
    "keypoint_normalized": (_POINT, "[x / image_width, y / image_height], each in [0, 1)"),
    "sift_response": (pa.float32(), "strength of the winning SIFT keypoint"),
    "sift_size": (pa.float32(), "diameter of its neighbourhood, pixels"),
    "sift_angle": (pa.float32(), "its orientation, degrees clockwise in [0, 360)"),
    "object_location": (pa.string(), "where the object is in the image, in words"),
    "part_location": (pa.string(), "where the part is in the object, in words"),
    "point_location": (pa.string(), "where the point is in the part, in words"),
    "object_caption": (pa.string(), "caption of the object in its scene"),
    "local_caption": (pa.string(), "caption of the Gaussian-masked crop around the point"),
    "draft": (pa.string(), "result of the generation step"),
    "description": (pa.string(), "result of the refinement step: the text of the triplet"),
    "flags": (pa.list_(pa.string()), "warnings of the verifier that did not reject the row"),
    "provenance": (_PROVENANCE, "backend, model, revision and prompt digest of every step, and the seed"),
}
"""Arrow type and meaning of every column, in the published order. Left and right are always the viewer's."""

SCORE = "judge_score"

OPTIONAL_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    SCORE: (pa.float32(), "how well the description leads to the point, by the judge; null where it gave none"),
}
"""Columns that follow these in datasets that were built with what makes them."""

PARQUET_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": [name for name, (kind, _) in COLUMNS.items() if kind == pa.string()]
    + [f"provenance.{step}.{field.name}" for step in STEPS for field in _STEP],
    "write_page_index": True,
    "use_content_defined_chunking": True,
}
"""Keyword arguments of ``pyarrow.parquet.ParquetWriter`` for published files.

The page index lets a viewer fetch single rows; content-defined chunking lets a new revision of the dataset upload
only what changed; pixels and coordinates are not worth a dictionary.
"""


def declare_labels(sources: Iterable[str]) -> tuple[str, ...]:
    """The names that the class label ``source`` of a dataset of these sources declares."""
    return SOURCES if set(sources) <= set(SOURCES) else LABELS


def columns_with(further: Iterable[str] = ()) -> dict[str, tuple[pa.DataType, str]]:
    """All columns of a dataset that has these of the optional ones."""
    return COLUMNS | {name: OPTIONAL_COLUMNS[name] for name in further}


def optional_in(names: Iterable[str]) -> tuple[str, ...]:
    """The optional ones among the columns of a file."""
    found = set(names)
    return tuple(name for name in OPTIONAL_COLUMNS if name in found)


def triplet_schema(labels: Sequence[str] = SOURCES, further: Iterable[str] = ()) -> pa.Schema:
    """The Arrow schema of the published files, with the metadata from which ``datasets`` restores the features."""
    return declare_features(columns_with(further), labels)


def declare_features(columns: Mapping[str, tuple[pa.DataType, str]], labels: Sequence[str] = ()) -> pa.Schema:
    """The Arrow schema of columns, with the metadata from which ``datasets`` restores their features.

    ``labels``: the names of a column ``source`` of numbers.
    """
    schema = pa.schema([pa.field(name, arrow_type) for name, (arrow_type, _) in columns.items()])
    metadata = {"info": {"features": {name: _feature(name, kind, labels) for name, (kind, _) in columns.items()}}}
    return schema.with_metadata({"huggingface": json.dumps(metadata)})


def features(labels: Sequence[str] = SOURCES) -> datasets.Features:
    """The columns as ``datasets.Features``: what ``load_dataset(...).features`` must equal."""
    from datasets import Features

    return Features.from_arrow_schema(triplet_schema(labels))


def card_features(labels: Sequence[str] = SOURCES, further: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The columns in the form of the ``dataset_info`` block of a dataset card."""
    return list_card_features(columns_with(further), labels)


def list_card_features(
    columns: Mapping[str, tuple[pa.DataType, str]], labels: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Columns in the form of the ``dataset_info`` block of a dataset card."""
    return [{"name": name, **_card_feature(name, kind, labels)} for name, (kind, _) in columns.items()]


def _feature(name: str, kind: pa.DataType, labels: Sequence[str] = ()) -> Any:
    """The JSON by which ``datasets`` names a type in a schema's metadata."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if name == "source" and pa.types.is_integer(kind):
        return {"names": list(labels), "_type": "ClassLabel"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.name, field.type) for field in kind}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature("", kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature("", kind.value_type), "_type": "List"}
    return {"dtype": _value_name(kind), "_type": "Value"}


def _card_feature(name: str, kind: pa.DataType, labels: Sequence[str] = ()) -> dict[str, Any]:
    """The YAML by which ``datasets`` names a type in a card."""
    if kind == IMAGE:
        return {"dtype": "image"}
    if name == "source" and pa.types.is_integer(kind):
        return {"dtype": {"class_label": {"names": {str(i): source for i, source in enumerate(labels)}}}}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": field.name, **_card_feature(field.name, field.type)} for field in kind]}
    if pa.types.is_fixed_size_list(kind):
        return {"list": _value_name(kind.value_type), "length": kind.list_size}
    if pa.types.is_list(kind):
        return {"list": _value_name(kind.value_type)}
    return {"dtype": _value_name(kind)}


def _value_name(kind: pa.DataType) -> str:
    return "float32" if pa.types.is_float32(kind) else str(kind)
