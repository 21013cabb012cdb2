"""Which settings each stage of ``build-instructions`` depends on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from talking_points.instructions.config import InstructionBuildConfig
from talking_points.instructions.described_points import identify_points
from talking_points.instructions.phrasings import load_phrasings
from talking_points.instructions.sides import is_divided
from talking_points.sources.drawn import is_drawn
from talking_points.sources.protocol import NothingListedError
from talking_points.sources.refcoco import list_unseen_sets, published_division
from tasks import assemble_instructions, index, regions
from tasks.assemble import package_versions
from tasks.orders import Made, path_values, without_paths
from tasks.running.lease import Fence
from tasks.running.shards import Environment, Inputs, Order, Place
from tasks.running.storage import Storage
from tasks.running.worker_checks import Expectation

IndexOrder = Order[index.Settings, Inputs]
RegionsOrder = Order[regions.Settings, regions.EntryInput]


class InstructionOrders:
    """Makes the orders of every stage. ``roots``: the resolved folders of the sources."""

    def __init__(
        self,
        config: InstructionBuildConfig,
        roots: Mapping[str, str],
        fence: Fence | None = None,
        expected: Expectation | None = None,
    ) -> None:
        self.config = config
        self.environment = Environment(
            output=Storage(config.output).place,
            sources={name: Place(root=root, options=config.reader_options(name)) for name, root in roots.items()},
            cache="",
            max_rejected_share=1.0,
            fence=fence,
            expected=expected,
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
                images=self.config.limit or source.points,
                tree=index.tree_digest(self.environment.sources[name].root, *path_values(source.options)),
                options=without_paths(self.environment.sources[name].options),
            )
            orders.append(Order("index", index.VERSION, number, f"index {name}", Inputs(), settings, self.environment))
        return orders

    def regions(self, listed: Made) -> list[RegionsOrder]:
        """One order per shard of each source's entries. Raises ``NothingListedError`` where there is none at all."""
        if not any(made["details"]["shards"] for made in listed.values()):
            places = zip(self.environment.roots.items(), listed.values(), strict=True)
            raise NothingListedError({name: (root, made["details"]["skipped"]) for (name, root), made in places})
        orders: list[RegionsOrder] = []
        folder = self.config.points
        points = identify_points(folder) if folder is not None else ""
        for number, (name, source) in enumerate(self.config.open_sources.items()):
            options = self.environment.sources[name].options
            settings = regions.Settings(
                source=name,
                split=source.split,
                options=without_paths(options),
                instructions=self.config.instructions,
                seed=self.config.seed,
                points=points,
                points_folder=str(folder.absolute()) if folder is not None else "",
            )
            shards = listed[number]["details"]["shards"]
            for place, shard in enumerate(shards, 1):
                title = f"regions {name} {place}/{len(shards)}"
                inputs = regions.EntryInput(entries=shard)
                orders.append(Order("regions", regions.VERSION, len(orders), title, inputs, settings, self.environment))
        return orders

    def assemble(self, listed: Made, found: Made) -> list[assemble_instructions.AssembleOrder]:
        """The one order that splits the images and writes the dataset."""
        config, numbers = self.config, iter(sorted(found))
        settings = self.assemble_settings()
        sources = []
        for number, name in enumerate(config.open_sources):
            shards = [found[next(numbers)] for _ in listed[number]["details"]["shards"]]
            sources.append(
                assemble_instructions.SourceRegions(source=name, listing=listed[number], regions=tuple(shards))
            )
        inputs = assemble_instructions.RegionInputs(sources=tuple(sources))
        stage = "assemble_instructions"
        version = assemble_instructions.VERSION
        return [Order(stage, version, 0, "write the dataset", inputs, settings, self.environment)]

    def assemble_settings(self) -> assemble_instructions.Settings:
        """What the dataset depends on besides its regions."""
        return assemble_instructions.Settings(
            config=self.config,
            phrasings=load_phrasings(self.config.instructions.phrasings).digest,
            packages=package_versions(),
            unseen_sets=self._unseen_sets(),
            drawn=[name for name, root in self.environment.roots.items() if is_drawn(Path(root))],
        )

    def _unseen_sets(self) -> list[str]:
        """Of refCOCO, refCOCO+ and refCOCOg those that some source here does not know the evaluation images of.

        A root tells its own source alone; a source that is read with all splits of its published division tells all.
        """
        divided = {name: root for name, root in self.environment.roots.items() if is_divided(name)}
        unseen = {name: set(list_unseen_sets(Path(root))) for name, root in divided.items()}
        told = {name for name in divided if self._is_whole(name) and name not in unseen[name]}
        return sorted(set[str]().union(*unseen.values()) - told)

    def _is_whole(self, name: str) -> bool:
        division = self.environment.sources[name].options.get("split_by") or published_division(name)
        return self.config.open_sources[name].split is None and division == published_division(name)
