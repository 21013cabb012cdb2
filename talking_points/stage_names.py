"""The names of the stages of builds, in their order. Imports nothing: a status is made of them."""

from __future__ import annotations

BUILD_STAGES = (
    "index",
    "candidates",
    "sample",
    "object_caption",
    "local_caption",
    "generate",
    "refine",
    "verify",
    "judge",
    "assemble",
)
"""Of ``build-llamapointinpart``."""

INSTRUCTION_STAGES = ("index", "regions", "assemble_instructions")
"""Of ``build-instructions``."""
