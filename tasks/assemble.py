"""Stage 8: split the verified rows by image, write the dataset's Parquet files, its figures and its card.

Everything is written beside the dataset that is already there, if any, and takes its place when complete.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NotRequired

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import PlainSerializer, SerializerFunctionWrapHandler, model_serializer
from typing_extensions import TypedDict

from talking_points.allocator import give_back_memory
from talking_points.build_config import BuildConfig, SamplingConfig, dataset_settings
from talking_points.candidates.counting import composition
from talking_points.candidates.sampling import Sample
from talking_points.candidates.splitting import near_duplicate_groups, split
from talking_points.config import Section, fingerprint
from talking_points.dataset_schema import PARQUET_OPTIONS, declare_labels, triplet_schema
from talking_points.descriptions.backends.protocol import STEPS
from talking_points.descriptions.model_identity import identify_model
from talking_points.descriptions.spending import StepPrices, cost_summary
from talking_points.publishing.image_cells import ImageMode, image_cell
from talking_points.records import LABELS, Candidate, source_label
from talking_points.sources.drawn import is_drawn
from talking_points.sources.protocol import SkippedImage
from talking_points.stop_requests import stop_if_requested
from tasks.judge import describe_judge, release_judge
from tasks.running.dataset_figures import draw_figures
from tasks.running.manifests import Details, Manifest
from tasks.running.repeated_texts import without_repeats
from tasks.running.shards import Inputs, Order, ShardFailed, ShardWriter, shard_task
from tasks.running.source_images import image_bytes
from tasks.running.stages import SPENT, STAGES
from tasks.running.staging import STAGING, count_stages, publish_staged, write_rejected
from tasks.running.storage import Storage
from tasks.running.text_shards import describe_step

VERSION = 2
PACKAGES = ("talking-points", "opencv-contrib-python", "pillow", "pyarrow", "numpy", "pycocotools", "prefect")

_LIGHT = ["id", "source", "object", "part", "image_id", "image_sha256", "image_phash", "image_width", "image_height"]


class StepIdentity(TypedDict):
    """Who wrote a step's texts. ``revision_resolved``: whether it is a commit or digest; absent without a model."""

    backend: str
    model: str | None
    revision: str | None
    prompt_sha256: str
    revision_resolved: NotRequired[bool]


