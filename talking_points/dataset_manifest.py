"""``manifest.json`` of a dataset: one schema and one way to read it, whoever wrote it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from talking_points.config import fingerprint
from talking_points.dataset_files import DatasetError, check_name, dataset_file
from talking_points.json_depth import check_depth
from talking_points.nearby import folder_near
from talking_points.records import REGION_LABELS, STEPS
from talking_points.regular_files import read_bytes
from talking_points.whole_files import file_sha256

AUDIT_REPORT = "audit/report.json"
"""Summary of the human check inside a dataset folder; part of the card when it is there."""


_HALVES = re.compile(r"[\ud800-\udfff]")
"""Halves of characters, which JSON can spell and UTF-8 cannot."""


def _plain(text: str) -> str:
    """Text on one line that a terminal and a card may show."""
    if not text.isprintable():
        raise ValueError("expected one line of printable text")
    return text


def _data(name: str) -> str:
    if not check_name(name).startswith("data/"):
        raise ValueError(f"expected data/*.parquet, found {name!r}")
    return name


def _figure(name: str) -> str:
    if not check_name(name).startswith("figures/"):
        raise ValueError(f"expected figures/*.png or figures/*.svg, found {name!r}")
    return name


def _source(name: str) -> str:
    if name not in REGION_LABELS:
        raise ValueError(f"expected one of {', '.join(REGION_LABELS)}")
    return name


Text = Annotated[str, Field(max_length=500), AfterValidator(_plain)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Split = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Source = Annotated[str, AfterValidator(_source)]
Counts = dict[Text, Count]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=10**12, allow_inf_nan=False)]
ImageMode = Literal["embed", "reference", "thumbnail"]


class _Part(BaseModel):
    """Unknown keys are kept: a newer version may say more."""

    model_config = ConfigDict(strict=True, extra="allow")


class _File(_Part):
    path: Annotated[str, AfterValidator(_data)]
    rows: Count = 0
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Count = 0


class _SourceCounts(_Part):
    train: Count = 0
    test: Count = 0
    points: Count = 0
    images: Count = 0
    objects: Count = 0
    pairs: Count = 0
    skipped: Counts = {}
    splits: Counts = Field(default={}, exclude_if=lambda found: not found)
    drawn: bool = False


class _Stage(_Part):
    rows_in: Count
    rows_out: Count
    rejected: Counts = {}
    rounds: Counts = {}


class _Step(_Part):
    backend: Text
    model: Text | None = None
    revision: Text | None = None
    revision_resolved: bool = True
    prompt_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]*$", max_length=64)] | None = None


class _Keypoints(_Part):
    per: Text = "image"


class _Sampling(_Part):
    equal_shares: bool = True


class _Config(_Part):
    """The settings that cards and reports read; all others are shown as they are."""

    images: ImageMode | None = None
    keypoints: _Keypoints = _Keypoints()
    sampling: _Sampling = _Sampling()
    crop: dict[str, Any] = {}


class _Lengths(_Part):
    min: Count
    median: Count | Annotated[float, Field(ge=0, allow_inf_nan=False)]
    max: Count
    mean: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Spent(_Part):
    requests: Count
    tokens_in: Count
    tokens_out: Count
    cost: Amount


class _Cost(_Part):
    """What the texts cost, by step; amounts are in ``currency``."""

    currency: Text
    total: Amount
    steps: dict[Text, _Spent]


class _Judged(_Part):
    rows: Count
    scored: Count
    mean: Annotated[float, Field(ge=-(10**12), le=10**12, allow_inf_nan=False)] | None


class _Judge(_Part):
    """Who judged the texts, and how the scores lie."""

    by: Literal["model", "localizer"]
    backend: Text | None = None
    model: Text
    revision: Text | None = None
    scale: Annotated[list[int], Field(min_length=2, max_length=2)] = [0, 1]
    shows: Text = "text"
    normalizer: Literal["image_wh", "bbox_max_side"] = "image_wh"
    reject_below: float | None = None
    sources: dict[Source, _Judged]
    histogram: Counts
    unscored: Counts = {}


class _NearDuplicates(_Part):
    """Texts that say almost the same, and how many rows were left out for it."""

    threshold: Share
    groups: Count
    rows: Count
    largest: Count
    removed: Count = 0


class _Points(_Part):
    mean: Amount
    max: Count


class _RoundTrip(_Part):
    mean: Share
    p10: Share
    min: Share


class _Regions(_Part):
    """Of an instruction dataset: how many regions it asks about, and what their outlines keep of the masks."""

    count: Count
    points: _Points
    round_trip_iou: _RoundTrip
    flags: Counts = {}


class _Phrasings(_Part):
    name: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(_Part):
    """What is required of every manifest, and the types of what it may say besides."""

    format_version: Literal[1] = 1
    name: Text
    fingerprint: Text
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    rows: Annotated[dict[Split, Count], Field(min_length=1)]
    sources: Annotated[dict[Source, _SourceCounts], Field(min_length=1)]
    files: list[_File]
    figures: list[Annotated[str, AfterValidator(_figure)]] = []
    images: ImageMode | dict[Source, ImageMode] = "embed"
    partial: bool = False
    config: _Config = _Config()
    created_with: dict[Text, Text] = {}
    composition: dict[Source, dict[Text, Counts]] = {}
    availability: Counts = {}
    stages: dict[Text, _Stage] = {}
    steps: dict[Text, _Step] = {}
    lengths: _Lengths | None = None
    cost: _Cost | None = None
    judge: _Judge | None = Field(default=None, exclude_if=lambda found: found is None)
    near_duplicates: _NearDuplicates | None = Field(default=None, exclude_if=lambda found: found is None)
    kind: Literal["triplets", "instructions"] = Field(default="triplets", exclude_if=lambda kind: kind == "triplets")
    kinds: dict[Split, Counts] = Field(default={}, exclude_if=lambda found: not found)
    regions: _Regions | None = Field(default=None, exclude_if=lambda found: found is None)
    phrasings: _Phrasings | None = Field(default=None, exclude_if=lambda found: found is None)
    unseen_evaluation_sets: list[Source] = Field(default=[], exclude_if=lambda names: not names)
    excludes_evaluation_images: bool | None = Field(default=None, exclude_if=lambda said: said is None)


class _Within(_Part):
    threshold: Share
    share: Share
    low: Share = 0.0
    high: Share = 1.0


class _CheckedSource(_Part):
    source: Source
    share: Share
    answers: Count


class AuditSummary(_Part):
    """``audit/report.json``: what people found, shares in [0, 1]."""

    answers: Count = 0
    people: Count = 0
    checked: Count = 0
    rows: Count = 0
    split: Split = "test"
    data: Text | None = None
    shares: list[_Within] = []
    cannot_tell: Share = 0.0
    sources: list[_CheckedSource] = []
    agreement: Share | None = None


def read_audit_summary(root: Path) -> dict[str, Any] | None:
    """The summary of the human check of the dataset in ``root``, None where there is none. Raises ``DatasetError``."""
    path = root / AUDIT_REPORT
    if not path.exists():
        return None
    return _read(dataset_file(root, AUDIT_REPORT), AuditSummary, "write it anew with 'talking-points audit --report'")


class _Origin(_Part):
    """What trainings and their cards say of the data, of finished datasets and of earlier versions' alike."""

    name: Text = ""
    sources: dict[Text, _SourceCounts] = {}


