"""Writes requirements-base.lock and requirements-gpu.lock: the pins of requirements.lock with the digests of all files.

Of each release every file of the index is listed, for all systems and Python versions, so that one line serves the
wheel of this machine and that of another. ``make lock-digests`` runs it with uv in its environment.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE, GPU = ROOT / "requirements-base.lock", ROOT / "requirements-gpu.lock"


def compiled(*extras: str) -> dict[str, str]:
    """Each package's line with its digests, by name, for the base and these extras."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    done = subprocess.run(
        [Path(sys.executable).with_name("uv"), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
         "--generate-hashes", "--no-header", "--no-annotate", "--no-strip-extras",
         "--no-emit-index-url", "--no-emit-find-links",
         "--constraint", ROOT / "requirements.lock", *(f"--extra={extra}" for extra in extras),
         ROOT / "pyproject.toml", "-"],
        input="\n".join(build), capture_output=True, text=True, check=True,
    )  # fmt: skip
    entries = re.findall(r"^\S.*(?:\n .*)*", done.stdout, re.MULTILINE)
    return {entry.partition("==")[0]: entry for entry in entries}


def main() -> None:
    """Write both files, each package in one of them."""
    base, gpu = compiled(), compiled("train", "llama-cpp")
    more = {name: entry for name, entry in gpu.items() if entry != base.get(name)}
    if changed := sorted(more.keys() & base.keys()):
        sys.exit(f"the extras need other releases than the base: {', '.join(changed)}")
    for path, entries, what in ((BASE, base, "the base"), (GPU, more, "the extras train and llama-cpp on top of it")):
        head = f"# Digests of {what}, for 'pip install --require-hashes'; made by 'make lock-digests'.\n"
        path.write_text(head + "\n".join(entries.values()) + "\n")


if __name__ == "__main__":
    main()
