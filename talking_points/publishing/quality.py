"""How good the texts of a build are, from its folder: acceptance, lengths, diversity, levels, and a page of examples.

``write_quality_report`` writes ``report/index.html`` (one file, images inside), ``report/examples.png``,
``report/close_ups.png`` and ``report/quality.json`` into a dataset's folder. The same dataset gives the same report.
"""

from __future__ import annotations

import base64
import io
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw
from sacrebleu.metrics.bleu import BLEU

from talking_points.build_config import CropConfig, NearDuplicatesConfig
from talking_points.dataset_files import (
    DatasetError,
    column_names,
    dataset_file,
    dataset_names,
    image_bytes,
    make_folder,
    read_groups,
    read_texts,
)
from talking_points.dataset_manifest import read_audit_summary, read_manifest
from talking_points.descriptions.backends.protocol import STEPS
from talking_points.descriptions.gaussian_crop import contact_sheet, gaussian_crop
from talking_points.descriptions.levels import split_levels
from talking_points.descriptions.near_duplicates import near_duplicate_texts, summary
from talking_points.descriptions.nouns import object_names, part_names
from talking_points.escaping import for_terminal
from talking_points.image_files import read_pixels, read_rgb
from talking_points.owners import refuse_closed
from talking_points.publishing.figures import SOURCE_TITLES, Example, example_grid, length_histogram
from talking_points.publishing.found import mpck_by_writer
from talking_points.publishing.row_checks import check_rows
from talking_points.records import LABELS, derive_seed
from talking_points.whole_files import write_json, write_text, writing_whole

FOLDER = "report"
EXAMPLES = 24
LEVELS = ("object_place", "part_place", "point_place", "look")

DISTINCT_TEXTS, SELF_BLEU_TEXTS = 1000, 100
"""Texts that the diversity is measured on: both measures depend on how many there are, so builds of any size are
compared on equally many, chosen by their ids."""

BEGINNING = 1500
"""Characters of a text that are measured, compared and shown: about 250 words. The time that the rest would take has
no bound; how many descriptions are longer is counted."""

_STAGES = ("index", "candidates", "sample", *STEPS, "verify", "judge")
_SAMPLED = ".work/sample"
"""Where a build keeps its sampled points, from which the category of a rejected row is known."""
_IMAGE_SIDE = 480
_NEEDED = ("config", "stages", "steps", "availability", "images", "partial")
"""What a manifest must say for a report to be made of it."""


Row = dict[str, Any]


def write_quality_report(
    output: str | Path, seed: int = 0, evaluation: Path | None = None, to: Path | None = None
) -> list[Path]:
    """Write the report of a finished dataset into the folder ``to``, by default ``<output>/report/``.

    Returns the files, the page first.

    ``seed`` chooses the examples; ``evaluation`` is the output of an evaluation of its descriptions, whose mPCK is
    told too. Raises ``DatasetError`` where ``output`` holds no finished dataset, ``ClosedError`` before any work where
    this user may not write.
    """
    root = Path(output)
    place = root / FOLDER if to is None else to
    refuse_closed(place)
    rows = read_rows(root)
    quality = measure(root, rows)
    if evaluation is not None:
        quality["found"] = mpck_by_writer(rows, evaluation)
    examples = choose_examples(rows, EXAMPLES, seed)
    add_images(root, examples)
    folder = make_folder(root, FOLDER) if to is None else make_folder(to.resolve(), "")
    page, numbers = folder / "index.html", folder / "quality.json"
    sheets = folder / "examples.png", folder / "close_ups.png"
    for path in (page, numbers, *sheets):
        if path.is_dir():
            raise DatasetError(f"expected a file, or none, at {path}, found a folder: remove it, then run this again")
    close_ups = _close_ups(examples, read_built(root))
    write_json(numbers, quality)
    write_text(
        page,
        render_page(
            "quality_report.html.jinja",
            quality=quality,
            examples=[{**row, "image_url": draw_image_url(row)} for row in examples],
            histogram=_histogram_url([row["description"] for row in rows]),
            close_ups=_data_url(close_ups, "JPEG", quality=85) if close_ups else None,
            titles=SOURCE_TITLES,
        ),
    )
    shown = [
        Example(np.asarray(marked[0]), marked[1], row["description"]) for row in examples if (marked := _draw_row(row))
    ]
    for sheet in sheets:
        sheet.unlink(missing_ok=True)
    if shown:
        with writing_whole(sheets[0]) as temporary:
            example_grid(shown, drawn := temporary.with_suffix(".png"), columns=4)
            drawn.replace(temporary)
    if close_ups:
        with writing_whole(sheets[1]) as temporary:
            close_ups.save(temporary, format="PNG")
    return [page, *(sheet for sheet in sheets if sheet.is_file()), numbers]


