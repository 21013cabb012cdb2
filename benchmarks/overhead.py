"""What orchestration costs: a whole ``rules`` build against the same functions in a plain loop.

    python benchmarks/overhead.py --images 7000        # the paper's size: 21,000 points

Both run in processes of their own with the same number of threads, on the same drawn images. The plain loop reads,
finds keypoints, writes and verifies every description, splits the rows and draws the figures, and keeps nothing else:
what the build does more is Prefect, shards, hashing, Parquet and the card. Wall clock, processor time (the
orchestrator's server included) and peak memory of the build's process are printed; the last line is the overhead, as
a share of the build's wall time.

The build keeps freed memory for reuse (talking_points/allocator.py), and so does the plain loop; ``--plain-malloc``
leaves the C library as it is there.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from talking_points.allocator import keep_freed_memory
from talking_points.build_config import BuildConfig
from talking_points.candidates.build import build_candidates
from talking_points.candidates.counting import composition
from talking_points.candidates.sampling import choose
from talking_points.candidates.splitting import near_duplicate_groups, split
from talking_points.config import load_config
from talking_points.descriptions.backends import open_backend
from talking_points.descriptions.backends.protocol import Completion
from talking_points.descriptions.steps import (
    generate_request,
    local_caption_request,
    object_caption_request,
    refine_request,
)
from talking_points.descriptions.verification import verify
from talking_points.publishing.figures import (
    Example,
    acceptance_bars,
    composition_sunburst,
    example_grid,
    length_histogram,
)
from talking_points.records import CANDIDATE_SCHEMA, SOURCES, Candidate
from talking_points.sources import open_source
from talking_points.sources.drawn import draw_sample
from talking_points.sources.drawn.writers import FOLDERS
from talking_points.sources.protocol import SkippedImage, SourceEntry
from tasks.running.dataset_figures import EXAMPLES
from tasks.running.source_images import image_pixels
from tasks.running.text_shards import read_texts  # noqa: F401  (the build's code, imported by both so that both pay for it)

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "build" / "rules.yaml"


def settings(roots: dict[str, str], output: str, workers: int) -> list[str]:
    given = [f"sources.{name}.root={root}" for name, root in roots.items()]
    return [f"output={output}", f"workers={workers}", *given]


def plain_loop(roots: dict[str, str], workers: int, plain_malloc: bool = False) -> None:
    """The same work with nothing around it."""
    if not plain_malloc:
        keep_freed_memory()
    config = load_config(BuildConfig, CONFIG, settings(roots, "unused", workers))
    with ThreadPoolExecutor(workers) as pool:
        rows: list[Candidate] = []
        for name in config.open_sources:
            source = open_source(name, roots[name])

            def candidates(entry: SourceEntry, source: object = source) -> list[Candidate]:
                try:
                    return build_candidates(source.read(entry), "", config.keypoints)[0]  # type: ignore[attr-defined]
                except SkippedImage:
                    return []

            for found in pool.map(candidates, source.entries()):
                rows += found
        table = pa.Table.from_pylist([row.__dict__ for row in rows], schema=CANDIDATE_SCHEMA)
        sample = choose(table, dict.fromkeys(config.open_sources), seed=config.seed)
        chosen = {id_ for own in sample.rows.values() for id_ in table["id"].take(own).to_pylist()}
        backend = open_backend(config.refine)

        def ask(request: object) -> str:
            answer = backend.complete([request])[0]  # type: ignore[list-item]
            assert isinstance(answer, Completion)
            return answer.text

        def describe(row: Candidate) -> str:
            pixels = image_pixels(row, roots)
            about_object = ask(object_caption_request(row, pixels, config.object_caption, config.seed))
            around = ask(local_caption_request(row, pixels, config.local_caption, config.crop, config.seed))
            draft = ask(generate_request(row, about_object, around, config.generate, config.seed))
            text = ask(refine_request(row, about_object, around, draft, (), 0, config.refine, config.seed))
            # The build judges every text twice: while refining, and at the end.
            assert verify(text, row, config.verification) == verify(text, row, config.verification)
            return text

        kept = [row for row in rows if row.id in chosen]
        texts = list(pool.map(describe, kept))
    groups = near_duplicate_groups(
        np.array([row.image_phash for row in kept], dtype=np.uint64),
        config.sampling.near_duplicate_bits,
        aspects=np.array([row.image_width / row.image_height for row in kept]),
        contents=[row.image_path for row in kept],
    )
    split([row.id for row in kept], [row.source for row in kept], groups, seed=config.seed)
    draw_figures(kept, texts, roots)
    print(json.dumps({"rows": len(texts)}))


def draw_figures(rows: list[Candidate], texts: list[str], roots: dict[str, str]) -> None:
    """The figures of the build's card, into a folder that goes away."""
    made_of = composition(*([getattr(row, name) for row in rows] for name in ("source", "object", "part")))
    examples = [
        Example(image_pixels(row, roots), row.keypoint, text) for row, text in zip(rows[:EXAMPLES], texts, strict=False)
    ]
    with tempfile.TemporaryDirectory() as folder:
        for extension in ("png", "svg"):
            composition_sunburst(made_of.counts, Path(folder, f"composition.{extension}"))
            length_histogram([len(text.split()) for text in texts], Path(folder, f"lengths.{extension}"))
            acceptance_bars({"accepted": len(texts)}, Path(folder, f"acceptance.{extension}"))
            example_grid(examples, Path(folder, f"examples.{extension}"))


def measured(command: Callable[[], subprocess.CompletedProcess[str]]) -> tuple[dict[str, float], dict[str, float]]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = command()
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "peak_mib": after.ru_maxrss / 1024}, json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=300, help="per source")
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--sample", type=Path, help="a drawn sample to use or to make; default: a temporary one")
    arguments.add_argument("--plain-malloc", action="store_true", help="no memory is kept in the plain loop")
    arguments.add_argument("--plain", type=json.loads, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.plain:
        plain_loop(given.plain, given.workers, given.plain_malloc)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.sample or Path(temporary) / "sample"
        if not folder.is_dir():
            draw_sample(folder, given.images, 0, workers=given.workers)
        found = {name: str(folder / FOLDERS[name]) for name in SOURCES}
        loop = [sys.executable, __file__, "--plain", json.dumps(found), "--workers", str(given.workers)]
        loop += ["--plain-malloc"] * given.plain_malloc
        talking_points = Path(sys.executable).with_name("talking-points")
        build = [str(talking_points), "build", "--config", str(CONFIG)]
        for setting in settings(found, str(Path(temporary) / "out"), given.workers):
            build += ["--set", setting]
        results = {}
        for name, command in (("plain loop", loop), ("build", build), ("second build", build)):
            results[name], counts = measured(lambda c=command: subprocess.run(c, capture_output=True, text=True))  # type: ignore[misc]
            print(f"{name:<13}", " ".join(f"{key} {value:.1f}" for key, value in results[name].items()), counts)
        plain, built, again = (results[name]["wall_s"] for name in ("plain loop", "build", "second build"))
        print(f"second build: {again / built:.1%} of the first")
        print(
            f"overhead: {built / plain - 1:.1%} of the plain loop's wall time, {1 - plain / built:.1%} of the build's"
        )


if __name__ == "__main__":
    main()
