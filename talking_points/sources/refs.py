"""The expressions of refCOCO, refCOCO+ and refCOCOg: which annotation each refers to, and its split.

They come as pickles, ``refs(unc).p``, beside ``instances.json``, or as Parquet mirrors with the annotation in each row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from talking_points.parquet_sizes import refuse_large
from talking_points.regular_files import open_regular
from talking_points.sources.plain_pickle import NoListError, UnsafePickleError, stream_plain
from talking_points.sources.protocol import SourceError

REQUIRED = ("ann_id", "image_id", "ref_id", "sentences", "split")

_BATCH = 256

Skip = Callable[[str, str], None]
"""Counts one thing left out, by reason and with a detail: ``Source.skip``."""


@dataclass(frozen=True)
class Ref:
    """One reference to one annotation. ``expressions``: stripped, lower case, never empty; at least one of them."""

    ann_id: int
    image_id: int
    split: str
    expressions: tuple[str, ...]


LONGEST, MOST_SENTENCES = 1000, 100
"""Characters of a phrase, phrases of an object. In a pickle a small file can say one long text a thousand times."""


def read_pickled_refs(path: Path, skip: Skip) -> Iterator[Ref]:
    """The usable references of a refs file, in its order, one after the other; the others are counted.

    Raises ``SourceError`` for a file that is no pickle of plain data, at once where it would run something, and at the
    end for one that describes no list, or whose entries all lack keys.
    """
    entries, usable = 0, False
    missing: tuple[str, ...] = REQUIRED
    try:
        with open_regular(path) as file:
            for entry in stream_plain(file):
                entries += 1
                if not isinstance(entry, dict):
                    skip("malformed_ref", f"{path.name}: no mapping")
                    continue
                if not usable:
                    lacking = tuple(key for key in REQUIRED if key not in entry)
                    usable, missing = not lacking, missing if missing != REQUIRED else lacking
                ref = parse_ref(entry, path.name, skip)
                if ref is not None:
                    yield ref
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}; expected a refs file there") from error
    except NoListError as error:
        raise SourceError(f"expected a list of references in {path}, found {error}") from error
    except UnsafePickleError as error:
        raise SourceError(
            f"expected a pickle of plain lists, mappings, texts and numbers in {path}; {error}; "
            "it is refused as unsafe: nothing in it was run; download the file again from its publisher"
        ) from error
    if entries and not usable:
        raise SourceError(
            f"expected references with the keys {', '.join(REQUIRED)} in {path}; missing: {', '.join(missing)}"
        )


def parse_ref(entry: Mapping[str, Any], where: str, skip: Skip) -> Ref | None:
    """A reference from its raw entry; None, and counted, where it cannot be used.

    Values are not printed: in a pickle a small file can describe a value that is endless to print.
    """
    numbers = [_integer(entry.get(key)) for key in ("ann_id", "image_id", "ref_id")]
    ann_id, image_id, ref_id = numbers
    split, sentences = entry.get("split"), entry.get("sentences")
    if ann_id is None or image_id is None or ref_id is None or not isinstance(split, str):
        skip("malformed_ref", f"{where}: expected numbers as ids and a text as split")
        return None
    if not isinstance(sentences, list):
        skip("malformed_ref", f"{where}: ref {ref_id} without a list of sentences")
        return None
    if len(sentences) > MOST_SENTENCES:
        skip(
            "malformed_ref", f"{where}: ref {ref_id} with {len(sentences)} sentences, expected at most {MOST_SENTENCES}"
        )
        return None
    expressions = tuple(text for sentence in sentences if (text := _expression(sentence)))
    if not expressions:
        skip("ref_without_sentence", f"{where}: ref {ref_id}")
        return None
    return Ref(ann_id, image_id, split, expressions)


def _integer(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _expression(sentence: Any) -> str:
    """What is asked for: ``sent`` stripped and in lower case, ``raw`` where it is missing; none that is no phrase."""
    if not isinstance(sentence, Mapping):
        return ""
    text = sentence.get("sent")
    text = text if isinstance(text, str) else sentence.get("raw")
    if not isinstance(text, str) or len(text) > LONGEST or not any(character.isalnum() for character in text):
        return ""
    return " ".join(text.lower().split()).encode(errors="replace").decode()


@dataclass(frozen=True)
class MirroredRef:
    """A row of a Parquet mirror: the reference, its raw COCO annotation and its raw COCO image."""

    ref: Ref
    annotation: Mapping[str, Any]
    image: Mapping[str, Any]


_COLUMNS = ("ann_id", "image_id", "ref_id", "sentences", "split", "raw_anns", "raw_image_info")


def read_mirrored_refs(path: Path, skip: Skip) -> Iterator[MirroredRef]:
    """The usable rows of one Parquet file of a mirror, a batch at a time; the others are counted.

    Raises ``SourceError`` for a file that is no Parquet, or without the columns that name the annotation. The column
    ``bbox`` is not read: the annotation's own box is in one known form.
    """
    for row in _rows(path, _COLUMNS):
        annotation, image = (_json_mapping(row[key]) for key in ("raw_anns", "raw_image_info"))
        if annotation is None or image is None:
            skip("malformed_ref", f"{path.name}: raw_anns or raw_image_info is no JSON mapping")
            continue
        ref = parse_ref(row, path.name, skip)
        if ref is not None:
            yield MirroredRef(ref, annotation, image)


def read_mirrored_splits(path: Path) -> Iterator[tuple[int | None, Any]]:
    """(image id, split) of every row of one Parquet file of a mirror; None for what is no whole number."""
    return ((_integer(row["image_id"]), row["split"]) for row in _rows(path, ("image_id", "split")))


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    try:
        refuse_large(path, columns)
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise SourceError(
                    f"expected the columns {', '.join(columns)} in {path}; missing: {', '.join(missing)}; "
                    "use a mirror with whole annotations, or the refs files themselves"
                )
            for batch in file.iter_batches(_BATCH, columns=list(columns)):
                yield from batch.to_pylist()
    except SourceError:
        raise
    except (ValueError, LookupError, OSError) as error:  # of Arrow, and of what Python makes of its columns
        raise SourceError(f"cannot read {path}: {error}; download it again") from error


def _json_mapping(value: Any) -> Mapping[str, Any] | None:
    """What JSON text of a mapping, or of a list of one mapping, says; None for anything that could not be stored."""
    if not isinstance(value, str | bytes):
        return None
    try:
        value = json.loads(value, parse_int=_bound_integer)
        json.dumps(value, ensure_ascii=False).encode()  # escapes can spell halves of characters
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    return value if isinstance(value, Mapping) else None


def _bound_integer(digits: str) -> int | float:
    """Numbers that no database column holds become floats, as in other readers of JSON."""
    return int(digits) if len(digits) < 19 else float(digits)
