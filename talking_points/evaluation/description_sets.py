"""Descriptions of the same points by different authors: the dataset, our descriptor, a file, any vision model."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from talking_points.config import ConfigError
from talking_points.descriptions.asking import WholesaleFailure, ask
from talking_points.descriptions.backends import open_backend
from talking_points.descriptions.backends.protocol import Backend, ChatRequest, Completion, OnAnswer, RequestError
from talking_points.descriptions.request_cache import RequestCache
from talking_points.evaluation.config import MARKED_POINT, PROMPTED_POINT, DescriptionSet
from talking_points.examples.config import FeatureConfig
from talking_points.examples.inference import describe_points
from talking_points.examples.points import PointExample, PointSet
from talking_points.models.descriptor import PointDescriptor
from talking_points.models.omg_llava.lora import lora_disabled
from talking_points.parquet_sizes import refuse_large
from talking_points.records import derive_seed
from talking_points.regular_files import LINE, read_lines

_LOG = logging.getLogger(__name__)
_DECODED = 64
"""Points whose images are decoded together."""


def describe_set(
    points: PointSet, source: DescriptionSet, features: FeatureConfig, seed: int = 0, kept: Path | None = None
) -> PointSet:
    """The points with the texts of a description set; ``kept`` is a file for the answers of a model that is asked.

    Points that the set does not describe are left out. Raises ``ConfigError`` when that are all of them.
    """
    if source.descriptor is not None:
        model = PointDescriptor.from_pretrained(source.descriptor).eval()
        with _switch_adaptation_off(model, source) if source.before_adaptation else nullcontext():
            written = describe_points(model, points, features)
        texts = {example.id: text for example, text in zip(points.examples, written, strict=True)}
    elif source.file is not None:
        texts = read_descriptions(source.file)
    elif source.backend is not None:
        texts = ask_model(points, source, seed, kept)
    else:
        return points
    found = points.with_texts(texts)
    if not len(found):
        raise ConfigError(
            f"none of the {len(texts)} descriptions is of one of the {len(points)} points: compare the ids"
        )
    return found


def _switch_adaptation_off(model: PointDescriptor, source: DescriptionSet) -> AbstractContextManager[None]:
    if not model.config.lora_active or model.config.lora_last_blocks is None:
        raise ConfigError(
            f"{source.descriptor} has no adapters of an adaptation to switch off: expected the folder of an adapted "
            "descriptor, or a set without before_adaptation"
        )
    return lora_disabled(model.language_model)


def read_descriptions(path: Path) -> dict[str, str]:
    """Descriptions by point id from JSONL or Parquet with the columns id and description."""
    if not path.is_file():
        raise ConfigError(f"no descriptions at {path}: expected a JSONL or Parquet file")
    try:
        if path.suffix == ".parquet":
            refuse_large(path)
        table = pq.read_table(path) if path.suffix == ".parquet" else _read_lines(path)
        missing = {"id", "description"} - set(table.column_names)
        if missing:
            raise ConfigError(f"{path} lacks the columns {sorted(missing)}: found {table.column_names}")
        table = table.select(["id", "description"]).cast(pa.schema([("id", pa.string()), ("description", pa.string())]))
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = str(error).partition("\n")[0][:200]
        raise ConfigError(
            f"{path} cannot be read ({reason}): expected JSONL or Parquet with a text in 'id' and 'description' per row"
        ) from error
    ids, texts = table.column("id").to_pylist(), table.column("description").to_pylist()
    if len(set(ids)) != len(ids):
        raise ConfigError(f"{path} describes {len(ids) - len(set(ids))} points more than once: keep one row per id")
    return {key: text for key, text in zip(ids, texts, strict=True) if key and text}


def _read_lines(path: Path) -> pa.Table:
    """The columns id and description of a JSONL file, as text. Raises ``ValueError`` with the line.

    Arrow's own reader of JSON ends the process over some damaged files.
    """
    rows: list[dict[str, str | None]] = []
    found: set[str] = set()
    for number, line in enumerate(read_lines(path), start=1):
        if line is None:
            raise ValueError(f"line {number}: expected at most {LINE:,} bytes")
        if not line.strip():
            continue
        row = json.loads(line.decode("utf-8"))
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: expected an object, found {type(row).__name__}")
        found |= row.keys() & {"id", "description"}
        values = {name: row.get(name) for name in ("id", "description")}
        wrong = next((name for name, value in values.items() if isinstance(value, bool | list | dict)), None)
        if wrong is not None:
            raise ValueError(f"line {number}: expected a text in '{wrong}', found {type(values[wrong]).__name__}")
        rows.append({name: None if value is None else str(value) for name, value in values.items()})
    return pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in sorted(found)})


def ask_model(points: PointSet, source: DescriptionSet, seed: int = 0, kept: Path | None = None) -> dict[str, str]:
    """Descriptions by a vision model, which takes every point as a prompt or is shown it as a mark in its image.

    Answers are kept in the file ``kept`` as soon as they are there, so that an interrupted evaluation asks for the
    others only; what fails and may succeed gets a second chance. Points without a usable answer are left out, and a
    warning counts them. Raises ``ConfigError`` with the count and the first reason when that are all of them, or all
    of those that are asked first.
    """
    assert source.backend is not None
    step = source.backend
    if step.backend == "omg_llava" and source.question is None:
        # The model as it is: the row is comparable with what its authors report only in their own question.
        step = step.model_copy(update={"options": {"prompt_form": "region_caption", **step.options}})
    author = f"backend '{step.backend}' ({step.model})"
    backend = open_backend(step)
    try:
        with RequestCache(kept) if kept is not None else nullcontext() as cache:
            answers = ask(
                _KeepsCutTexts(backend), _requests(points, source, backend, seed), step, cache, as_caption=False
            )
    except WholesaleFailure as error:
        raise ConfigError(f"{author} described none: {error}") from error
    finally:
        backend.close()
    failed = [answer.error for answer in answers.values() if answer.error is not None]
    texts = {name: answer.text for name, answer in answers.items() if answer.error is None}
    if failed:
        found = f"{len(failed)} of {len(points)} points; the first reason: {failed[0].reason}: {failed[0].detail}"
        if not texts:
            raise ConfigError(f"{author} described none: no answer for {found}; check the model and the question")
        _LOG.warning("%s: no answer for %s; they are left out", author, found)
    return texts


class _KeepsCutTexts:
    """A backend whose answers count as finished where they were cut off: such a text still says where the point is."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.capabilities, self.identity, self.close = backend.capabilities, backend.identity, backend.close

    def complete(
        self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None
    ) -> list[Completion | RequestError]:
        announce = None if on_answer is None else lambda request, answer: on_answer(request, _accept_cut(answer))
        return [_accept_cut(answer) for answer in self._backend.complete(requests, announce)]


