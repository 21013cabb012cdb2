"""Which settings each stage depends on: the one place that decides what a changed configuration makes anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from pydantic import JsonValue

from talking_points.build_config import BuildConfig
from talking_points.config import Section
from talking_points.descriptions.model_identity import identify_model
from talking_points.descriptions.spending import make_spending_order, step_prices
from talking_points.sources.protocol import NothingListedError
from tasks import (
    assemble,
    candidates,
    generate,
    index,
    judge,
    local_caption,
    object_caption,
    refine,
    sample,
    verify,
)
from tasks.running.lease import Fence
from tasks.running.manifests import Manifest
from tasks.running.shards import AnyOrder, Environment, Inputs, Order, Place
from tasks.running.storage import Storage
from tasks.running.text_shards import describe_step
from tasks.running.worker_checks import Expectation

SettingsT = TypeVar("SettingsT", bound=Section)
InputsT = TypeVar("InputsT", bound=Inputs)

Made = Mapping[int, Manifest]
"""What a stage has made, by shard number; failed shards are missing."""


IndexOrder = Order[index.Settings, Inputs]
CandidatesOrder = Order[candidates.Settings, candidates.ListingInput]
ObjectCaptionOrder = Order[object_caption.Settings, object_caption.SampleInput]
LocalCaptionOrder = Order[local_caption.Settings, object_caption.SampleInput]
GenerateOrder = Order[generate.Settings, generate.CaptionedInputs]
RefineOrder = Order[refine.Settings, refine.DraftedInputs]
VerifyOrder = Order[verify.Settings, verify.DescribedInputs]
JudgeOrder = Order[judge.Settings, judge.VerifiedInput]


class Orders:
    """Makes the orders of every stage for one build.

    ``roots`` are the resolved source folders, ``cache`` a local folder for finished model answers. Every method takes
    what the stages before have made. A row's shard keeps its number from the sample on.
    """

    def __init__(
        self,
        config: BuildConfig,
        roots: Mapping[str, str],
        cache: Path,
        fence: Fence | None = None,
        expected: Expectation | None = None,
    ) -> None:
        self.config = config
        self.environment = Environment(
            output=Storage(config.output).place,
            sources={name: Place(root=root, options=config.sources[name].options) for name, root in roots.items()},
            cache=str(cache),
            max_rejected_share=config.verification.max_rejected_share,
            spending=make_spending_order(config, cache),
            fence=fence,
            expected=expected,
            answers=config.request_cache,
        )

    def index(self) -> list[IndexOrder]:
        """One order per source: list it."""
        orders = []
        for number, (name, source) in enumerate(self.config.open_sources.items()):
            settings = index.Settings(
                source=name,
                split=source.split,
                seed=self.config.seed,
                shard_size=self.config.shard_size,
                images=self.preview_images(),
                tree=index.tree_digest(self.environment.sources[name].root, *path_values(source.options)),
                options=without_paths(source.options),
            )
            orders.append(self._order(index, f"index {name}", number, settings, Inputs()))
        return orders

    def candidates(self, listed: Made) -> list[CandidatesOrder]:
        """One order per shard of each source's entries. Raises ``NothingListedError`` where there is none at all."""
        if not any(made["details"]["shards"] for made in listed.values()):
            places = zip(self.environment.roots.items(), listed.values(), strict=True)
            raise NothingListedError({name: (root, made["details"]["skipped"]) for (name, root), made in places})
        orders: list[CandidatesOrder] = []
        for number, (name, source) in enumerate(self.config.open_sources.items()):
            settings = candidates.Settings(
                source=name,
                split=source.split,
                options=without_paths(source.options),
                keypoints=self.config.keypoints,
            )
            shards = listed[number]["details"]["shards"]
            for place, shard in enumerate(shards, 1):
                title = f"candidates {name} {place}/{len(shards)}"
                inputs = candidates.ListingInput(entries=shard)
                orders.append(self._order(candidates, title, len(orders), settings, inputs))
        return orders

    def sample(self, found: Made) -> Sequence[AnyOrder]:
        """The one order that chooses the points of the dataset from all candidates."""
        settings = sample.Settings(
            seed=self.config.seed,
            limit=self.config.limit,
            shard_size=self.config.shard_size,
            points={name: source.points for name, source in self.config.open_sources.items()},
            equal_shares=self.config.sampling.equal_shares,
            reserve=self.config.sampling.reserve,
        )
        inputs = sample.CandidateInputs(candidates=tuple(found.values()))
        return sample.cut_sample(self._order(sample, "sample", 0, settings, inputs))

    def object_caption(self, sampled: Made) -> list[ObjectCaptionOrder]:
        """One order per shard of the sample, as for all stages of text."""
        settings = object_caption.Settings(step=describe_step(self.config, "object_caption"), seed=self.config.seed)
        return self._by_shard(object_caption, settings, object_caption.SampleInput, sample=_shards(sampled))

    def local_caption(self, sampled: Made) -> list[LocalCaptionOrder]:
        settings = local_caption.Settings(
            step=describe_step(self.config, "local_caption"), seed=self.config.seed, crop=self.config.crop
        )
        return self._by_shard(local_caption, settings, object_caption.SampleInput, sample=_shards(sampled))

    def generate(self, sampled: Made, objects: Made, surroundings: Made) -> list[GenerateOrder]:
        settings = generate.Settings(
            step=describe_step(self.config, "generate"),
            seed=self.config.seed,
            merged_captions=self.config.merged_captions,
            compose_refused=self.config.verification.compose_refused,
        )
        made = _captions(sampled, objects, surroundings)
        return self._by_shard(generate, settings, generate.CaptionedInputs, **made)

    def refine(self, sampled: Made, objects: Made, surroundings: Made, drafts: Made) -> list[RefineOrder]:
        settings = refine.Settings(
            step=describe_step(self.config, "refine"),
            seed=self.config.seed,
            verification=self.config.verification,
            merged_captions=self.config.merged_captions,
        )
        made = _captions(sampled, objects, surroundings)
        return self._by_shard(refine, settings, refine.DraftedInputs, **made, draft=drafts)

    def verify(
        self, sampled: Made, objects: Made, surroundings: Made, drafts: Made, refined: Made
    ) -> list[VerifyOrder]:
        settings = verify.Settings(verification=self.config.verification)
        made = _captions(sampled, objects, surroundings)
        return self._by_shard(verify, settings, verify.DescribedInputs, **made, draft=drafts, description=refined)

    def judge(self, sampled: Made, verified: Made) -> list[JudgeOrder]:
        """None where no judge is configured."""
        config = self.config.judge
        if config is None:
            return []
        weights = str(identify_model(str(config.model), config.revision).revision) if config.by == "localizer" else ""
        settings = judge.Settings(
            step=describe_step(self.config, "judge"), seed=self.config.seed, crop=self.config.crop, weights=weights
        )
        total = len(_shards(sampled))
        return [
            self._order(
                judge,
                f"judge {place}/{total}",
                number,
                settings,
                judge.VerifiedInput(verified=shard),
            )
            for place, (number, shard) in enumerate(verified.items(), 1)
        ]

    def assemble(
        self, listed: Made, found: Made, sampled: Made, texts: Sequence[Made], verified: Made, judged: Made
    ) -> Sequence[AnyOrder]:
        """The one order that splits and writes the dataset; ``texts`` are captions, drafts and descriptions."""
        config, numbers = self.config, iter(sorted(found))
        settings = assemble.Settings(
            config=config,
            sampling=config.sampling,
            seed=config.seed,
            images=config.images or "embed",
            rows_per_file=config.rows_per_file,
            steps=assemble.describe_steps(config),
            packages=assemble.package_versions(),
            drawn=assemble.find_drawn_sources(self.environment.roots),
            prices=step_prices(config),
        )
        sources = []
        for number, name in enumerate(config.open_sources):
            shards = [found[next(numbers)] for _ in listed[number]["details"]["shards"]]
            sources.append(assemble.SourceInputs(source=name, listing=listed[number], candidates=tuple(shards)))
        inputs = assemble.FinishedInputs(
            verified=tuple(verified.values()),
            sources=tuple(sources),
            sample=sampled[0],
            texts=tuple(shard for stage in texts for shard in stage.values()),
            judged=tuple(judged.values()),
        )
        return assemble.cut_assemble(self._order(assemble, "assemble", 0, settings, inputs))

    def preview_images(self) -> int | None:
        """Images to list per source for a build of ``limit`` points: some of them give no keypoint."""
        if self.config.limit is None:
            return None
        return 2 * -(-self.config.limit // len(self.config.open_sources)) + 8

    def _by_shard(
        self, stage: ModuleType, settings: SettingsT, inputs: Callable[..., InputsT], **made: Made
    ) -> list[Order[SettingsT, InputsT]]:
        """An order for every shard of the sample that all the stages before have made."""
        title, total = _name(stage), len(made["sample"])
        return [
            self._order(
                stage,
                f"{title} {place}/{total}",
                number,
                settings,
                inputs(**{name: shards[number] for name, shards in made.items()}),
            )
            for place, number in enumerate(made["sample"], 1)
            if all(number in shards for shards in made.values())
        ]

    def _order(
        self, stage: ModuleType, title: str, shard: int, settings: SettingsT, inputs: InputsT
    ) -> Order[SettingsT, InputsT]:
        return Order(_name(stage), stage.VERSION, shard, title, inputs, settings, self.environment)


def _name(stage: ModuleType) -> str:
    """A stage is called as its file."""
    return stage.__name__.rpartition(".")[2]


def _captions(sampled: Made, objects: Made, surroundings: Made) -> dict[str, Made]:
    return {"sample": _shards(sampled), "object_caption": objects, "local_caption": surroundings}


def _shards(sampled: Made) -> Made:
    return {shard["shard"]: shard for shard in sampled[0]["details"]["shards"]}


def path_options(options: Mapping[str, object]) -> list[str]:
    """Reader options that name a file or folder: their content counts, not where they are."""
    return [name for name, value in options.items() if isinstance(value, str) and Path(value).exists()]


def path_values(options: Mapping[str, object]) -> list[str]:
    """The files and folders that reader options name."""
    return [str(options[name]) for name in path_options(options)]


def without_paths(options: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Reader options that count as they are."""
    left_out = path_options(options)
    return {name: value for name, value in options.items() if name not in left_out}
