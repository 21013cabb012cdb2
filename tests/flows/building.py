"""How the flow tests run a build and look at what it made."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

CONFIG = str(Path(__file__).resolve().parents[2] / "configs" / "build" / "rules.yaml")
SOURCES = ("pascal_part116", "ade20k_part234", "partimagenet")


def overrides(output: Path | str, roots: dict[str, Path], *more: str) -> list[str]:
    """Settings of a build of the given sources into ``output``."""
    given = [f"sources.{name}.root={roots.get(name, 'null')}" for name in SOURCES]
    return [f"output={output}", *given, *more]


def build(output: Path | str, roots: dict[str, Path], *more: str) -> dict[str, Any]:
    """Run the flow in this process."""
    from flows.build_llamapointinpart import build_llamapointinpart

    return build_llamapointinpart(CONFIG, overrides(output, roots, *more))


def is_kept(output: Path, roots: dict[str, Path], *more: str) -> bool:
    """Whether a command would find all shards of this build kept, and start nothing; the records lie where they are."""
    from prefect.settings import get_current_settings

    from talking_points.build_config import BuildConfig
    from talking_points.config import load_config
    from tasks.dataset import make_dataset
    from tasks.orders import Orders
    from tasks.running.build_checks import check_build
    from tasks.running.build_folder import request_cache_folder
    from tasks.running.kept_stages import KeptStages, NotKept
    from tasks.running.storage import Storage

    settings = load_config(BuildConfig, CONFIG, overrides(output, roots, *more))
    storage, records = Storage(settings.output), get_current_settings().results.local_storage_path
    try:
        make_dataset(
            KeptStages(storage, records), Orders(settings, check_build(settings), request_cache_folder(storage))
        )
    except NotKept:
        return False
    return True


def data_digests(output: Path) -> dict[str, str]:
    """sha256 of every published Parquet file, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((output / "data").iterdir())}


def published(output: Path) -> dict[str, str]:
    """sha256 of every published file: data, rejected rows, card, manifest and figures."""
    files = [path for path in output.rglob("*") if path.is_file() and ".work" not in path.parts]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def made(output: Path) -> dict[str, int]:
    """Shards that the last build into ``output`` made, by stage; stages that reused all are left out."""
    import json

    stages = json.loads((output / ".work" / "status.json").read_text())["stages"]
    return {name: stage["executed"] for name, stage in stages.items() if stage["executed"]}