def _accept_cut(answer: Completion | RequestError) -> Completion | RequestError:
    if isinstance(answer, Completion) and answer.finish_reason == "length":
        return replace(answer, finish_reason="stop")
    return answer


def _requests(points: PointSet, source: DescriptionSet, backend: Backend, seed: int) -> Iterator[ChatRequest]:
    """The questions about all points, with the images of a few of them in memory at a time."""
    for start in range(0, len(points), _DECODED):
        batch = points.examples[start : start + _DECODED]
        images = {digest: np.asarray(image) for digest, image in points.images({e.image for e in batch})}
        for example in batch:
            yield _request(example, images[example.image], source, backend, seed)


def _request(
    example: PointExample, image: NDArray[np.uint8], source: DescriptionSet, backend: Backend, seed: int
) -> ChatRequest:
    """The question about one point; only a backend that takes no points sees a mark."""
    assert source.backend is not None
    points = backend.capabilities.points
    return ChatRequest(
        id=example.id,
        step="object_caption",
        prompt=source.question or (PROMPTED_POINT if points else MARKED_POINT),
        images=(image if points else draw_mark(image, example.keypoint),),
        facts={"keypoint": example.keypoint},
        seed=derive_seed(seed, example.id, "evaluate"),
        max_tokens=source.backend.max_tokens,
        temperature=source.backend.temperature,
    )


def draw_mark(image: NDArray[np.uint8] | Image.Image, point: Sequence[float]) -> NDArray[np.uint8]:
    """A copy of an image, uint8 RGB (height, width, 3), with a red circle round a point, outlined in white."""
    canvas = np.array(image, dtype=np.uint8)
    centre = (round(point[0]), round(point[1]))
    radius = max(4, round(max(canvas.shape[:2]) / 60))
    cv2.circle(canvas, centre, radius, (255, 255, 255), max(3, radius // 2), cv2.LINE_AA)
    cv2.circle(canvas, centre, radius, (230, 0, 0), max(1, radius // 4), cv2.LINE_AA)
    cv2.circle(canvas, centre, max(1, radius // 6), (230, 0, 0), -1, cv2.LINE_AA)
    return canvas
