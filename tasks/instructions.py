"""The way of the data in the flow ``build-instructions``, for the flow and for whoever must not import Prefect."""

from __future__ import annotations

from tasks.assemble_instructions import assemble_instructions
from tasks.dataset import Stages
from tasks.index import index
from tasks.instruction_orders import InstructionOrders
from tasks.regions import regions
from tasks.running.manifests import Manifest


def make_instructions(stages: Stages, orders: InstructionOrders) -> Manifest:
    """Every stage, one after another. Returns the manifest of the assembled dataset."""
    # List the sources; measure every region of every image as text, point, box and mask.
    listed = stages.complete(index, orders.index())
    found = stages.complete(regions, orders.regions(listed))

    # Split by image, draw kinds of questions and their words, write Parquet and the card.
    return stages.complete(assemble_instructions, orders.assemble(listed, found))[0]
