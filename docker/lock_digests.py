"""Gives the locks the digests of all files: the pins of requirements.lock for the base, the GPU image's extras, the
tests and Ray, and in place those that have pins of their own: vLLM's, and of what llama.cpp is built with.

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
BASE, GPU, DEV, RAY = (ROOT / f"requirements-{name}.lock" for name in ("base", "gpu", "dev", "ray"))
OWN_PINS = [ROOT / f"requirements-{name}.lock" for name in ("build", "vllm", "vllm-gpu")]
OF_TORCH = re.compile(r"(torch|triton|(nvidia|cuda)-.*)")
"""PyTorch, and what its builds for CUDA alone bring along."""


def compiled(pins: str, *options: str | Path) -> dict[str, str]:
    """Each package's line with its digests, by name."""
    done = subprocess.run(
        [Path(sys.executable).with_name("uv"), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
         "--generate-hashes", "--no-header", "--no-annotate", "--no-strip-extras",
         "--no-emit-index-url", "--no-emit-find-links", *options, "-"],
        input=pins, capture_output=True, text=True, check=True,
    )  # fmt: skip
    entries = re.findall(r"^\S.*(?:\n .*)*", done.stdout, re.MULTILINE)
    return {entry.partition("==")[0]: entry for entry in entries}


def locked(*extras: str) -> dict[str, str]:
    """As ``compiled``, for the project and these extras."""
    project = ROOT / "pyproject.toml"
    build = tomllib.loads(project.read_text())["build-system"]["requires"]
    asked = [f"--extra={extra}" for extra in extras]
    return compiled("\n".join(build), "--constraint", ROOT / "requirements.lock", *asked, project)


def write(path: Path, head: str, entries: dict[str, str]) -> None:
    """A lock: its comment, then its entries."""
    path.write_text(head + "\n".join(entries.values()) + "\n")


def main() -> None:
    """Write all of them; each package of the base is in its own lock alone."""
    base, tested = locked(), dict[str, str]()
    for path, extras, what in (
        (GPU, ("train", "llama-cpp"), "the extras train and llama-cpp on top of the base"),
        (DEV, ("dev",), "what the tests need on top of the base, but for PyTorch"),
        (RAY, ("ray",), "the extra ray on top of what the tests need"),
    ):
        found = locked(*extras)
        more = {name: entry for name, entry in found.items() if entry != base.get(name)}
        if changed := sorted(more.keys() & base.keys()):
            sys.exit(f"the extras need other releases than the base: {', '.join(changed)}")
        head = f"# Digests of {what}, for 'pip install --require-hashes'; made by 'make lock-digests'.\n"
        if path == DEV:
            head += "# PyTorch has none: which build fits, for a CPU or CUDA, and who serves it, differs by machine.\n"
            bare = {name: name.partition("[")[0] for name in more}  # what an extra brings has lines of its own
            more = {name: more[name] for name in more if bare[name] not in base and not OF_TORCH.fullmatch(bare[name])}
            tested = more
        elif path == RAY:
            more = {name: more[name] for name in more if more[name] != tested.get(name)}
        write(path, head, more)
    write(BASE, "# Digests of the base, for 'pip install --require-hashes'; made by 'make lock-digests'.\n", base)
    for path in OWN_PINS:
        text = path.read_text()
        pins = re.sub(r"#.*|(?: ;.*)?(?: \\)?\n\s+--hash=\S+", "", text)
        write(path, "".join(re.findall(r"^#.*\n", text, re.MULTILINE)), compiled(pins, "--no-deps"))


if __name__ == "__main__":
    main()
