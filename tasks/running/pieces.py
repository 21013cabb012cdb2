"""A stage of one result whose work is done by several tasks, one after another or side by side.

Each piece is an order of its own: it is kept under its own key, made again where it failed, and not made again where it
is there. The order of the whole keeps the key that it has without pieces, since they follow from the same inputs: what
was made in one task is not made again in pieces, nor the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from talking_points.config import Section
from tasks.running.manifests import Manifest
from tasks.running.shards import AnyOrder, Inputs

Cut = Callable[[Mapping[int, Manifest]], Sequence[AnyOrder]]
"""Makes orders of pieces, to be given out together, from the manifests of all the pieces before, by shard number."""


@dataclass(frozen=True)
class InPieces(Sequence[AnyOrder]):
    """The order of the whole, which a stage is given as its only one, and what has to be made before it.

    Pieces are shards of the same stage, numbered from 1; the whole is shard 0.
    """

    whole: AnyOrder
    cuts: tuple[Cut, ...]

    def finish(self, made: Mapping[int, Manifest]) -> AnyOrder:
        """The order that puts the pieces together."""
        return replace(self.whole, pieces=tuple(made[number] for number in sorted(made)))

    def __len__(self) -> int:
        return 1

    @overload
    def __getitem__(self, index: int) -> AnyOrder: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[AnyOrder]: ...
    def __getitem__(self, index: Any) -> Any:
        return (self.whole,)[index]


def piece_of(whole: AnyOrder, number: int, title: str, inputs: Inputs, settings: Section) -> AnyOrder:
    """The order of a piece, of the same version and in the same environment."""
    return replace(whole, shard=number, title=title, inputs=inputs, settings=settings, pieces=())