def read_origin(root: Path) -> tuple[str, dict[str, bool]]:
    """The name that the manifest in ``root`` gives the dataset, and of each source whether it is drawn.

    Raises ``DatasetError``.
    """
    found = _read(dataset_file(root, "manifest.json"), _Origin, "build the dataset again")
    return found["name"], {name: source["drawn"] for name, source in found["sources"].items()}


def read_manifest(root: Path, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """The manifest of the dataset in ``root``, all of whose values have been checked, with the keys ``needed``.

    The files that it names are not looked at. Raises ``DatasetError``.
    """
    path = root / "manifest.json"
    if not path.exists():
        raise DatasetError(
            f"no finished dataset in {root}{folder_near(root)}: expected {path}, which a build writes last; finish one "
            "first"
        )
    return _read(
        dataset_file(root, "manifest.json"), Manifest, "run the build again, or download the dataset again", needed
    )


def _read(path: Path, model: type[_Part], advice: str, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    try:
        content = read_bytes(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be used ({error.strerror}); {advice}") from error
    return read_content(content, path, model, advice, needed)


def read_content(
    content: bytes, path: Path, model: type[_Part], advice: str, needed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The object in the content of a JSON file with the defaults of ``model``, which accepts it.

    The configuration stays as it is written: cards show it, in its order. Of two equal keys the last one counts, as
    everywhere in JSON that Python reads. Raises ``DatasetError`` with the path.
    """
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
        check_depth(value)
        _check_values(value, ())
        found = model.model_validate(value)
        if isinstance(found, Manifest):
            _check_whole(value, needed)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    except RecursionError:
        reason = "its values are nested too deeply"
    except ValueError as error:
        reason = str(error)
    else:
        return {**value, **found.model_dump(exclude={"config"})}
    # The reason may quote the file: nothing in it reaches a terminal as a control character.
    raise DatasetError(f"{path} cannot be used ({ascii(reason[:300])[1:-1]}); {advice}")


def _check_whole(manifest: dict[str, Any], needed: tuple[str, ...]) -> None:
    """What the types of a manifest alone do not say."""
    missing = [key for key in needed if key not in manifest]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    if "steps" in needed and (absent := [step for step in STEPS if step not in manifest["steps"]]):
        raise ValueError(f"steps lacks {', '.join(absent)}")
    paths = [file["path"].lower() for file in manifest["files"]]
    if len(set(paths)) < len(paths):
        raise ValueError("files names one file twice")
    images = manifest.get("images")
    if isinstance(images, dict) and (absent := [name for name in manifest["sources"] if name not in images]):
        raise ValueError(f"images lacks {', '.join(absent)}")


def _check_values(value: Any, place: tuple[object, ...]) -> None:
    """What JSON can hold and neither a card nor another manifest can, wherever it lies. Raises ``ValueError``."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, place)
            _check_values(item, (*place, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_values(item, (*place, number))
    elif isinstance(value, str):
        _check_text(value, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{_show_place(place)}: expected a number that a float can hold")


def _check_text(text: str, place: tuple[object, ...]) -> None:
    if _HALVES.search(text):
        raise ValueError(f"{_show_place(place)}: expected text, found half a character (\\ud800 to \\udfff)")


def _show_place(place: tuple[object, ...]) -> str:
    return ".".join(map(str, place))[:200] or "the whole"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def dataset_digest(path: str, revision: str | None) -> str:
    """Names a dataset's content: the digests of a folder's data files, or the repository and its revision."""
    folder = Path(path)
    if not folder.is_dir():
        return f"{path}@{revision}"
    return fingerprint({file.name: file_sha256(file) for file in sorted(folder.glob("data/*.parquet"))})
