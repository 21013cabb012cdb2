"""Stage 8: split the verified rows by image, write the dataset's Parquet files, its figures and its card.

Of many rows, one task decides about all of them by a few columns, each file is written by a task of its own, and the
last one makes everything else from counts: only a file's task reads rows as a whole, and images.

Everything is written beside the dataset that is already there, if any, and takes its place when complete.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NotRequired, cast

import pyarrow as pa
from pydantic import PlainSerializer, SerializerFunctionWrapHandler, model_serializer
from typing_extensions import TypedDict

from talking_points.allocator import give_back_memory
from talking_points.build_config import BuildConfig, SamplingConfig, dataset_settings
from talking_points.candidates.counting import compose
from talking_points.config import Section, fingerprint
from talking_points.descriptions.backends.protocol import STEPS
from talking_points.descriptions.model_identity import identify_model
from talking_points.descriptions.spending import StepPrices, cost_summary
from talking_points.publishing.image_cells import ImageMode
from talking_points.records import source_label
from talking_points.sources.drawn import is_drawn
from talking_points.stage_names import BUILD_STAGES
from tasks.judge import describe_judge, release_judge
from tasks.running.dataset_figures import choose_examples, draw_figures
from tasks.running.decision import (
    SIDES,
    Counts,
    Decision,
    Rules,
    by_shard,
    decide,
    read_decision,
    read_sides,
    write_decision,
)
from tasks.running.manifests import Details, Manifest, rejected_path
from tasks.running.pieces import InPieces, piece_of
from tasks.running.published_files import FilePlan, Form, plan_sides, read_rows, write_rows
from tasks.running.shards import AnyOrder, Inputs, Order, ShardWriter, describe_part, shard_task
from tasks.running.stages import SPENT, WORK
from tasks.running.staging import begin_staging, count_stages, publish_staged, write_rejected
from tasks.running.text_shards import describe_step

VERSION = 2
PACKAGES = ("talking-points", "opencv-contrib-python", "pillow", "pyarrow", "numpy", "pycocotools", "prefect")

AT_ONCE = 5_000
"""Rows that one task assembles by itself: of more, each file is a task of its own."""
PIECES = "assemble/pieces"
"""Folder of what such tasks have made, until the dataset is complete."""


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

    @property
    def rules(self) -> Rules:
        """What decides which rows are published, and where."""
        return Rules(seed=self.seed, sampling=self.sampling, near_duplicates=self.config.near_duplicates)

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


@dataclass(frozen=True)
class RowInputs(Inputs):
    """What is decided about: all rows of the build, and which of them are reserves."""

    finished: tuple[Manifest, ...]
    sample: Manifest


@dataclass(frozen=True)
class FileInputs(Inputs):
    """The shards that a file takes rows of, and the side of every row."""

    sides: Manifest
    finished: tuple[Manifest, ...]


class FileSettings(Section):
    """Which rows a file holds, and what they have beside their own values."""

    form: Form
    plan: FilePlan


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


def cut_assemble(order: AssembleOrder) -> Sequence[AnyOrder]:
    """The order in pieces where there are many rows: what is decided about all of them, then every file by itself."""
    if sum(manifest["rows"] for manifest in order.inputs.finished) <= AT_ONCE:
        return [order]
    return InPieces(order, (partial(_decision_order, order), partial(_file_orders, order)))


def count_tasks(config: BuildConfig, rows: int) -> int:
    """Into how many tasks so many rows are cut, about."""
    if rows <= AT_ONCE:
        return 1
    sampling = config.sampling
    tests = rows * sampling.test_parts // (sampling.train_parts + sampling.test_parts)
    return 2 + sum(-(-side // config.rows_per_file) for side in (rows - tests, tests))


def _decision_order(order: AssembleOrder, _: Mapping[int, Manifest]) -> list[AnyOrder]:
    inputs = RowInputs(finished=order.inputs.finished, sample=order.inputs.sample)
    return [piece_of(order, 1, "assemble: split", inputs, order.settings.rules)]


def _file_orders(order: AssembleOrder, made: Mapping[int, Manifest]) -> list[AnyOrder]:
    decided, finished = made[1]["details"], order.inputs.finished
    sizes = [manifest["rows"] for manifest in finished]
    form, orders = _form(order), list[AnyOrder]()
    for plan in plan_sides(decided["train"], decided["test"], sizes, order.settings.rows_per_file):
        inputs = FileInputs(sides=decided["shards"][0], finished=finished[plan.first : plan.last + 1])
        title = f"assemble {plan.side} {plan.number + 1}/{plan.of}"
        orders.append(piece_of(order, len(orders) + 2, title, inputs, FileSettings(form=form, plan=plan)))
    return orders


def _form(order: AssembleOrder) -> Form:
    settings = order.settings
    return Form(
        images=settings.images,
        provenance=cast(Any, settings.steps),
        seed=settings.seed,
        sources=sorted(order.environment.sources),
        judged=bool(order.inputs.judged),
    )


def run_assemble(order: Order[Any, Any]) -> Manifest:
    """Write the dataset from the verified shards, or a piece of it (``cut_assemble``)."""
    if isinstance(order.inputs, RowInputs):
        return _run_decision(order)
    return _run_file(order) if isinstance(order.inputs, FileInputs) else _run_whole(order)


def _run_decision(order: Order[Rules, RowInputs]) -> Manifest:
    writer = ShardWriter(order, PIECES)
    _make_room()
    decision = decide(writer, order.inputs.finished, order.inputs.sample["details"], order.settings)
    sides, counts = write_decision(writer, decision)
    details: Details = {
        "shards": [describe_part(writer, 1, sides, len(decision.sides))],
        "train": decision.count("train"),
        "test": decision.count("test"),
    }
    made = writer.commit(pa.table({"file": [sides, counts]}), details)
    made["rows"] = 0
    made["files"] |= {name: writer.storage.sha256(name) for name in (sides, counts)}
    return made


def _run_file(order: Order[FileSettings, FileInputs]) -> Manifest:
    writer, inputs, plan = ShardWriter(order, PIECES), order.inputs, order.settings.plan
    storage, form = writer.storage, order.settings.form
    _make_room()
    sizes = [manifest["rows"] for manifest in inputs.finished]
    sides = read_sides(storage, inputs.sides["path"], plan.start, plan.start + sum(sizes))
    chosen = (own == SIDES[plan.side] for own in by_shard(sides, sizes))
    rows = read_rows(storage, inputs.finished, chosen, form, order.environment)
    name = writer.name("data.parquet")
    with writer.writing(name) as path:
        lengths = write_rows(path, islice(rows, plan.skip, None), plan.rows, form.schema)
    made = describe_part(writer, order.shard, name, plan.rows)
    made["seconds"] = round(time.perf_counter() - writer.started, 3)
    made["details"] = {"published": plan.path, "lengths": {str(words): lengths[words] for words in sorted(lengths)}}
    return made


def _make_room() -> None:
    release_judge()
    give_back_memory()  # of the images of all the stages before


@dataclass(frozen=True)
class _Written:
    """``files``: path, rows, digest and size; ``pieces``: where those lie that are not staged yet, by their path."""

    decision: Decision
    files: list[dict[str, Any]]
    lengths: Counter[int]
    pieces: dict[str, str]


def _write_here(order: AssembleOrder, writer: ShardWriter, staging: str) -> _Written:
    """All files, one after another."""
    storage, finished, form = writer.storage, order.inputs.finished, _form(order)
    decision = decide(writer, finished, order.inputs.sample["details"], order.settings.rules)
    files, lengths = [], Counter[int]()
    rows = {side: read_rows(storage, finished, decision.of_side(side), form, order.environment) for side in SIDES}
    train, test = (decision.count(side) for side in SIDES)
    for plan in plan_sides(train, test, decision.sizes, order.settings.rows_per_file):
        staged = f"{staging}/{plan.path}"
        with storage.writing(staged) as path:
            lengths += write_rows(path, rows[plan.side], plan.rows, form.schema)
        found = {"sha256": storage.sha256(staged), "bytes": storage.size(staged)}
        files.append({"path": plan.path, "rows": plan.rows, **found})
    return _Written(decision, files, lengths, {})


def _gather(order: AssembleOrder, writer: ShardWriter) -> _Written:
    """What the pieces have made."""
    storage, (decided, *made) = writer.storage, order.pieces
    sides = decided["details"]["shards"][0]["path"]
    (counts,) = (name for name in decided["files"] if name.endswith(".counts.json"))
    decision = read_decision(storage, sides, counts, [manifest["rows"] for manifest in order.inputs.finished])
    if (rejected := rejected_path(decided)) is not None:
        writer.rejected += storage.read_table(rejected).to_pylist()
    files, lengths, pieces = [], Counter[int](), {}
    for piece in made:
        place, name = piece["path"], piece["details"]["published"]
        digest, size = piece["files"][place], storage.size(place)
        files.append({"path": name, "rows": piece["rows"], "sha256": digest, "bytes": size})
        lengths.update({int(words): count for words, count in piece["details"]["lengths"].items()})
        pieces[name] = place
    return _Written(decision, files, lengths, pieces)


def _run_whole(order: AssembleOrder) -> Manifest:
    """The dataset from its files; the other inputs give their rejected rows and counts."""
    from talking_points.publishing.card import render_card

    writer = ShardWriter(order)
    storage, inputs = writer.storage, order.inputs
    _make_room()
    staging = begin_staging(writer.attempt)
    written = _gather(order, writer) if order.pieces else _write_here(order, writer, staging)
    decision, counts = written.decision, written.decision.counts
    rejected = write_rejected(storage, staging, inputs.manifests(), "assemble", writer.rejected)
    manifest = _describe_dataset(order, counts, written.files)
    if inputs.judged:
        manifest["judge"] = describe_judge(order, storage, decision.by_shard())
    if counts.repeated is not None:
        manifest["near_duplicates"] = counts.repeated
    if counts.unused:
        manifest["unused_reserves"] = counts.unused
    examples = None
    if order.settings.images == "embed":
        examples = choose_examples(storage, inputs.finished, decision.by_shard())
    manifest["figures"] = draw_figures(storage, staging, manifest, written.lengths, examples, order.environment.roots)
    storage.write_json(f"{staging}/manifest.json", manifest)
    storage.write_bytes(f"{staging}/README.md", render_card(manifest).encode())
    for name, place in written.pieces.items():
        storage.move_file(place, f"{staging}/{name}")
    digests = {file["path"]: file["sha256"] for file in written.files}
    others = [*manifest["figures"], *(f"rejected/{stage}.parquet" for stage in rejected), "README.md", "manifest.json"]
    digests = publish_staged(storage, digests | dict.fromkeys(others), staging, writer.attempt.check)
    storage.remove(f"{WORK}/{PIECES}")
    result = writer.commit(pa.table({"file": sorted(digests)}), {"rejected": rejected})
    result["rows"] = sum(counts.rows.values())
    result["files"].update(digests)
    return result


def _describe_dataset(order: AssembleOrder, counts: Counts, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``manifest.json`` says and the card is rendered from: no times and no paths of this machine."""
    settings, roots = order.settings, order.environment.roots
    config = dataset_settings(settings.config)
    made_of, by_side, images = compose(counts.made_of, configured=list(roots)), counts.by_side, counts.images
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
        "rows": counts.rows,
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
        "stages": count_stages(order.inputs.manifests(), BUILD_STAGES),
        "steps": settings.steps,
        "images": settings.images,
        "partial": settings.config.limit is not None,
        "files": list(files),
    }


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
