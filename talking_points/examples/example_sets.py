"""Sets of examples, of whatever is learnt about images: drawn, divided and held out by image, images decoded once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, Self, TypeVar

from PIL import Image

from talking_points.config import ConfigError
from talking_points.records import derive_seed


class ImageExample(Protocol):
    """One example: its name, the digest of its image's file, width and height of the image, and the text learnt."""

    @property
    def id(self) -> str: ...

    @property
    def image(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def text(self) -> str: ...


Example = TypeVar("Example", bound=ImageExample)


@dataclass(frozen=True)
class ExampleSet(Generic[Example]):
    """Examples and a way to their images: ``decode`` gives the wanted ones of the image digests, each once."""

    examples: Sequence[Example]
    decode: Callable[[Collection[str]], Iterator[tuple[str, Image.Image]]]

    def __len__(self) -> int:
        return len(self.examples)

    def images(self, digests: Collection[str]) -> Iterator[tuple[str, Image.Image]]:
        """The images of some image digests, each decoded once, in the order in which they are stored."""
        return self.decode(frozenset(digests))

    def subset(self, index: Iterable[int]) -> Self:
        """Some of the examples, with the same images."""
        return replace(self, examples=[self.examples[position] for position in index])

    def sample(self, count: int, seed: int) -> Self:
        """At most ``count`` examples, drawn by seed and id, in their own order: the same ones in every process."""
        if count >= len(self):
            return self
        drawn = sorted(range(len(self)), key=lambda i: derive_seed(seed, "sample", self.examples[i].id))
        return self.subset(sorted(drawn[:count]))

    def hold_out(self, share: float) -> tuple[Self, Self]:
        """The examples of most images, and those of a ``share`` of the images, drawn by digest alone.

        Raises ``ConfigError`` for examples of a single image.
        """
        images = sorted({example.image for example in self.examples}, key=lambda image: derive_seed(0, "held", image))
        if len(images) < 2:
            raise ConfigError(f"validation needs an image to hold out and one to train on, found {len(images)} in all")
        held_out = set(images[: min(len(images) - 1, max(1, round(share * len(images))))])
        inside = [example.image in held_out for example in self.examples]
        return (
            self.subset(place for place, held in enumerate(inside) if not held),
            self.subset(place for place, held in enumerate(inside) if held),
        )
