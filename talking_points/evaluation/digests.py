"""What the models of a run depend on beside its configuration, named by content: code, images, starting weights.

Everything is read in full, once per run of retraining, as pretraining and loading read it too: a label map that is
corrected may keep its size, and a copy of the same files has other times.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from talking_points.config import ConfigError, fingerprint
from talking_points.regular_files import open_regular
from talking_points.sources import open_source
from talking_points.training.config import VisionConfig

PACKAGE = Path(__file__).resolve().parents[1]

NOT_REACHED = ("publishing", "audit")
"""Parts of the package that neither training nor evaluation imports: other words on a card are no reason to train."""


def digest_code(package: Path = PACKAGE) -> str:
    """Names the source, and the tables of labels beside it, that training and evaluation can reach."""
    files = {path.relative_to(package) for kind in ("*.py", "*.json") for path in package.rglob(kind)}
    reached = sorted(path for path in files if path.parts[0] not in NOT_REACHED)
    return _digest_named((path.as_posix(), package / path) for path in reached)


def digest_images(config: VisionConfig) -> dict[str, str] | None:
    """Names, by source, every image that the vision path may be pretrained on with its annotation; None without.

    Those are the files and the annotations of all listed images, more than ``config.images``: which of them are
    usable, and none of the held-out ones, is known only when they are read.
    """
    if not config.steps:
        return None
    found = {}
    for name, root in sorted(config.sources.items()):
        source = open_source(name, root)
        digest = hashlib.sha256()
        for entry in source.entries():
            digest.update(json.dumps([entry.image_id, entry.split, entry.annotation], sort_keys=True).encode())
            digest.update(_digest_named((file, source.root / file) for file in entry.files).encode())
        found[name] = digest.hexdigest()
    return found


def digest_weights(start: str | None) -> str | None:
    """Names the content of a local checkpoint that training starts from; None for the Hub's, which has a revision.

    Raises ``ConfigError`` for a folder without any file.
    """
    if start is None or not Path(start).is_dir():
        return None
    files = sorted(path for path in Path(start).iterdir() if path.is_file())
    if not files:
        raise ConfigError(f"the folder {start} is empty: expected a saved model to start from")
    return _digest_named((path.name, path) for path in files)


def _digest_named(files: Iterable[tuple[str, Path]]) -> str:
    """Of names and contents. A file that cannot be read counts as empty: whoever needs it says what is wrong."""
    digests = []
    for name, path in files:
        try:
            with open_regular(path) as stream:
                digests.append([name, hashlib.file_digest(stream, "sha256").hexdigest()])
        except OSError:
            digests.append([name, ""])
    return fingerprint(digests)
