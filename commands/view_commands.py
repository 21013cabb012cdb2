"""``talking-points view``: look at a dataset in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.console import app, exit_codes, needs_extra
from talking_points.config import ConfigError
from talking_points.hub_names import unavailable
from talking_points.terminal import tell


@app.command()
def view(
    dataset: Annotated[str, typer.Argument(help="folder of a dataset, or org/name on the Hugging Face Hub")],
    revision: Annotated[str | None, typer.Option(help="tag or commit of a dataset on the Hub")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="where the page is served")] = 8086,
) -> None:
    """Browse a dataset on this machine: filter, search, images with their points, drafts, provenance, rejected rows."""
    from talking_points.audit.address import bind

    with exit_codes():
        if not Path(dataset).is_dir() and (reason := unavailable(dataset, "dataset")):
            raise ConfigError(f"expected a dataset's folder or a dataset on the Hub, found {dataset!a}: {reason}")
        # Before what takes seconds to import and to read.
        bound = bind("127.0.0.1", port)
        tell(f"view: reading {dataset}")
    with needs_extra("audit"):
        from talking_points.audit.viewer import serve_viewer
    from talking_points.audit.browsing import DatasetRows
    from talking_points.audit.instruction_browsing import InstructionRows, is_instructions
    from talking_points.publishing.hub import dataset_folder

    with exit_codes("closed"), bound:
        folder = dataset_folder(dataset, revision)
        rows = InstructionRows.read(folder) if is_instructions(folder) else DatasetRows.read(folder)
        title = Path(dataset).resolve().name if Path(dataset).is_dir() else dataset
        serve_viewer(rows, title, bound=bound)