def read_built(root: Path) -> dict[str, Any]:
    """The manifest of a finished build, which says what its report needs. Raises ``DatasetError``."""
    return read_manifest(root, _NEEDED)


_TEXT_COLUMNS = [
    "id", "source", "object", "part", "part_bbox", "image_width", "image_height", "keypoint", "object_location",
    "part_location", "point_location", "object_caption", "local_caption", "draft", "description", "flags",
]  # fmt: skip


def read_rows(root: Path) -> list[Row]:
    """All rows without their images, sources by name, with ``file`` where each came from.

    Of texts the ``BEGINNING``; ``cut`` says whether the description is longer.
    """
    rows = []
    manifest = read_manifest(root)
    check_rows(root, manifest)
    for file in manifest["files"]:
        for table in read_groups(dataset_file(root, file["path"]), _TEXT_COLUMNS):
            cut = pc.greater(pc.utf8_length(table["description"]), BEGINNING).to_pylist()
            for row, longer in zip(_beginnings(table).to_pylist(), cut, strict=True):
                rows.append(row | {"source": LABELS[row["source"]], "file": file["path"], "cut": longer})
    if not rows:
        raise DatasetError(f"the dataset in {root} has no rows: there is nothing to report on")
    return rows


def _beginnings(table: pa.Table) -> pa.Table:
    """The rows with the ``BEGINNING`` of every text but the id, by which a row is told."""
    for number, field in enumerate(table.schema):
        if field.name != "id" and pa.types.is_string(field.type):
            table = table.set_column(number, field, pc.utf8_slice_codeunits(table[field.name], 0, BEGINNING))
    return table


def add_images(root: Path, rows: Sequence[Row]) -> None:
    """Read the image of each row, None where the dataset has none, into its ``image``."""
    wanted = {row["id"]: row for row in rows}
    for name in sorted({row["file"] for row in rows}):
        for table in read_groups(dataset_file(root, name), ("id", "image")):
            for row, image in zip(table["id"].to_pylist(), image_bytes(table["image"]), strict=True):
                if row in wanted:
                    wanted[row]["image"] = image


def choose_examples(rows: Iterable[Row], count: int, seed: int) -> list[Row]:
    """Rows at random, the same for a seed wherever they are the same rows."""
    return sorted(rows, key=lambda row: derive_seed(seed, row["id"], "report"))[:count]