class Settings(Section):
    """What can change the dataset's files. All but ``images`` goes into its manifest as well."""

    config: Annotated[BuildConfig, PlainSerializer(dataset_settings)]
    sampling: SamplingConfig
    seed: int
    images: ImageMode
    rows_per_file: int
    steps: dict[str, StepIdentity]
    packages: dict[str, str]
    drawn: list[str]
    prices: StepPrices | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without prices where none are given: datasets from before there were any are not assembled again."""
        values: dict[str, Any] = dump(self)
        if self.prices is None:
            values.pop("prices", None)
        return values


@dataclass(frozen=True)
class SourceInputs(Inputs):
    """What listing and reading one source has given."""

    source: str
    listing: Manifest
    candidates: tuple[Manifest, ...]


@dataclass(frozen=True)
class FinishedInputs(Inputs):
    """All shards of the build: the verified rows, and those that only give rejected rows and counts."""

    verified: tuple[Manifest, ...]
    sources: tuple[SourceInputs, ...]
    sample: Manifest
    texts: tuple[Manifest, ...]
    judged: tuple[Manifest, ...] = ()

    @property
    def finished(self) -> tuple[Manifest, ...]:
        """The shards with the rows of the dataset: judged ones where there is a judge."""
        return self.judged or self.verified


AssembleOrder = Order[Settings, FinishedInputs]


def describe_steps(config: BuildConfig) -> dict[str, StepIdentity]:
    """Who wrote the texts of every step, its model resolved to a commit or a digest where it can be looked up."""
    found: dict[str, StepIdentity] = {}
    for name in STEPS:
        section = config.step(name)
        identity = StepIdentity(
            backend=section.backend,
            model=section.model,
            revision=section.revision,
            prompt_sha256=describe_step(config, name).prompt_sha256,
        )
        # What a server loaded under the name of a model is known to the server alone.
        if section.model and section.backend != "openai":
            model = identify_model(section.model, section.revision)
            identity["revision"] = model.revision
            identity["revision_resolved"] = model.resolved
        found[name] = identity
    return found


def package_versions() -> dict[str, str]:
    """Versions of the packages that the rows and files depend on."""
    return {name: metadata.version(name) for name in PACKAGES}


def find_drawn_sources(roots: Mapping[str, str]) -> list[str]:
    """The sources that are drawn stand-ins."""
    return [name for name, root in roots.items() if is_drawn(Path(root))]


def run_assemble(order: AssembleOrder) -> Manifest:
    """Write the dataset from the verified shards; the other inputs give their rejected rows and counts."""
    from talking_points.publishing.card import render_card

    writer = ShardWriter(order)
    storage, finished = writer.storage, order.inputs.finished
    release_judge()
    give_back_memory()  # of the images of all the stages before
    storage.remove(STAGING)
    light = pa.concat_tables([storage.read_table(manifest["path"], columns=_LIGHT) for manifest in finished])
    if not light.num_rows:
        raise ShardFailed("every row was rejected: see 'talking-points status OUTPUT --rejected' for the reasons")
    repeated = None
    if (alike := order.settings.config.near_duplicates) is not None:
        columns = [*_LIGHT, "image_path", "description"]
        texts = pa.concat_tables([storage.read_table(manifest["path"], columns=columns) for manifest in finished])
        texts, repeated = without_repeats(writer, texts, alike)
        light = texts.select(_LIGHT)
    light, unused = _fit_shares(light, order.inputs.sample["details"])
    sides = _assign_sides(light, order.settings)
    files = [file for side in ("train", "test") for file in _write_side(order, storage, sides, side)]
    rejected = write_rejected(storage, order.inputs.manifests(), "assemble", writer.rejected)
    manifest = _describe_dataset(order, light, sides, files)
    if order.inputs.judged:
        manifest["judge"] = describe_judge(order, storage, light)
    if repeated is not None:
        manifest["near_duplicates"] = repeated
    if unused:
        manifest["unused_reserves"] = unused
    manifest["figures"] = draw_figures(order, storage, STAGING, manifest, light)
    storage.write_json(f"{STAGING}/manifest.json", manifest)
    storage.write_bytes(f"{STAGING}/README.md", render_card(manifest).encode())
    written = {file["path"]: file["sha256"] for file in files}
    others = [*manifest["figures"], *(f"rejected/{stage}.parquet" for stage in rejected), "README.md", "manifest.json"]
    digests = publish_staged(storage, written | dict.fromkeys(others))
    result = writer.commit(pa.table({"file": sorted(digests)}), {"rejected": rejected})
    result["rows"] = light.num_rows
    result["files"].update(digests)
    return result


def _fit_shares(light: pa.Table, sampled: Details) -> tuple[pa.Table, int]:
    """The rows of the dataset, where reserves have taken the place of rejected ones, and how many were not needed."""
    if "shares" not in sampled:
        return light, 0
    reserves = {id_ for ids in sampled["reserves"].values() for id_ in ids}
    ranked: dict[str, list[str]] = {source: [] for source in sampled["shares"]}
    for source, id_ in zip(light["source"].to_pylist(), light["id"].to_pylist(), strict=True):
        if id_ not in reserves:
            ranked[source].append(id_)
    for source, ids in sampled["reserves"].items():
        ranked[source] += ids
    chosen = Sample(sampled["shares"], ranked).fill_up(light["id"].to_pylist())
    kept = light.filter(pc.is_in(light["id"], value_set=pa.array(chosen, pa.string())))
    return kept, light.num_rows - kept.num_rows


def _assign_sides(light: pa.Table, settings: Settings) -> dict[str, str]:
    """Row id -> train or test: proportional per source, near-duplicate images on one side."""
    sampling = settings.sampling
    groups = near_duplicate_groups(
        light["image_phash"].to_numpy(),
        sampling.near_duplicate_bits,
        aspects=light["image_width"].to_numpy() / light["image_height"].to_numpy(),
        contents=light["image_sha256"].to_pylist(),
    )
    ids = light["id"].to_pylist()
    sides = split(
        ids,
        light["source"].to_pylist(),
        groups,
        train_parts=sampling.train_parts,
        test_parts=sampling.test_parts,
        seed=settings.seed,
    )
    return dict(zip(ids, sides, strict=True))


def _write_side(order: AssembleOrder, storage: Storage, sides: Mapping[str, str], side: str) -> list[dict[str, Any]]:
    """Write one split, one file in memory at a time; returns name, rows, digest and size of its files.

    A file has one row group: a stream reads ahead by whole groups, and must not read more than its first row needs.
    """
    further = ("judge_score",) if order.inputs.judged else ()
    settings, schema = order.settings, triplet_schema(declare_labels(order.environment.roots), further)
    ids = [row for row, chosen in sides.items() if chosen == side]
    rows = _read_rows(order, storage, set(ids))
    count = -(-len(ids) // settings.rows_per_file)
    files = []
    for number in range(count):
        name = f"data/{side}-{number:05d}-of-{count:05d}.parquet"
        wanted = min(settings.rows_per_file, len(ids) - number * settings.rows_per_file)
        with (
            storage.writing(f"{STAGING}/{name}") as path,
            pq.ParquetWriter(path, schema, **PARQUET_OPTIONS) as writer,
        ):
            stop_if_requested()
            group = [next(rows) for _ in range(wanted)]
            writer.write_table(pa.Table.from_pylist(group, schema=schema), row_group_size=wanted)
        staged = f"{STAGING}/{name}"
        files.append({"path": name, "rows": wanted, "sha256": storage.sha256(staged), "bytes": storage.size(staged)})
    return files


def _read_rows(order: AssembleOrder, storage: Storage, wanted: set[str]) -> Iterator[dict[str, Any]]:
    """Published rows of one split, in the order of the sample."""
    settings, roots = order.settings, order.environment.roots
    provenance = {**settings.steps, "seed": settings.seed}
    for manifest in order.inputs.finished:
        for row in storage.read_table(manifest["path"]).to_pylist():
            if row["id"] not in wanted:
                continue
            width, height = row["image_width"], row["image_height"]
            yield row | {
                "source": LABELS.index(source_label(row["source"])),
                "image": _fill_cell(settings.images, Candidate.from_row(row), roots),
                "keypoint_normalized": [row["keypoint"][0] / width, row["keypoint"][1] / height],
                "provenance": provenance,
            }


def _fill_cell(mode: ImageMode, row: Candidate, roots: Mapping[str, str]) -> Any:
    if mode == "reference":
        return None
    try:
        return image_cell(mode, image_bytes(row, roots), row.image_path)
    except SkippedImage as changed:
        raise ShardFailed(f"the images changed while the build ran: {changed}") from changed


def _describe_dataset(
    order: AssembleOrder, light: pa.Table, sides: Mapping[str, str], files: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What ``manifest.json`` says and the card is rendered from: no times and no paths of this machine."""
    settings, roots = order.settings, order.environment.roots
    config = dataset_settings(settings.config)
    objects, parts = (light[name].to_pylist() for name in ("object", "part"))
    sources = [source_label(name) for name in light["source"].to_pylist()]
    made_of = composition(sources, objects, parts, configured=list(roots))
    by_side = Counter((source, sides[row]) for source, row in zip(sources, light["id"].to_pylist(), strict=True))
    images = {source: len(set(paths)) for source, paths in _images_by_source(light).items()}
    skipped: dict[str, Counter[str]] = defaultdict(Counter)
    for inputs in order.inputs.sources:
        skipped[source_label(inputs.source)] += _count_skipped(inputs)
    prices = settings.prices
    return {
        **({"cost": cost_summary(prices, _count_spent((*order.inputs.texts, *order.inputs.judged)))} if prices else {}),
        "format_version": 1,
        "name": "LlamaPointInPart",
        "created_with": settings.packages,
        "config": config,
        "fingerprint": fingerprint(config),
        "seed": settings.seed,
        "rows": dict(Counter(sides.values())),
        "sources": {
            source: {
                "train": by_side[source, "train"],
                "test": by_side[source, "test"],
                "points": by_side[source, "train"] + by_side[source, "test"],
                "images": images[source],
                "objects": len(made_of.counts[source]),
                "pairs": sum(len(parts) for parts in made_of.counts[source].values()),
                "skipped": dict(sorted(skipped[source].items())),
                "drawn": source in settings.drawn,
            }
            for source in made_of.counts
        },
        "composition": {
            source: {name: dict(parts) for name, parts in found.items()} for source, found in made_of.counts.items()
        },
        "availability": {
            "objects_available": made_of.objects_available,
            "objects_sampled": made_of.objects_sampled,
            "pairs_available": made_of.pairs_available,
            "pairs_sampled": made_of.pairs_sampled,
        },
        "stages": count_stages(order.inputs.manifests(), STAGES),
        "steps": settings.steps,
        "images": settings.images,
        "partial": settings.config.limit is not None,
        "files": list(files),
    }


def _images_by_source(light: pa.Table) -> dict[str, list[str]]:
    images: dict[str, list[str]] = {}
    for source, image in zip(
        map(source_label, light["source"].to_pylist()), light["image_id"].to_pylist(), strict=True
    ):
        images.setdefault(source, []).append(image)
    return images


def _count_skipped(inputs: SourceInputs) -> Counter[str]:
    """What listing, reading and choosing left out of one source, by reason."""
    counts: Counter[str] = Counter()
    for manifest in inputs.manifests():
        counts.update(manifest["details"].get("skipped", {}))
        counts.update(manifest["rejected"])
    return counts


def _count_spent(texts: Sequence[Manifest]) -> dict[str, dict[str, int]]:
    """Requests and tokens by text stage."""
    spent: dict[str, dict[str, int]] = {step: dict.fromkeys(SPENT, 0) for step in (*STEPS, "judge")}
    for manifest in texts:
        details: Mapping[str, Any] = manifest["details"]
        for name in SPENT:
            spent[manifest["stage"]][name] += details.get(name, 0)
    return spent


assemble = shard_task("assemble")(run_assemble)
