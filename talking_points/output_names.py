"""Names of the folders that datasets are written to: those that their readers can open."""

from __future__ import annotations

import os
import re

DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
"""Names that are no files on Windows, whatever follows the first dot."""


def readable_output(path: str) -> str:
    """``path`` with "~" resolved. Raises ``ValueError`` for a name that the datasets library could not read."""
    if not path or not path.isprintable():
        raise ValueError("expected a folder whose name can be printed in UTF-8: choose another output")
    patterns = [found for found in ("::", "[", "]", "*", "?") if found in path]
    if patterns:
        raise ValueError(
            f"load_dataset takes '{patterns[0]}' in a path for a pattern and would find no file there: "
            "choose another output"
        )
    return os.path.expanduser(path)  # noqa: PTH111  # a user that there is not leaves it as it is
