"""What the text path costs beside the models: processor time per 1,000 rows against a server that answers at once.

    python benchmarks/texts.py --rows 500 --image-format jpeg

Every row is a local caption of a 336x336 crop, a draft and a refinement, asked through the request cache with 32
requests in flight, and two verifications of the final text. The server runs in a process of its own, whose time is not
counted. Nothing of the orchestrator is in it: see ``overhead.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from talking_points.build_config import CropConfig, StepConfig, VerificationConfig
from talking_points.candidates.spatial import object_location, part_location, point_location
from talking_points.descriptions.asking import ask
from talking_points.descriptions.backends import open_backend
from talking_points.descriptions.request_cache import RequestCache
from talking_points.descriptions.steps import generate_request, local_caption_request, refine_request
from talking_points.descriptions.verification import verify
from talking_points.records import Candidate
from talking_points.stop_requests import clear_stop

ANSWER = "a smooth brown surface with a faint dark stripe"


def serve(port: int) -> None:
    """Answer every POST at once with the same completion; HTTP by hand, so that the server is never what binds."""
    import asyncio

    message = {"role": "assistant", "content": ANSWER}
    usage = {"prompt_tokens": 400, "completion_tokens": 12}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()
    models = b'{"data": [{"id": "m"}]}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
                )
                await reader.readexactly(length)
                sent = models if head.startswith(b"GET") else body
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(sent)
                )
                writer.write(sent)
                await writer.drain()

    async def run() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", port, limit=2**24) as server:
            await server.serve_forever()

    asyncio.run(run())


def rows(count: int) -> list[Candidate]:
    """Ordinary candidates."""
    whole, part, point = (20.0, 30.0, 400.0, 300.0), (60.0, 60.0, 120.0, 90.0), (110.0, 100.0)
    return [
        Candidate(
            id=f"{number:016x}", source="pascal_part116", image_id="", image_path="", image_sha256="", image_phash=0,
            image_width=500, image_height=375, object="dog", part="head", object_bbox=whole, part_bbox=part,
            instance_index=0, instance_count=1, instance_exact=True, keypoint=point,
            sift_response=0.1, sift_size=3.0, sift_angle=0.0, object_location=object_location(whole, 500, 375),
            part_location=part_location(part, whole, "dog"), point_location=point_location(point, part),
        )
        for number in range(count)
    ]  # fmt: skip


class Stopwatch:
    """Processor seconds of this process by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.seconds[name] = time.process_time() - started


def main() -> None:
    """Run the three stages and the verification twice: with an empty cache, and with a full one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--image-format", default="png")
    given = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    server.start()
    form: dict[str, Any] = {} if given.image_format == "png" else {"request": {"image_format": given.image_format}}
    settings = {"backend": "openai", "model": "m", "endpoint": f"http://127.0.0.1:{port}/v1", "concurrency": 32}
    config = StepConfig.model_validate(settings | form)
    pixels = np.random.default_rng(0).integers(0, 255, (375, 500, 3), np.uint8)
    pixels = np.asarray(np.kron(pixels[::15, ::20], np.ones((15, 20, 1))), np.uint8)  # as smooth as photographs are
    people, crop, checks = rows(given.rows), CropConfig(), VerificationConfig()
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.1)
    clear_stop()
    with tempfile.TemporaryDirectory() as folder:
        for run in ("first run", "second run"):
            watch, started = Stopwatch(), time.perf_counter()
            backend = open_backend(config)
            with RequestCache(Path(folder, "cache.sqlite")) as cache:
                with watch("crop + local caption"):
                    ask(backend, (local_caption_request(row, pixels, config, crop, 0) for row in people), config, cache)
                with watch("draft"):
                    ask(backend, (generate_request(row, ANSWER, ANSWER, config, 0) for row in people), config, cache)
                with watch("refinement"):
                    found = ask(
                        backend,
                        (refine_request(row, ANSWER, ANSWER, ANSWER, (), 0, config, 0) for row in people),
                        config,
                        cache,
                    )
                with watch("verified twice"):
                    for number, row in [*enumerate(people), *enumerate(people)]:
                        verify(f"{found[row.id].text} {number}", row, checks)
            backend.close()
            wall = time.perf_counter() - started
            parts = ", ".join(f"{name} {1000 * spent / given.rows:.2f}" for name, spent in watch.seconds.items())
            total = 1000 * sum(watch.seconds.values()) / given.rows
            print(f"{run}: {total:.2f} CPU-s per 1,000 rows ({parts}), wall {wall:.1f} s")
    server.terminate()
    scale = 1 if sys.platform == "darwin" else 1024
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
