"""What batching gives: rows per second one by one and together, for every backend that is installed, on tiny models.

    python benchmarks/backends.py --results build/backends.json --figure build/backends.png

Engines that cannot share an environment are measured in turn: each run adds its backends to ``--results``, and
``--figure`` draws all of them (it needs matplotlib: draw last, in the base environment). For vLLM, shards of requests
with answers of uneven length are sent one shard after another and four at a time, with the share of the time in which
the engine had nothing to do. The figures are the last line of the output, as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

# The tiny models and the server that the tests use; of a script only its own folder is on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends import open_backend
from talking_points.descriptions.backends.protocol import Backend, ChatRequest, Completion

SHARDS, LENGTHS = 4, (8, 8, 8, 8, 8, 8, 8, 96)
"""Shards that may be at work at the same time, and the answers in each: its last row takes much longer."""

CONTEXT = 512
VLLM_OPTIONS = {"max_model_len": CONTEXT, "enforce_eager": True, "max_num_seqs": 64}

Figures = dict[str, Any]


def main() -> None:
    """Measure what this environment has, print it as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=48, help="of every answer")
    parser.add_argument("--results", type=Path, help="JSON file that the measured backends are added to")
    parser.add_argument("--figure", type=Path, help="draw all results")
    arguments = parser.parse_args()
    # Nothing is downloaded, and vLLM on a CPU needs no more than this for its cache.
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        measured = measure_installed(Path(folder), arguments.rows, arguments.tokens)
    results: Figures = {}
    if arguments.results:
        if arguments.results.is_file():
            results = json.loads(arguments.results.read_text())
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        arguments.results.write_text(json.dumps(results | measured, indent=1) + "\n")
    if arguments.figure:
        draw(results | measured, arguments.figure)
    print(json.dumps(results | measured))


def measure_installed(folder: Path, rows: int, tokens: int) -> Figures:
    """Rows per second of each backend whose packages are here."""
    texts = [_request(number, tokens) for number in range(rows)]
    images = [dataclasses.replace(request, images=(_make_image(number),)) for number, request in enumerate(texts)]
    results: Figures = {}
    if util.find_spec("llama_cpp") and util.find_spec("gguf"):
        from tests.tiny_gguf import write_tiny_gguf

        model = write_tiny_gguf(folder / "tiny.gguf")
        with _opened("llama_cpp", str(model), options={"n_ctx": CONTEXT}) as backend:
            results["llama_cpp, Llama"] = rates(backend, texts)
    if not util.find_spec("transformers"):
        return results
    from tests.tiny_models import build_tiny_llama, build_tiny_llava

    llama, llava = str(build_tiny_llama(folder / "llama")), str(build_tiny_llava(folder / "llava"))
    for name, model_folder, requests in (("Llama", llama, texts), ("LLaVA", llava, images)):
        with _opened("transformers", model_folder, batch_size=rows, device="cpu", dtype="float32") as backend:
            results[f"transformers, {name}"] = rates(backend, requests)
        if util.find_spec("vllm"):
            with _opened("vllm", model_folder, dtype="float32", options=VLLM_OPTIONS) as backend:
                opened = time.perf_counter()
                results[f"vllm, {name}"] = rates(backend, requests)
                if name == "Llama":
                    results[f"vllm, {name}"] |= shard_rates(backend, opened)
    if util.find_spec("vllm"):
        from tests.model_server import model_server

        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", llama, "--dtype", "float32"]
        command += ["--served-model-name", "tiny", "--enforce-eager", "--max-model-len", str(CONTEXT)]
        with (
            model_server(command, folder / "server.log") as endpoint,
            _opened("openai", "tiny", endpoint=endpoint, concurrency=rows) as backend,
        ):
            results["openai (vLLM server), Llama"] = rates(backend, texts)
    return results


def rates(backend: Backend, requests: Sequence[ChatRequest]) -> Figures:
    """Rows per second of a quarter of the requests one by one, and of all of them in one call."""
    _timed(backend, requests[:2])  # the first requests compile and warm up
    few = requests[: max(4, len(requests) // 4)]
    alone = len(few) / sum(_timed(backend, [request]) for request in few)
    together = len(requests) / _timed(backend, requests)
    return {"one_by_one": round(alone, 2), "batched": round(together, 2), "speedup": round(together / alone, 2)}


def shard_rates(backend: Any, opened: float) -> Figures:
    """Rows per second and idle share of vLLM's engine over uneven shards: one after another, and ``SHARDS`` at once.

    ``opened`` is when the engine was, in seconds of ``time.perf_counter``.
    """
    shards = [
        [_request(100 * shard + number, tokens) for number, tokens in enumerate(LENGTHS)] for shard in range(4 * SHARDS)
    ]
    results: Figures = {}
    for name, workers in (("shard_by_shard", 1), (f"{SHARDS}_shards_at_once", SHARDS)):
        idle, started = _idle_seconds(backend, opened), time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda shard: _timed(backend, shard), shards))
        seconds = time.perf_counter() - started
        results[name] = {
            "rows_per_second": round(len(shards) * len(LENGTHS) / seconds, 2),
            "idle_share": round((_idle_seconds(backend, opened) - idle) / seconds, 4),
        }
    return results


def _idle_seconds(backend: Any, opened: float) -> float:
    """How long the engine has had nothing to do since it was opened."""
    return float(backend.idle_share) * (time.perf_counter() - opened)


def draw(results: Mapping[str, Figures], path: Path) -> None:
    """Bars of both rates per backend, on a logarithmic axis."""
    from matplotlib.figure import Figure

    from talking_points.publishing.figures import PALETTE

    figure = Figure(figsize=(8, 1.2 + 0.62 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    for offset, key, color in ((-0.2, "one_by_one", PALETTE[7]), (0.2, "batched", PALETTE[0])):
        values = [rate[key] for rate in results.values()]
        places = [place + offset for place in range(len(results))]
        bars = axes.barh(places, values, height=0.38, color=color, label=key.replace("_", " "))
        speedups = [f" ({rate['speedup']:.1f} times)" if key == "batched" else "" for rate in results.values()]
        axes.bar_label(bars, [f"{value:.3g}{text}" for value, text in zip(values, speedups, strict=True)], padding=3)
    axes.set_yticks(range(len(results)), list(results))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.set_xlabel("rows per second, tiny models on a CPU")
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _request(number: int, tokens: int) -> ChatRequest:
    prompt = f"Describe point number {number}, which lies on the left front paw of the cat. "
    return ChatRequest(id=str(number), step="generate", prompt=prompt, system="You describe.", max_tokens=tokens)


def _make_image(number: int) -> Any:
    return np.random.default_rng(number).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def _timed(backend: Backend, requests: Sequence[ChatRequest]) -> float:
    """Seconds to answer the requests. A tiny model that fails is not measured."""
    started = time.perf_counter()
    answers = backend.complete(requests)
    seconds = time.perf_counter() - started
    failed = [answer for answer in answers if not isinstance(answer, Completion)]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(requests)} requests failed, the first: {failed[0]}")
    return seconds


@contextlib.contextmanager
def _opened(name: Any, model: str, **settings: Any) -> Iterator[Backend]:
    backend = open_backend(StepConfig(backend=name, model=model, **settings))
    try:
        yield backend
    finally:
        backend.close()


if __name__ == "__main__":
    main()
