"""What resuming costs: the time of a build that only reuses, relative to the build itself.

    python benchmarks/resume.py [--images 200] [--workers 2]

Builds the drawn sample with ``rules`` twice into one folder, each time in a process of its own. ``seconds`` are those
of the build; ``wall`` adds the start of Python and of the temporary orchestrator, which both runs pay alike.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from talking_points.records import SOURCES
from talking_points.sources.drawn import draw_sample

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "build" / "rules.yaml"


def main() -> None:
    """Print one line of JSON: seconds of the full and the resumed build, outside and inside, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="per source")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the sample and the build here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        roots = draw_sample(folder / "sample", arguments.images, 0, workers=arguments.workers)
        command = [sys.executable, "-m", "commands.cli", "build", "--config", str(CONFIG)]
        settings = [f"output={folder / 'out'}", f"workers={arguments.workers}"]
        settings += [f"sources.{name}.root={root}" for name, root in roots.items() if name in SOURCES]
        command += [word for setting in settings for word in ("--set", setting)]
        runs = []
        for _ in range(2):
            began = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]) | {"wall": time.perf_counter() - began})
    full, resumed = runs
    print(
        json.dumps(
            {
                "rows": full["rows"],
                "shards": full["executed_shards"],
                "executed_again": resumed["executed_shards"],
                "full_seconds": round(full["seconds"], 1),
                "resumed_seconds": round(resumed["seconds"], 1),
                "ratio": round(resumed["seconds"] / full["seconds"], 3),
                "full_wall": round(full["wall"], 1),
                "resumed_wall": round(resumed["wall"], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
