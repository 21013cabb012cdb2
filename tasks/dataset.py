"""The way of the data, from listed sources to a written dataset: the stages of a build in their order.

Read it top to bottom. The flow ``build-llamapointinpart`` goes this way with stages that make what is missing
(``running/runner.py``). A command first goes it with stages that only look at what is kept
(``running/kept_stages.py``), and starts nothing where nothing is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tasks.assemble import assemble
from tasks.candidates import candidates
from tasks.generate import generate
from tasks.index import index
from tasks.judge import judge
from tasks.local_caption import local_caption
from tasks.object_caption import object_caption
from tasks.orders import Orders
from tasks.refine import refine
from tasks.running.manifests import Manifest
from tasks.running.result_records import ShardTask
from tasks.running.shards import AnyOrder
from tasks.sample import sample
from tasks.verify import verify


class Stages(Protocol):
    """Gives the shards of a stage, by number: ``complete`` all of them, ``run`` those that did not fail."""

    def complete(self, task: ShardTask, orders: Sequence[AnyOrder]) -> dict[int, Manifest]: ...

    def run(self, task: ShardTask, orders: Sequence[AnyOrder]) -> dict[int, Manifest]: ...


def make_dataset(stages: Stages, orders: Orders) -> Manifest:
    """Every stage of a build, one after another. Returns the manifest of the assembled dataset."""
    # List the sources; find one keypoint per image inside a part, with its place in words; choose the points.
    listed = stages.complete(index, orders.index())
    found = stages.complete(candidates, orders.candidates(listed))
    sampled = stages.complete(sample, orders.sample(found))

    # Words for the object in the whole image, then for the neighbourhood of the point.
    objects = stages.run(object_caption, orders.object_caption(sampled))
    surroundings = stages.run(local_caption, orders.local_caption(sampled))

    # Merge both into one description, refine it, verify it. A shard that failed above goes no further.
    drafts = stages.run(generate, orders.generate(sampled, objects, surroundings))
    refined = stages.run(refine, orders.refine(sampled, objects, surroundings, drafts))
    verified = stages.complete(verify, orders.verify(sampled, objects, surroundings, drafts, refined))

    # Where a judge is configured: does the text lead back to its point?
    judged = stages.complete(judge, orders.judge(sampled, verified)) if orders.config.judge else {}

    # Split, write Parquet, draw the figures, write the card.
    texts = (objects, surroundings, drafts, refined)
    return stages.complete(assemble, orders.assemble(listed, found, sampled, texts, verified, judged))[0]