def measure(root: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """The report's numbers as JSON values; shares are in [0, 1]."""
    manifest = read_built(root)
    texts = [row["description"] for row in rows]
    words = [len(text.split()) for text in texts]
    chosen = [row["description"] for row in choose_examples(rows, DISTINCT_TEXTS, 0)]
    quality = {
        "name": manifest["name"],
        "fingerprint": manifest["fingerprint"],
        "partial": manifest["partial"],
        "steps": {step: manifest["steps"][step] for step in STEPS},
        "rows": manifest["rows"],
        **_acceptance(root, rows, manifest),
        "words": {
            "min": min(words),
            "mean": round(statistics.fmean(words), 2),
            "median": statistics.median(words),
            "max": max(words),
        },
        "distinct": {f"distinct_{n}": distinct_n(chosen, n) for n in (1, 2, 3)},
        "self_bleu": self_bleu(chosen[:SELF_BLEU_TEXTS]),
        "levels": level_shares(rows),
        "near_duplicates": _near_duplicates(texts, manifest),
        "flags": dict(Counter(flag for row in rows for flag in row["flags"]).most_common()),
    }
    if longer := sum(row["cut"] for row in rows):
        quality["longer"] = {"characters": BEGINNING, "descriptions": longer}
    if manifest.get("judge"):
        quality["judge"] = manifest["judge"]
    return quality | {"paper": compare_with_paper(quality, manifest, _describe_audit(root))}


def _near_duplicates(texts: Sequence[str], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Texts that say almost the same, by the threshold of the build where it had one, and one of the largest group."""
    section = manifest["config"].get("near_duplicates")
    threshold = section.get("threshold") if isinstance(section, Mapping) else None
    if not isinstance(threshold, float) or not 0 < threshold <= 1:
        threshold = NearDuplicatesConfig().threshold
    groups = near_duplicate_texts(texts, threshold)
    largest = max(groups, key=len, default=[])
    return summary(groups, threshold) | {"example": texts[largest[0]] if largest else ""}


def _acceptance(root: Path, rows: Sequence[Row], manifest: Mapping[str, Any]) -> dict[str, Any]:
    stages = {
        name: {
            "rows_in": stage["rows_in"],
            "rows_out": stage["rows_out"],
            "accepted": round(stage["rows_out"] / max(stage["rows_in"], 1), 4),
            "rejected": stage.get("rejected", {}),
            "rounds": stage.get("rounds", {}),
        }
        for name, stage in sorted(
            manifest["stages"].items(),
            key=lambda entry: (_STAGES.index(entry[0]) if entry[0] in _STAGES else len(_STAGES), entry[0]),
        )
    }
    refused = [
        row
        for name in dataset_names(root, "rejected/*.parquet")
        for row in read_texts(root / name, ("id", "source", "stage", "reason")).to_pylist()
    ]
    reasons = Counter(f"{row['stage']}: {row['reason']}" for row in refused)
    # Rows that listing and keypoints left out have no point yet, and no category.
    objects = _read_sampled_objects(root, {row["id"] for row in refused})
    points = [row for row in refused if row["id"] in objects]
    return {
        "stages": stages,
        "sources": _shares([row["source"] for row in rows], [row["source"] for row in points]),
        "categories": _shares([row["object"] for row in rows], [objects[row["id"]] for row in points]),
        "reasons": dict(reasons.most_common()),
    }


def _read_sampled_objects(root: Path, ids: set[str]) -> dict[str, str]:
    """Category of the sampled points among ``ids``; empty where the build's intermediate files are gone."""
    found: dict[str, str] = {}
    for path in sorted((root / _SAMPLED).glob("*.parquet")) if ids else []:
        if {"id", "object"} <= set(column_names(path)):
            table = read_texts(path, ("id", "object"))
            pairs = zip(table["id"].to_pylist(), table["object"].to_pylist(), strict=True)
            found.update({row: name for row, name in pairs if row in ids})
    return found


def _shares(accepted: Iterable[str], rejected: Iterable[str]) -> dict[str, dict[str, Any]]:
    kept, refused = Counter(accepted), Counter(rejected)
    return {
        name: {
            "accepted": kept[name],
            "rejected": refused[name],
            "share": round(kept[name] / (kept[name] + refused[name]), 4),
        }
        for name in sorted(kept | refused, key=lambda name: (-kept[name], name))
    }


def distinct_n(texts: Iterable[str], n: int) -> float:
    """Share of different n-grams among all n-grams of the texts, words in lower case (Li et al. 2016)."""
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = text.lower().split()
        grams.update(zip(*(words[start:] for start in range(n)), strict=False))
    return round(len(grams) / max(grams.total(), 1), 4)


def self_bleu(texts: Sequence[str]) -> float | None:
    """Mean BLEU-4 of each text with all others as references, in [0, 1]: low is diverse (Zhu et al. 2018).

    None for fewer than two texts.
    """
    if len(texts) < 2:
        return None
    bleu = BLEU(effective_order=True, lowercase=True)
    scores = [
        bleu.sentence_score(text, [*texts[:number], *texts[number + 1 :]]).score for number, text in enumerate(texts)
    ]
    return round(statistics.fmean(scores) / 100, 4)


def level_shares(rows: Sequence[Row]) -> dict[str, float]:
    """Share of the rows that name each of the paper's four levels (section 3.1)."""
    named: Counter[str] = Counter()
    for row in rows:
        levels = split_levels(row["description"], object_names(row["object"]), part_names(row["object"], row["part"]))
        # What is left behind the last place may be no more than the full stop.
        named.update(level for level in LEVELS if any(char.isalpha() for char in getattr(levels, level) or ""))
    return {level: round(named[level] / len(rows), 4) for level in LEVELS}


def compare_with_paper(
    quality: Mapping[str, Any], manifest: Mapping[str, Any], audited: str | None
) -> list[dict[str, str]]:
    """What the paper says about its dataset (sections 1 and 3.1, figure 6), and the same of this one."""
    rows, reach = manifest["rows"], manifest["availability"]
    sources = manifest["sources"].values()
    total = sum(rows.values())
    equal = ", ".join(f"{100 * source.get('points', 0) / max(total, 1):.1f} %" for source in sources)
    return [
        {"what": "triplets", "paper": "20K+", "ours": f"{total:,}"},
        {"what": "train / test", "paper": "17K / 4K", "ours": f"{rows.get('train', 0):,} / {rows.get('test', 0):,}"},
        {"what": "shares of the sources", "paper": "equal", "ours": equal},
        {"what": "object categories", "paper": "64", "ours": str(reach.get("objects_sampled", 0))},
        {"what": "part categories", "paper": "297", "ours": f"{reach.get('pairs_sampled', 0)} (object, part) pairs"},
        {
            "what": "easily localized, by people, 5 % of the test set",
            "paper": "> 91 %",
            "ours": audited or "not checked yet: talking-points audit",
        },
    ]


def _describe_audit(root: Path) -> str | None:
    """What people could localize, in words, where the human check has been made."""
    audit = read_audit_summary(root) or {"shares": []}
    shares = audit["shares"]
    return ", ".join(f"{100 * share['share']:.1f} % within {share['threshold']}" for share in shares) or None


def render_page(template: str, **values: Any) -> str:
    """A page of ``data_cards``; every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (resources.files("data_cards") / name).read_text(encoding="utf-8")),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=lambda value: for_terminal(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    return environment.get_template(template).render(**values)


def draw_image_url(row: Mapping[str, Any]) -> str | None:
    """The row's image, small, with a ring around its point, as a data URL; None where the dataset has no pixels."""
    shown = _draw_row(row)
    if shown is None:
        return None
    image, (x, y) = shown
    draw = ImageDraw.Draw(image)
    for color, radius, width in (("white", 13, 6), ("#E00000", 12, 3)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=color, width=width)
    return _data_url(image, "JPEG", quality=80)


def _draw_row(row: Mapping[str, Any]) -> tuple[Image.Image, tuple[float, float]] | None:
    """The row's image at the size of the page, and its point in it."""
    if not row["image"]:
        return None
    image = read_rgb(row["image"])
    image.thumbnail((_IMAGE_SIDE, _IMAGE_SIDE))
    # Pixel centres are integers, so the image's edge is at -0.5 in both.
    scale = image.width / row["image_width"], image.height / row["image_height"]
    x, y = ((value + 0.5) * factor - 0.5 for value, factor in zip(row["keypoint"], scale, strict=True))
    return image, (x, y)


def _close_ups(rows: Sequence[Row], manifest: Mapping[str, Any]) -> Image.Image | None:
    """The Gaussian-weighted crops that the local captions are about; None where the dataset has not the full pixels."""
    if manifest["images"] != "embed":
        return None
    config = CropConfig.model_validate(manifest["config"].get("crop", {}))
    crops = []
    for row in rows:
        crops.append(gaussian_crop(read_pixels(row["image"]), row["keypoint"], row["part_bbox"], config))
    return Image.fromarray(contact_sheet(crops, [f"{row['object']}, {row['part']}" for row in rows]))


def _histogram_url(texts: Sequence[str]) -> str:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lengths.png"
        length_histogram([len(text.split()) for text in texts], path)
        return _data_url(read_rgb(path), "PNG")


def _data_url(image: Image.Image, kind: str, **options: Any) -> str:
    encoded = io.BytesIO()
    image.save(encoded, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(encoded.getvalue()).decode()}"
