"""Which settings each stage depends on: the one place that decides what a changed configuration makes anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from talking_points.build_config import BuildConfig
from tasks import assemble, candidates, caption, index, merge, sample
from tasks.running.shards import Manifest, Order
from tasks.running.text_shards import step_settings


class Orders:
    """Makes the orders of every stage for one build.

    ``roots`` are the resolved source folders, ``cache`` a local folder for finished model answers.
    """

    def __init__(self, config: BuildConfig, roots: Mapping[str, str], cache: Path) -> None:
        self.config = config
        self.environment: dict[str, Any] = {
            "output": config.output,
            "roots": dict(roots),
            "cache": str(cache),
            "max_rejected_share": config.verification.max_rejected_share,
        }

    def index(self) -> list[Order]:
        """One order per source: list it."""
        orders = []
        for number, (name, source) in enumerate(self.config.open_sources.items()):
            settings = {
                "source": name,
                "split": source.split,
                "seed": self.config.seed,
                "shard_size": self.config.shard_size,
                "images": self.preview_images(),
                "tree": index.tree_digest(self.environment["roots"][name], *_paths(source.options)),
            }
            orders.append(self._order("index", index.VERSION, number, [], settings, self._reader(name)))
        return orders

    def candidates(self, listings: Mapping[int, Manifest]) -> list[Order]:
        """One order per shard of each source's entries."""
        orders: list[Order] = []
        for number, (name, source) in enumerate(self.config.open_sources.items()):
            settings = {
                "source": name,
                "split": source.split,
                "options": {
                    key: value for key, value in source.options.items() if key not in _path_names(source.options)
                },
                "keypoints": self.config.keypoints.model_dump(mode="json"),
            }
            for shard in listings[number]["details"]["shards"]:
                orders.append(
                    self._order("candidates", candidates.VERSION, len(orders), [shard], settings, self._reader(name))
                )
        return orders

    def sample(self, found: Sequence[Manifest]) -> Order:
        """The order that chooses the points of the dataset from all candidates."""
        settings = {
            "seed": self.config.seed,
            "limit": self.config.limit,
            "shard_size": self.config.shard_size,
            "points": {name: source.points for name, source in self.config.open_sources.items()},
            "equal_shares": self.config.sampling.equal_shares,
        }
        return self._order("sample", sample.VERSION, 0, list(found), settings)

    def object_caption(self, shard: Manifest) -> Order:
        return self._text("object_caption", caption.VERSION, [shard])

    def local_caption(self, shard: Manifest) -> Order:
        return self._text("local_caption", caption.VERSION, [shard], crop=self.config.crop.model_dump(mode="json"))

    def generate(self, shards: Sequence[Manifest]) -> Order:
        return self._text("generate", merge.VERSION, shards, merged_captions=self.config.merged_captions)

    def refine(self, shards: Sequence[Manifest]) -> Order:
        shown = {"merged_captions": self.config.merged_captions}
        return self._text("refine", merge.VERSION, shards, verification=self._verification(), **shown)

    def verify(self, shards: Sequence[Manifest]) -> Order:
        settings = {"verification": self._verification()}
        return self._order("verify", merge.VERSION, shards[0]["shard"], list(shards), settings)

    def assemble(self, finished: Sequence[Manifest], settings: Mapping[str, Any]) -> Order:
        """The order that splits and writes the dataset; ``settings`` go into its manifest as they are."""
        sampling = self.config.sampling.model_dump(mode="json")
        content = {
            "sampling": sampling,
            "seed": self.config.seed,
            "images": self.config.images or "embed",
            "rows_per_file": self.config.rows_per_file,
            **settings,
        }
        return self._order("assemble", assemble.VERSION, 0, list(finished), content)

    def preview_images(self) -> int | None:
        """Images to list per source for a build of ``limit`` points: some of them give no keypoint."""
        if self.config.limit is None:
            return None
        return 2 * -(-self.config.limit // len(self.config.open_sources)) + 8

    def _text(self, step: str, version: int, inputs: Sequence[Manifest], **further: Any) -> Order:
        settings, environment = step_settings(self.config, step)
        content = {"step": settings, "seed": self.config.seed, **further}
        return self._order(step, version, inputs[0]["shard"], list(inputs), content, {"step": environment})

    def _order(
        self,
        stage: str,
        version: int,
        shard: int,
        inputs: list[Manifest],
        settings: dict[str, Any],
        environment: Mapping[str, Any] | None = None,
    ) -> Order:
        return Order(
            stage=stage,
            version=version,
            shard=shard,
            inputs=inputs,
            settings=settings,
            environment=self.environment | dict(environment or {}),
        )

    def _reader(self, source: str) -> dict[str, Any]:
        return {"root": self.environment["roots"][source], "options": self.config.sources[source].options}

    def _verification(self) -> dict[str, Any]:
        return self.config.verification.model_dump(mode="json", exclude={"max_rejected_share"})


def _path_names(options: Mapping[str, Any]) -> list[str]:
    """Reader options that name a file or folder: their content counts, not where they are."""
    return [name for name, value in options.items() if isinstance(value, str) and Path(value).exists()]


def _paths(options: Mapping[str, Any]) -> list[str]:
    return [options[name] for name in _path_names(options)]
