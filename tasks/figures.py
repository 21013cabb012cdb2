"""The dataset's figures on the page of its run, where people look before they look for files."""

from __future__ import annotations

import base64
import io

from prefect.artifacts import create_markdown_artifact

from talking_points.allocator import give_back_memory
from talking_points.escaping import for_markdown
from talking_points.image_files import read_rgb
from talking_points.redaction import redact
from tasks.running.storage import Storage

WIDTH = 900
"""Pixels of a figure on the page; the files have more."""


def show_figures(storage: Storage) -> None:
    """Leave the figures of the finished dataset as the artifact ``dataset-figures``, small images inside Markdown."""
    give_back_memory()  # of the figures' drawing
    shown = []
    for name in sorted(storage.names("figures")):
        if name.endswith(".png"):
            image = read_rgb(storage.read_bytes(f"figures/{name}"))
            image.thumbnail((WIDTH, 10 * WIDTH))
            content = io.BytesIO()
            image.save(content, "WEBP", quality=80, method=1)  # a third of the time of the usual method
            encoded = base64.b64encode(content.getvalue()).decode()
            shown.append(f"![{name.removesuffix('.png')}](data:image/webp;base64,{encoded})")
    create_markdown_artifact(
        key="dataset-figures", markdown="\n\n".join([f"# {for_markdown(redact(storage.output))}", *shown])
    )
